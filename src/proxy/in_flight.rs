//! A request from its head to the last byte of its response.

use std::sync::Arc;

use super::progress::ConnectionProgress;
use super::stats::{GaugeGuard, Stats};

/// One request under way; dropped when the last byte of the response is handed over or the client
/// is gone.
#[derive(Debug)]
pub struct InFlight {
    progress: Option<Arc<ConnectionProgress>>,
    _open: GaugeGuard,
}

impl InFlight {
    /// A request whose head just came in. Its body has this length, or is chunked.
    pub fn begin(
        progress: &Arc<ConnectionProgress>,
        stats: &Arc<Stats>,
        body: Option<u64>,
    ) -> Self {
        progress.begin_request(body);
        Self {
            progress: Some(Arc::clone(progress)),
            _open: GaugeGuard::new(stats, |stats| &stats.requests),
        }
    }

    /// The connection became a tunnel: no limit on silence applies to it any more.
    pub fn upgraded(mut self) {
        self.progress = None;
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.end_request();
        }
    }
}
