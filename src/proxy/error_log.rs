//! The log of upstream errors, at most one line a second.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::os::mutex::lock;

/// At most one line in this time: thousands of requests may fail in a second, all for the same
/// reason.
const PAUSE: Duration = Duration::from_secs(1);

/// Logs the first of many.
#[derive(Debug, Default)]
pub struct ErrorLog(Mutex<LogThrottle>);

#[derive(Debug, Default)]
struct LogThrottle {
    logged: Option<Instant>,
    suppressed: u64,
}

impl ErrorLog {
    /// Logs why a request was answered 502, unless another was logged just now.
    pub fn bad_gateway(&self, why: &str) {
        let mut state = lock(&self.0);
        if state.logged.is_some_and(|logged| logged.elapsed() < PAUSE) {
            state.suppressed += 1;
            return;
        }
        let more = match std::mem::take(&mut state.suppressed) {
            0 => String::new(),
            suppressed => format!(" (and {suppressed} more since the last line like this)"),
        };
        state.logged = Some(Instant::now());
        warn!("[gateway] answered 502: {why}{more}");
    }
}
