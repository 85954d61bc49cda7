//! The controlling terminal (tty(4), credentials(7)).
#![allow(
    unsafe_code,
    reason = "nix reads the disposition of a signal only by setting another"
)]

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Whether this process has a controlling terminal. One that was closed is none.
pub fn is_there() -> bool {
    let flags = OFlag::O_RDONLY | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    open(c"/dev/tty", flags, Mode::empty()).is_ok()
}

/// Whether SIGHUP is ignored, as nohup(1) leaves it for the program that it starts.
pub fn hang_up_is_ignored() -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action it only writes the present one.
    let read = unsafe { libc::sigaction(libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) };
    // SAFETY: zeroed, then written by the kernel.
    read == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
}
