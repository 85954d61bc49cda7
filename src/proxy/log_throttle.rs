//! A kind of log line that may be due a thousand times in a second.

use std::fmt::Arguments;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::os::mutex::lock;

/// At most one line in this time: thousands of requests may fail in a second, all for the same
/// reason.
const LOG_PAUSE: Duration = Duration::from_secs(1);

/// Logs at most one line in [`LOG_PAUSE`], and how many were left out.
#[derive(Debug, Default)]
pub struct LogThrottle(Mutex<Throttled>);

#[derive(Debug, Default)]
struct Throttled {
    logged: Option<Instant>,
    suppressed: u64,
}

impl LogThrottle {
    pub fn log(&self, what: Arguments<'_>) {
        let mut state = lock(&self.0);
        if let Some(logged) = state.logged
            && logged.elapsed() < LOG_PAUSE
        {
            state.suppressed += 1;
            return;
        }
        let more = match std::mem::take(&mut state.suppressed) {
            0 => String::new(),
            suppressed => format!(" (and {suppressed} more since the last line like this)"),
        };
        state.logged = Some(Instant::now());
        warn!("[gateway] {what}{more}");
    }
}
