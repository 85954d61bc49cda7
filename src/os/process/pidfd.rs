//! A descriptor of a process, which cannot refer to another one: a pidfd (Linux 5.3).
#![allow(
    unsafe_code,
    reason = "pidfd_open and pidfd_send_signal have no safe wrapper in nix"
)]

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

use nix::sys::signal::Signal;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerPidfd;

use super::ended::{Ended, is_readable};

/// A flag that sends the signal to the target's process group: linux/pidfd.h, Linux 6.9.
const PIDFD_SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;

/// The question for facts about a process: PIDFD_GET_INFO of linux/pidfd.h, Linux 6.13, with the
/// first size of its answer, 64 bytes.
const PIDFD_GET_INFO: libc::c_ulong = 0xc040_ff0b;

/// The bit of its mask for the exit status: Linux 6.15.
const PIDFD_INFO_EXIT: u64 = 1 << 3;

/// `struct pidfd_info` of linux/pidfd.h.
#[repr(C)]
#[derive(Default)]
struct PidFdInfo {
    mask: u64,
    cgroupid: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// How a process ended; none while its parent has not taken its exit status.
///
/// # Errors
/// ENOTTY on kernels that do not know the question, ESRCH on those that forget what is reaped.
pub(super) fn exit_status(process: &PidFd) -> io::Result<Option<ExitStatus>> {
    let mut info = PidFdInfo {
        mask: PIDFD_INFO_EXIT,
        ..PidFdInfo::default()
    };
    // SAFETY: the descriptor is open, and the kernel writes at most the 64 bytes that the number of
    // the call names, which is the size of the structure.
    let result = unsafe { libc::ioctl(process.0.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    let known = info.mask & PIDFD_INFO_EXIT != 0;
    Ok(known.then(|| ExitStatus::from_raw(info.exit_code)))
}

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
