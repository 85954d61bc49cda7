//! Starts a successor: as an orphan that the service manager adopts, or as a child.
//!
//! An orphan is forked twice. The process in between stays its parent until this process holds a
//! pidfd, so that its pid cannot be given to another process meanwhile. Then it ends, and the
//! successor becomes a child of the service manager, or of init.
//!
//! The exec waits for the disk of the program, and nobody waits for the exec but [`Executing`].
#![allow(unsafe_code, reason = "fork, and what is safe between fork and exec")]

use std::ffi::CString;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream as StdStream;
use std::time::Duration;

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::program::Program;
use crate::gateway::signals;
use crate::os::platform;
use crate::os::process::PidFd;

/// The parent of a successor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Parentage {
    /// The service manager or init, before the successor sends its first message.
    Orphan,
    Child,
}

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    pub pid: u32,
    pub pidfd: PidFd,
}

/// A process that becomes the program now. It is killed when this is dropped.
#[derive(Debug)]
pub(super) struct Executing {
    /// None once it is somebody else's.
    spawned: Option<Spawned>,
    /// Brings the error of execve; it is closed when execve succeeds.
    executed: UnixStream,
}

/// Begins to start the program with these descriptors. Each keeps its number, which the environment
/// variable beside it has.
///
/// # Errors
/// When there can be no process.
pub(super) fn spawn(
    program: &Program,
    inherited: &[(&str, BorrowedFd<'_>)],
    parentage: Parentage,
) -> io::Result<Executing> {
    let numbers = inherited.iter().map(|(name, fd)| (*name, fd.as_raw_fd()));
    let execution = program.for_exec(numbers.clone())?;
    let plan = ExecPlan {
        argv: pointers(&execution.arguments),
        envp: pointers(&execution.environment),
        image: execution.image,
        directory: execution.directory,
        keep: numbers.map(|(_, fd)| fd).collect(),
        mask: signals::set(),
    };
    // The first pair carries the pid, the second the error of execve.
    let (mut kept, between) = StdStream::pair()?;
    let (executed, report) = StdStream::pair()?;
    executed.set_nonblocking(true)?;
    let executed = UnixStream::from_std(executed)?;
    // SAFETY: the child makes only async-signal-safe calls and allocates nothing; everything was
    // prepared before.
    let first = match unsafe { fork() }? {
        ForkResult::Child => plan.start(parentage, between.as_raw_fd(), report.as_raw_fd()),
        ForkResult::Parent { child } => child,
    };
    drop((between, report));
    let pid = match parentage {
        Parentage::Child => Ok(first.as_raw() as u32),
        Parentage::Orphan => read_number(&mut kept).map(u32::from_ne_bytes),
    };
    let spawned = pid.and_then(|pid| {
        let pidfd = PidFd::open(pid)?;
        Ok(Spawned { pid, pidfd })
    });
    if parentage == Parentage::Orphan {
        // A byte, not the end of the stream: until the exec is done, the new process has a copy of
        // this end. One that has ended needs no byte.
        let _ = kept.write_all(&[0]);
        let _ = waitpid(first, None);
    }
    Ok(Executing {
        spawned: Some(spawned?),
        executed,
    })
}

impl Executing {
    /// The process, which may not be the program yet; none when that is over.
    pub fn spawned(&self) -> Option<&Spawned> {
        self.spawned.as_ref()
    }

    /// Waits until it is the program, at most for `limit`.
    ///
    /// # Errors
    /// When the program cannot be executed: its file is gone, or built for another machine, or its
    /// disk does not answer.
    pub async fn done(mut self, limit: Duration) -> io::Result<Spawned> {
        let mut errno = [0; 4];
        match timeout(limit, self.executed.read_exact(&mut errno)).await {
            Ok(Ok(_)) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno))),
            // The other end is closed.
            Ok(Err(_)) => self.spawned.take().ok_or(io::ErrorKind::NotFound.into()),
            Err(_) => Err(not_loaded(limit)),
        }
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        if let Some(spawned) = &self.spawned {
            // An error means that it is gone.
            let _ = spawned.pidfd.signal(Signal::SIGKILL);
        }
    }
}

pub(super) fn not_loaded(limit: Duration) -> io::Error {
    let limit = limit.as_secs();
    let why = format!("it was not loaded within {limit} s: does its disk answer?");
    io::Error::new(io::ErrorKind::TimedOut, why)
}

fn read_number(stream: &mut StdStream) -> io::Result<[u8; 4]> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct ExecPlan {
    image: CString,
    directory: Option<CString>,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    keep: Vec<RawFd>,
    mask: SigSet,
}

impl ExecPlan {
    /// In the forked process: becomes the program, or forks the orphan that does.
    fn start(&self, parentage: Parentage, between: RawFd, report: RawFd) -> ! {
        if parentage == Parentage::Orphan {
            // SAFETY: as in `spawn`.
            match unsafe { fork() } {
                Ok(ForkResult::Child) => {}
                Ok(ForkResult::Parent { child }) => stay_between(child, between, report),
                Err(error) => self.fail(error as i32, report),
            }
        }
        self.execute(report)
    }

    fn execute(&self, report: RawFd) -> ! {
        // A process group of its own: this process passes a signal of the terminal on, once.
        let _ = nix::unistd::setpgid(Pid::from_raw(0), Pid::from_raw(0));
        // The signals stay blocked until the handlers exist.
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&self.mask), None);
        if let Some(directory) = &self.directory {
            // Where the link leads nowhere now, the directory of before has to do.
            // SAFETY: a plain system call with a null-terminated path.
            let _ = unsafe { libc::chdir(directory.as_ptr()) };
        }
        for fd in &self.keep {
            // SAFETY: open in the parent when it forked; only this copy loses its close-on-exec.
            unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) };
        }
        // SAFETY: null-terminated arrays of pointers into strings that the caller keeps.
        unsafe { libc::execve(self.image.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr()) };
        self.fail(nix::errno::Errno::last_raw(), report)
    }

    fn fail(&self, errno: i32, report: RawFd) -> ! {
        let bytes = errno.to_ne_bytes();
        // SAFETY: a plain write of four bytes, then the end without cleaning up what is the
        // parent's.
        unsafe {
            libc::write(report, bytes.as_ptr().cast(), bytes.len());
            libc::_exit(127)
        }
    }
}

/// Sends the pid of the child, and waits until the other side says that it holds a pidfd, or is gone.
fn stay_between(child: Pid, to: RawFd, report: RawFd) -> ! {
    let bytes = child.as_raw().to_ne_bytes();
    let mut byte = 0u8;
    // SAFETY: plain system calls on a descriptor that stays open; everything else is closed, so
    // that nothing is kept open here.
    unsafe {
        libc::write(to, bytes.as_ptr().cast(), bytes.len());
        // Before Linux 5.9 the rest stays open, which does no harm; this would.
        libc::close(report);
        platform::close_others(to);
        libc::read(to, (&raw mut byte).cast(), 1);
        libc::_exit(0)
    }
}

fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr())
        .chain(std::iter::once(std::ptr::null()))
        .collect()
}
