//! Waiting for an event, with a deadline.

use std::sync::{Condvar, Mutex};
use std::time::{Duration, Instant};

/// Far above what anything here takes on a loaded machine: reaching it is a failure, not a slow
/// run.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// How often a condition is looked at that cannot wake us: the kernel tells of no change in /proc.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `probe` gives something; panics with `what` after [`DEADLINE`].
pub fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, probe).unwrap_or_else(|| panic!("waited {DEADLINE:?} in vain: {what}"))
}

/// Waits at most `limit` until `probe` gives something.
pub fn within<T>(limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = probe() {
            return Some(found);
        }
        if Instant::now() >= end {
            return None;
        }
        pause(POLL);
    }
}

/// Lets time pass where time itself is what the test is about, as in a client that is silent for a
/// while.
pub fn pause(length: Duration) {
    let end = Instant::now() + length;
    let (never, bell) = (Mutex::new(()), Condvar::new());
    let mut guard = never.lock().unwrap();
    while let Some(left) = end
        .checked_duration_since(Instant::now())
        .filter(|left| !left.is_zero())
    {
        guard = bell.wait_timeout(guard, left).unwrap().0;
    }
}
