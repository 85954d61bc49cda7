//! How long work may go on in a drain, and what happens at the end of that time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::gateway::lease::Claim;
use crate::proxy::Backend;

/// How long work may go on.
#[derive(Clone, Copy, Debug)]
pub struct DrainTime {
    /// Requests; none means for ever.
    pub requests: Option<Duration>,
    /// Tunnels; never longer than requests.
    pub tunnels: Duration,
}

impl DrainTime {
    pub fn new(requests: Option<Duration>, tunnels: Duration) -> Self {
        Self {
            requests,
            tunnels: requests.map_or(tunnels, |requests| tunnels.min(requests)),
        }
    }
}

/// Waits for `work`, but no longer than `time` after `begun`; tells whether the work was finished.
pub async fn within(begun: Instant, time: Option<Duration>, work: impl Future) -> bool {
    match time {
        Some(time) => timeout_at(begun + time, work).await.is_ok(),
        None => {
            work.await;
            true
        }
    }
}

/// The end of a drain's budget for the leases: `who` waits no longer for them, and each holder is
/// told.
pub fn give_up_leases(who: &str, leases: &Claim) {
    if leases.count() > 0 {
        warn!(
            "[gateway] {who} is over; no longer waiting for {}",
            leases.blockers().join(", ")
        );
        leases.tell_deadline();
    }
}

/// The end of a drain's budget for requests and tunnels: what is left of them is cut.
pub fn cut<'a>(backends: impl Iterator<Item = &'a Arc<Backend>>) {
    backends.for_each(|backend| backend.cut());
}
