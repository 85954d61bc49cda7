//! Starts a successor: as an orphan that the service manager adopts, or as a child.
//!
//! An orphan is forked twice. The process in between stays its parent until this process holds a
//! pidfd, so that its pid cannot be given to another process meanwhile. Then it ends, and the
//! successor becomes a child of the service manager, or of init.
#![allow(unsafe_code, reason = "fork, and what is safe between fork and exec")]

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;

use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};

use super::program::Program;
use super::wire::OFFER;
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

/// Starts a successor that gets its offer through `end`, as a child of the service manager or of
/// init.
///
/// # Errors
/// As [`spawn`].
pub fn orphan(program: &Program, end: &UnixStream) -> io::Result<Spawned> {
    spawn(
        program,
        &[end.as_fd()],
        &[(OFFER, number(end))],
        Parentage::Orphan,
    )
}

/// An environment variable with the number of a descriptor.
pub(super) fn number(fd: &impl AsFd) -> String {
    fd.as_fd().as_raw_fd().to_string()
}

/// Starts the program with these descriptors. Each keeps its number, which is in `environment`.
///
/// # Errors
/// When the program cannot be started: its file is gone, or built for another machine.
pub(super) fn spawn(
    program: &Program,
    descriptors: &[BorrowedFd<'_>],
    environment: &[(&str, String)],
    parentage: Parentage,
) -> io::Result<Spawned> {
    let image = program.image()?;
    let argv = program.argv()?;
    let envp = program.envp(environment)?;
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let mask = signals::set();
    let plan = ExecPlan {
        image,
        argv: pointers(&argv),
        envp: pointers(&envp),
        keep: raw,
        mask,
    };
    // The first pipe carries the pid. The second carries the error of execve; it is closed when
    // execve succeeds.
    let (mut kept, between) = UnixStream::pair()?;
    let (mut executed, report) = UnixStream::pair()?;
    // SAFETY: the child makes only async-signal-safe calls and allocates nothing; everything was
    // prepared before.
    let first = match unsafe { fork() }? {
        ForkResult::Child => {
            if parentage == Parentage::Orphan {
                // SAFETY: as above.
                match unsafe { fork() } {
                    Ok(ForkResult::Child) => {}
                    Ok(ForkResult::Parent { child }) => {
                        stay_between(child, between.as_raw_fd(), report.as_raw_fd())
                    }
                    Err(error) => plan.fail(error as i32, report.as_raw_fd()),
                }
            }
            plan.execute(report.as_raw_fd())
        }
        ForkResult::Parent { child } => child,
    };
    drop((between, report));
    let spawned = (|| {
        let pid = match parentage {
            Parentage::Child => first.as_raw() as u32,
            Parentage::Orphan => {
                let mut number = [0; 4];
                kept.read_exact(&mut number)?;
                u32::from_ne_bytes(number)
            }
        };
        Ok(Spawned {
            pid,
            pidfd: PidFd::open(pid)?,
        })
    })();
    let mut errno = [0; 4];
    let failed = executed.read_exact(&mut errno).is_ok();
    drop(kept);
    if parentage == Parentage::Orphan || failed {
        // It has ended, or is about to.
        let _ = waitpid(first, None);
    }
    if failed {
        Err(io::Error::from_raw_os_error(i32::from_ne_bytes(errno)))
    } else {
        spawned
    }
}

struct ExecPlan {
    image: CString,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    keep: Vec<RawFd>,
    mask: SigSet,
}

impl ExecPlan {
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
