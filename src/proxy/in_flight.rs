//! A request from its head to the last byte of its answer.

use std::sync::Arc;

use super::client_io::Phase;
use super::stats::{Open, Stats};

/// One request on its way to its answer; dropped when the last byte is handed over or the client is
/// gone.
#[derive(Debug)]
pub struct Answering {
    phase: Option<Arc<Phase>>,
    _open: Open,
}

impl Answering {
    /// A request whose head just came in, with a body of this length or one in chunks.
    pub fn begin(phase: &Arc<Phase>, stats: &Arc<Stats>, body: Option<u64>) -> Self {
        phase.busy(body);
        Self {
            phase: Some(Arc::clone(phase)),
            _open: Open::new(stats, |stats| &stats.requests),
        }
    }
}

impl Answering {
    /// The connection became a tunnel: no limit on silence applies to it any more.
    pub fn upgraded(mut self) {
        self.phase = None;
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        if let Some(phase) = &self.phase {
            phase.idle();
        }
    }
}
