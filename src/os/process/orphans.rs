//! Children that nobody else reaps.
//!
//! A process whose parent has ended becomes a child of process 1, or of a subreaper, and what a shell
//! has started before it became this program by exec is a child, too. Linux gives them all to the
//! first thread of the process, and lets a thread wait for its own children only: those of other
//! threads are theirs to reap.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::os::jobs::aside;
use crate::os::mutex::lock;
use crate::os::platform;

/// How long to wait for the exit status of a process that has ended. It is there at once, unless a
/// debugger that follows the process does not take it.
const STATUS: Duration = Duration::from_secs(1);

/// The children that the first thread has started, and reaps where it handles their end.
static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

/// A child that this thread has just started: [`status_of_ours`] reaps it.
pub fn spare(pid: u32) {
    lock(&OURS).insert(pid);
}

/// Reaps a child that was spared, which has ended; none when its exit status is not to be had. Call
/// [`forget`] afterwards.
pub async fn status_of_ours(pid: u32) -> Option<WaitStatus> {
    aside(STATUS, move || waitpid(Pid::from_raw(pid as i32), None))
        .await?
        .ok()
}

/// Spares a child no longer that has ended.
pub fn forget(pid: u32) {
    lock(&OURS).remove(&pid);
    // It stood before others in the kernel's list.
    reap();
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
