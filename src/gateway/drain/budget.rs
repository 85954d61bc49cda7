//! How long work may go on in a drain, and what happens at the end of that time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tracing::warn;

use crate::config::Hold;
use crate::gateway::lease::Claim;
use crate::proxy::Backend;

/// How long work may go on.
#[derive(Clone, Copy, Debug)]
pub struct DrainTime {
    /// Requests; none means for ever.
    pub requests: Option<Duration>,
    /// Tunnels; never longer than requests.
    pub tunnels: Duration,
    /// Whatever goes on while new requests wait; never longer than requests.
    pub held: Duration,
    /// For how long after the last request of a session the next one is waited for, where sessions stay
    /// with the copy that made them.
    pub sessions: Option<Duration>,
}

/// The part of `hold.time` in which a held door waits for the work behind it: the rest is for the end
/// of the old server and the start of the next.
const HELD_SHARE: u32 = 2;

impl DrainTime {
    /// For drains in which new requests wait no longer than `hold`.
    pub fn new(requests: Option<Duration>, tunnels: Duration, hold: &Hold) -> Self {
        let within = |time: Duration| requests.map_or(time, |requests| time.min(requests));
        Self {
            requests,
            tunnels: within(tunnels),
            held: within(hold.time.0 / HELD_SHARE),
            sessions: None,
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

/// What a drain's end cut though it was not finished, in words: requests with their age, and leases.
/// Tunnels do not count: they were told before.
pub type Cut = Vec<String>;

/// The end of a drain's budget, which `what` names: what is left is cut, logged and returned, and
/// each holder of a lease is told.
pub fn cut<'a>(
    what: &str,
    backends: impl Iterator<Item = &'a Arc<Backend>> + Clone,
    leases: Option<&Claim>,
) -> Cut {
    let leased: Vec<String> = leases.map(|leases| leases.blockers()).unwrap_or_default();
    let all = backends.clone();
    let left: Vec<String> = all
        .flat_map(|backend| backend.tickets.blockers())
        .chain(leased.iter().cloned())
        .collect();
    let requests = backends.clone();
    let requests = requests.flat_map(|backend| backend.tickets.requests());
    let unfinished = requests.chain(leased).collect();
    if !left.is_empty() {
        warn!("[gateway] {what} is over; cutting {}", left.join(", "));
    }
    if let Some(leases) = leases {
        leases.tell_deadline();
    }
    backends.for_each(|backend| backend.cut());
    unfinished
}
