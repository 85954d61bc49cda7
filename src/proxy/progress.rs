//! How far a client connection is with its requests: idle, reading a head, or answering. Shared
//! between the connection's socket and its requests.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::request_read::RequestRead;
use super::stats::{GaugeGuard, Stats};
use crate::config::LimitsSection;
use crate::os::mutex::lock;

/// Between two requests.
const IDLE: u8 = 0;
/// A request's head is awaited or under way.
const HEAD: u8 = 1;
/// From a complete head to the last byte of the response.
const BUSY: u8 = 2;

#[derive(Debug)]
pub struct ConnectionProgress {
    stage: AtomicU8,
    /// When this stage began.
    since: Mutex<Instant>,
    /// Notified when a head is complete.
    head: Notify,
    /// Whether a part of a response is not written yet.
    unflushed: AtomicBool,
    /// Whether the client has closed its sending side.
    half_closed: AtomicBool,
    read: Mutex<RequestRead>,
}

impl ConnectionProgress {
    /// A connection that has sent nothing yet. Its first bytes are awaited like the rest of a head.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU8::new(HEAD),
            since: Mutex::new(Instant::now()),
            head: Notify::new(),
            unflushed: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            read: Mutex::default(),
        })
    }

    /// A request's head is complete. Its body has this length, or is chunked.
    pub fn begin_request(&self, body: Option<u64>) {
        lock(&self.read).begin(body);
        self.stage.store(BUSY, Ordering::Release);
        self.head.notify_waiters();
    }

    /// The last byte of a response is handed over.
    pub fn end_request(&self) {
        self.enter(IDLE);
    }

    /// Something was read; nothing when the client has closed its sending side.
    pub fn received(&self, bytes: &[u8]) {
        let idle = self.stage.load(Ordering::Acquire) == IDLE;
        if bytes.is_empty() {
            self.half_closed.store(true, Ordering::Release);
        } else if idle {
            self.enter(HEAD);
        }
        lock(&self.read).add(bytes, idle);
    }

    /// A part of a response is given to the socket.
    pub fn begin_write(&self) {
        self.unflushed.store(true, Ordering::Release);
    }

    /// All of it is written.
    pub fn flushed(&self) {
        self.unflushed.store(false, Ordering::Release);
    }

    /// Waits until no head is under way: the one that was begun is complete.
    pub async fn head_complete(&self) {
        let complete = self.head.notified();
        if self.stage.load(Ordering::Acquire) == HEAD {
            complete.await;
        }
    }

    /// Whether exactly the present request was read: all of it, and nothing of the next.
    pub fn read_whole(&self) -> bool {
        lock(&self.read).whole()
    }

    /// Whether the connection is between two requests, or before the first, with nothing read ahead
    /// and nothing left to write.
    pub fn idle(&self) -> bool {
        let waits =
            self.unflushed.load(Ordering::Acquire) || self.half_closed.load(Ordering::Acquire);
        self.stage.load(Ordering::Acquire) != BUSY && !waits && self.read_whole()
    }

    /// Waits until the client has asked nothing for `time`, counted from `since` at the earliest.
    pub async fn silent(&self, since: Instant, time: Duration) {
        let mut from = since;
        loop {
            tokio::time::sleep_until(from + time).await;
            let stage_since = *lock(&self.since);
            let idle = self.stage.load(Ordering::Acquire) == IDLE;
            if idle && stage_since <= from {
                return;
            }
            from = if idle { stage_since } else { Instant::now() };
        }
    }

    /// When the time limit of this stage is over, if it has one.
    pub fn deadline(&self, limits: &LimitsSection) -> Option<Instant> {
        let since = *lock(&self.since);
        match self.stage.load(Ordering::Acquire) {
            HEAD => Some(since + limits.header_time.0),
            IDLE if !limits.idle.0.is_zero() => Some(since + limits.idle.0),
            _ => None,
        }
    }

    /// Whether a response could be written now that no request asked for: a head is awaited, and
    /// nothing is left of an earlier response.
    pub fn may_interrupt(&self) -> bool {
        self.stage.load(Ordering::Acquire) == HEAD && !self.unflushed.load(Ordering::Acquire)
    }

    fn enter(&self, stage: u8) {
        *lock(&self.since) = Instant::now();
        self.stage.store(stage, Ordering::Release);
    }
}

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
        if let Some(progress) = self.progress.take() {
            lock(&progress.read).lose();
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            progress.end_request();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_idle_only_between_whole_requests() {
        let progress = ConnectionProgress::new();
        assert!(progress.idle(), "before the first request");
        progress.received(b"GET / HTTP/1.1\r\n");
        assert!(!progress.idle(), "a part of a head was read");
        progress.received(b"\r\n");
        progress.begin_request(Some(0));
        assert!(progress.read_whole() && !progress.idle());
        progress.begin_write();
        progress.end_request();
        assert!(!progress.idle(), "the response is not written");
        progress.flushed();
        assert!(progress.idle());
        progress.received(b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\naGET");
        progress.begin_request(Some(1));
        assert!(!progress.read_whole(), "a part of the next request, too");
        progress.end_request();
        assert!(!progress.idle());
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_response() {
        let (second, begun) = (Duration::from_secs(1), Instant::now());
        let progress = ConnectionProgress::new();
        progress.begin_request(Some(0));
        tokio::time::advance(second).await;
        progress.end_request();
        progress.silent(begun, 3 * second).await;
        let waited = begun.elapsed();
        assert!((4 * second..5 * second).contains(&waited), "{waited:?}");
    }
}
