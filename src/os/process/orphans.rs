//! Children that nobody else reaps.
//!
//! A process whose parent has ended becomes a child of process 1, or of a subreaper, and what a shell
//! has started before it became this program by exec is a child, too. Linux gives them all to the
//! first thread of the process, and lets a thread wait for its own children only: those of other
//! threads are theirs to reap.

use std::collections::BTreeSet;
use std::sync::Mutex;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::os::mutex::lock;
use crate::os::platform;

/// The children that the first thread has started, and reaps where it handles their end.
static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A child that this thread has just started: [`reap_ours`] reaps it.
pub fn spare(pid: u32) {
    lock(&OURS).insert(pid);
}

/// Reaps a child that was spared, which has ended.
///
/// # Errors
/// When it is no child.
pub fn reap_ours(pid: u32) -> nix::Result<WaitStatus> {
    let status = waitpid(Pid::from_raw(pid as i32), None);
    lock(&OURS).remove(&pid);
    // It stood before others in the kernel's list.
    reap();
    status
}

/// Reaps all children of this thread that have ended, but for those that are spared.
pub fn reap() {
    // Only looked at: what is spared stays.
    while let Some(pid) = platform::ended_child() {
        if lock(&OURS).contains(&(pid.as_raw() as u32)) {
            return;
        }
        let _ = waitpid(pid, None);
    }
}
