//! Descriptors that the service manager passed on: from its fd store or a socket unit
//! (sd_listen_fds(3)).
#![allow(
    unsafe_code,
    reason = "descriptors come as bare numbers in the environment"
)]

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// A descriptor that was passed on.
#[derive(Debug)]
pub struct PassedFd {
    /// Its name (FDNAME= or FileDescriptorName=).
    pub name: String,
    pub fd: OwnedFd,
}

/// Takes what was passed to this process: once, before any other descriptor is opened under these
/// numbers.
///
/// Duplicates (the same socket stored twice) are closed.
pub fn take_passed() -> Vec<PassedFd> {
    let Ok(list) = sd_notify::listen_fds_with_names() else {
        return Vec::new();
    };
    let mut seen = HashSet::new();
    list.filter_map(|(raw, name)| {
        let passed = claim(raw, name)?;
        let stat = nix::sys::stat::fstat(passed.fd.as_fd()).ok()?;
        seen.insert((stat.st_dev, stat.st_ino)).then_some(passed)
    })
    .collect()
}

/// Makes a descriptor that was passed to this process its own: no program that it starts inherits it. For each
/// number that a service manager gives, once. None where that is not open.
pub fn claim(raw: RawFd, name: String) -> Option<PassedFd> {
    // SAFETY: borrowed for one call that fails cleanly when the number is not an open descriptor.
    let borrowed = unsafe { BorrowedFd::borrow_raw(raw) };
    fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    // SAFETY: it is open, and whoever passed it gives it to this process, which takes each number once.
    let fd = unsafe { OwnedFd::from_raw_fd(raw) };
    Some(PassedFd { name, fd })
}
