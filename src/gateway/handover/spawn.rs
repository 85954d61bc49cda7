//! Starts a successor: as an orphan that the service manager adopts, or as a child.
//!
//! An orphan is forked twice. The process in between stays its parent until this process holds a
//! pidfd, so that its pid cannot be given to another process meanwhile. Then it ends, and the
//! successor becomes a child of the service manager, or of init.
#![allow(unsafe_code, reason = "fork, and what is safe between fork and exec")]

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

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

/// Starts the program with these descriptors. Each keeps its number, which the environment variable
/// beside it has.
///
/// # Errors
/// When the program cannot be started: its file is gone, or built for another machine.
pub(super) fn spawn(
    program: &Program,
    inherited: &[(&str, BorrowedFd<'_>)],
    parentage: Parentage,
) -> io::Result<Spawned> {
    let numbers = inherited.iter().map(|(name, fd)| (*name, fd.as_raw_fd()));
    let (image, argv, envp) = program.for_exec(numbers.clone())?;
    let plan = ExecPlan {
        image,
        argv: pointers(&argv),
        envp: pointers(&envp),
        keep: numbers.map(|(_, fd)| fd).collect(),
        mask: signals::set(),
    };
    // The first pipe carries the pid. The second carries the error of execve; it is closed when
    // execve succeeds.
    let (mut kept, between) = UnixStream::pair()?;
    let (mut executed, report) = UnixStream::pair()?;
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
    let errno = read_number(&mut executed).ok().map(i32::from_ne_bytes);
    drop(kept);
    if parentage == Parentage::Orphan || errno.is_some() {
        // It has ended, or is about to.
        let _ = waitpid(first, None);
    }
    errno.map_or(spawned, |errno| Err(io::Error::from_raw_os_error(errno)))
}

fn read_number(stream: &mut UnixStream) -> io::Result<[u8; 4]> {
    let mut bytes = [0; 4];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct ExecPlan {
    image: CString,
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

/// Sends the pid of the child, and waits until the other side holds a pidfd.
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
