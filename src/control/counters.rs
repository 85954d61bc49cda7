//! What happened at the control connections of this process, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted since the process began, but for what is open now.
#[derive(Debug, Default)]
pub struct ControlCounters {
    /// Those who follow the gateway now.
    pub subscribers: AtomicU64,
    /// Those that were disconnected because they did not read.
    pub dropped: AtomicU64,
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
