//! A descriptor of a process, which cannot refer to another one: a pidfd (Linux 5.3).
#![allow(
    unsafe_code,
    reason = "pidfd_open and pidfd_send_signal have no safe wrapper in nix"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;

use super::ended::{Ended, is_readable};

/// A flag that sends the signal to the target's process group: linux/pidfd.h, Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// A process, by descriptor.
#[derive(Debug)]
pub struct PidFd(Arc<OwnedFd>);

impl PidFd {
    /// Opens a process. The caller must rule out that the kernel has given the pid again: the
    /// process is a child that was not reaped yet, or its identity is checked after this call.
    ///
    /// # Errors
    /// ESRCH when there is no such process.
    pub fn open(pid: u32) -> io::Result<Self> {
        // SAFETY: pidfd_open takes two integers and returns a new descriptor or -1; close-on-exec
        // is always set.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new, and nothing else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd as libc::c_int) };
        Ok(Self::from(fd))
    }

    /// Opens the process at the other side of a unix socket: the one that connected or, where this
    /// side connected, the one that began to listen.
    ///
    /// # Errors
    /// ENOPROTOOPT before Linux 6.5; another one when that process is gone.
    pub fn of_peer(stream: &impl AsFd) -> nix::Result<Self> {
        getsockopt(stream, PeerPidfd).map(Self::from)
    }

    /// Whether the process has ended; as a zombie, it has.
    pub fn has_ended(&self) -> bool {
        is_readable(&self.0)
    }

    /// # Errors
    /// ESRCH when it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        self.send(signal, 0)
    }

    /// Sends a signal to the process's group.
    ///
    /// # Errors
    /// ESRCH when the group is gone; EINVAL on kernels before 6.9.
    pub fn signal_group(&self, signal: Signal) -> io::Result<()> {
        self.send(signal, PIDFD_SIGNAL_PROCESS_GROUP)
    }

    fn send(&self, signal: Signal, flags: libc::c_uint) -> io::Result<()> {
        // SAFETY: the descriptor is open, the info pointer may be null.
        let result = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal as libc::c_int,
                std::ptr::null::<libc::siginfo_t>(),
                flags,
            )
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The end of the process; as a zombie, it has ended.
    pub fn ended(&self) -> Ended {
        Ended::of_descriptor(&self.0)
    }
}

/// A descriptor that another process opened.
impl From<OwnedFd> for PidFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Arc::new(fd))
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
