//! The front door's counters, for `status`, the metrics page and the watchdog.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use http::StatusCode;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::address_limits::PerAddress;
use crate::os::mutex::lock;

/// A limit on how long a client or a server may make no progress (`[limits]`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `limits.header_time`
    Head,
    /// `limits.body_idle`
    Body,
    /// `limits.answer`
    Answer,
    /// `limits.send_idle`
    Send,
    /// `limits.tunnel_idle`
    Tunnel,
}

impl Limit {
    pub const ALL: [Self; 5] = [
        Self::Head,
        Self::Body,
        Self::Answer,
        Self::Send,
        Self::Tunnel,
    ];

    /// Its key in the configuration.
    pub fn key(self) -> &'static str {
        match self {
            Self::Head => "header_time",
            Self::Body => "body_idle",
            Self::Answer => "answer",
            Self::Send => "send_idle",
            Self::Tunnel => "tunnel_idle",
        }
    }
}

/// The statuses with which a request is refused for what it is.
const REFUSALS: [StatusCode; 7] = [
    StatusCode::BAD_REQUEST,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::URI_TOO_LONG,
    StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
    StatusCode::NOT_IMPLEMENTED,
    StatusCode::HTTP_VERSION_NOT_SUPPORTED,
    StatusCode::LOOP_DETECTED,
];

/// How many classes of status there are: 1xx to 5xx.
pub const CLASSES: usize = 5;

/// The place of a status among the [`CLASSES`].
pub fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, CLASSES) - 1
}

/// Counters of one process. Those of what is open now go up and down, the others only up.
#[derive(Debug, Default)]
pub struct Stats {
    pub accepted: AtomicU64,
    /// Client connections open now.
    pub connections: AtomicU64,
    /// Requests in flight or held now.
    pub requests: AtomicU64,
    /// Tunnels open now.
    pub tunnels: AtomicU64,
    /// Requests held now.
    pub held: AtomicU64,
    /// Requests that were held at all.
    pub held_total: AtomicU64,
    /// The same, each counted once.
    pub clients_held: AtomicU64,
    /// The longest time that one was held whose hold is over, in milliseconds, since this was last set to 0.
    longest_hold_ms: AtomicU64,
    /// Since when each is held that is held now, with its number.
    holds: Mutex<BTreeSet<(Instant, u64)>>,
    /// Those of them that have not ended.
    unsettled: AtomicU64,
    /// Notified when that becomes 0.
    settled: Notify,
    /// Requests sent once more.
    pub retries: AtomicU64,
    /// Responses by class, 1xx to 5xx.
    pub answers: [AtomicU64; CLASSES],
    /// Clients that left before the end of their answer.
    pub left: AtomicU64,
    /// Clients that were turned away at the limit of connections.
    pub crowded: AtomicU64,
    /// Silent clients that were disconnected at the limit of connections, for others.
    pub displaced: AtomicU64,
    /// Requests refused, by [`REFUSALS`].
    refused: [AtomicU64; REFUSALS.len()],
    /// How often an address had too many connections, and too many requests.
    limited: [AtomicU64; PerAddress::ALL.len()],
    /// How often each [`Limit`] was reached.
    expired: [AtomicU64; Limit::ALL.len()],
}

impl Stats {
    pub fn answered(&self, status: u16) {
        self.answers[class(status)].fetch_add(1, Ordering::Relaxed);
    }

    /// A request was refused for what it is.
    pub fn refused(&self, status: StatusCode) {
        if let Some(at) = REFUSALS.iter().position(|known| *known == status) {
            self.refused[at].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many requests were refused so far, by status.
    pub fn refusals(&self) -> impl Iterator<Item = (StatusCode, u64)> {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        REFUSALS.into_iter().zip(self.refused.iter().map(count))
    }

    /// A limit was reached.
    pub fn expired(&self, limit: Limit) {
        self.expired[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A client address has too much open.
    pub fn limited(&self, what: PerAddress) {
        self.limited[what as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How often addresses had too much open so far.
    pub fn limited_total(&self) -> impl Iterator<Item = (PerAddress, u64)> {
        let count = |what| self.limited[what as usize].load(Ordering::Relaxed);
        PerAddress::ALL
            .into_iter()
            .map(move |what| (what, count(what)))
    }

    /// How often each limit was reached so far.
    pub fn limits_reached(&self) -> impl Iterator<Item = (Limit, u64)> {
        let count = |limit| self.expired[limit as usize].load(Ordering::Relaxed);
        Limit::ALL
            .into_iter()
            .map(move |limit| (limit, count(limit)))
    }

    /// Whether a request was held that has not ended.
    pub fn is_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Acquire) > 0
    }

    /// Waits until every request that was held has ended.
    pub async fn settled(&self) {
        loop {
            let settled = self.settled.notified();
            tokio::pin!(settled);
            settled.as_mut().enable();
            if !self.is_unsettled() {
                return;
            }
            settled.await;
        }
    }

    /// Begins to look for the longest hold.
    pub fn watch_holds(&self) {
        self.longest_hold_ms.store(0, Ordering::Relaxed);
    }

    /// The longest time that a request was held since then, also where its hold goes on, in milliseconds.
    pub fn longest_hold_ms(&self) -> u64 {
        let oldest = lock(&self.holds).first().map(|(since, _)| *since);
        let going_on = oldest.map_or(0, |since| since.elapsed().as_millis() as u64);
        going_on.max(self.longest_hold_ms.load(Ordering::Relaxed))
    }

    /// All responses so far.
    pub fn answers_total(&self) -> u64 {
        self.answers
            .iter()
            .map(|count| count.load(Ordering::Relaxed))
            .sum()
    }
}

/// A request that was held, until it ends.
#[derive(Debug)]
pub struct Unsettled(Arc<Stats>);

impl Unsettled {
    pub fn new(stats: &Arc<Stats>) -> Self {
        stats.clients_held.fetch_add(1, Ordering::Relaxed);
        stats.unsettled.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(stats))
    }
}

impl Drop for Unsettled {
    fn drop(&mut self) {
        if self.0.unsettled.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.settled.notify_waiters();
        }
    }
}

/// A client's request that is held.
#[derive(Debug)]
pub struct HeldRequest {
    held: GaugeGuard,
    place: (Instant, u64),
}

impl HeldRequest {
    /// It waits, perhaps not for the first time, and has waited `since` then.
    pub fn new(stats: &Arc<Stats>, since: Instant) -> Self {
        let number = stats.held_total.fetch_add(1, Ordering::Relaxed);
        let place = (since, number);
        lock(&stats.holds).insert(place);
        Self {
            held: GaugeGuard::new(stats, |stats| &stats.held),
            place,
        }
    }
}

impl Drop for HeldRequest {
    fn drop(&mut self) {
        let stats = &self.held.stats;
        let millis = self.place.0.elapsed().as_millis() as u64;
        stats.longest_hold_ms.fetch_max(millis, Ordering::Relaxed);
        lock(&stats.holds).remove(&self.place);
    }
}

/// Adds one to a counter of what is open now, until dropped.
#[derive(Debug)]
pub struct GaugeGuard {
    stats: Arc<Stats>,
    counter: fn(&Stats) -> &AtomicU64,
}

impl GaugeGuard {
    pub fn new(stats: &Arc<Stats>, counter: fn(&Stats) -> &AtomicU64) -> Self {
        counter(stats).fetch_add(1, Ordering::Relaxed);
        Self {
            stats: Arc::clone(stats),
            counter,
        }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        (self.counter)(&self.stats).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A verdict that was given while clients still waited said "held for 0 ms at most".
    #[test]
    fn a_hold_that_goes_on_counts_from_its_first_wait() {
        let stats = Arc::new(Stats::default());
        let ago = |millis| Instant::now() - Duration::from_millis(millis);
        let short = HeldRequest::new(&stats, ago(200));
        let long = HeldRequest::new(&stats, ago(5_000));
        assert!((5_000..60_000).contains(&stats.longest_hold_ms()));
        drop(long);
        stats.watch_holds();
        assert!((200..5_000).contains(&stats.longest_hold_ms()));
        drop(short);
        assert!((200..5_000).contains(&stats.longest_hold_ms()));
        stats.watch_holds();
        assert_eq!(stats.longest_hold_ms(), 0);
    }
}
