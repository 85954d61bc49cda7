//! What goes wrong request by request, told to the log at a bearable rate.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use tracing::warn;

use crate::os::mutex::lock;

/// At most one line in this time: thousands of requests may fail in a second, all for the same
/// reason.
const PAUSE: Duration = Duration::from_secs(1);

/// Tells the first of many.
#[derive(Debug, Default)]
pub struct Complaints(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    told: Option<Instant>,
    untold: u64,
}

impl Complaints {
    /// Tells why a request was answered 502, unless another was told just now.
    pub fn tell(&self, why: &str) {
        let mut state = lock(&self.0);
        if state.told.is_some_and(|told| told.elapsed() < PAUSE) {
            state.untold += 1;
            return;
        }
        let more = match std::mem::take(&mut state.untold) {
            0 => String::new(),
            untold => format!(" (and {untold} more since the last line like this)"),
        };
        state.told = Some(Instant::now());
        warn!("[gateway] answered 502: {why}{more}");
    }
}
