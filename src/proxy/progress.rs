//! How far a client connection is with its requests: idle, reading a head, answering, or reading the
//! rest of a body. Shared between the connection's socket and its requests.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::address_limits::AddressGuard;
use super::exchange_end::ExchangeEnd;
use super::exchange_record::ExchangeRecord;
use super::head_limits::HeadLimits;
use super::interim::Interim;
use super::request_head::HeadError;
use super::request_read::RequestRead;
use super::stats::{GaugeGuard, Stats};
use super::surplus_lines::SurplusLines;
use crate::config::LimitsSection;
use crate::os::mutex::lock;

/// Where a connection is between its requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum ConnectionStage {
    /// Accepted here, and nothing was read.
    New,
    /// Taken over from another process between two requests, and nothing was read here.
    Adopted,
    /// Between two requests.
    Idle,
    /// A request's head is under way.
    Head,
    /// From a complete head to the last byte of the response.
    Busy,
    /// The response is complete, the request's body is not: its rest is read and thrown away.
    Unread,
    /// The connection became a tunnel.
    Tunnel,
}

impl ConnectionStage {
    const ALL: [Self; 7] = [
        Self::New,
        Self::Adopted,
        Self::Idle,
        Self::Head,
        Self::Busy,
        Self::Unread,
        Self::Tunnel,
    ];

    /// Whether the client owes nothing, and nothing is owed to it.
    fn between(self) -> bool {
        matches!(self, Self::New | Self::Adopted | Self::Idle)
    }
}

/// How a connection is silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// It has sent nothing since it came.
    New,
    /// It is kept between two requests, from then on.
    Kept(Instant),
}

#[derive(Debug)]
pub struct ConnectionProgress {
    /// A [`ConnectionStage`].
    stage: AtomicU8,
    /// When this stage began.
    since: Mutex<Instant>,
    /// Notified when a head is complete.
    head: Notify,
    /// Whether the body of the present request was not read to its end.
    body_open: AtomicBool,
    /// Whether a part of a response is not written yet.
    unflushed: AtomicBool,
    /// Whether the client has closed its sending side.
    half_closed: AtomicBool,
    read: Mutex<RequestRead>,
    /// Interim responses on their way to the client.
    pub interim: Arc<Interim>,
    /// How the connection ends, if that is known before it does.
    end: OnceLock<ExchangeEnd>,
}

impl ConnectionProgress {
    /// A connection that was just accepted. Its first bytes are awaited like the rest of a head.
    pub fn new() -> Arc<Self> {
        Self::at(ConnectionStage::New)
    }

    /// A connection that another process served before: it may be silent like any kept one.
    pub fn adopted() -> Arc<Self> {
        Self::at(ConnectionStage::Adopted)
    }

    fn at(stage: ConnectionStage) -> Arc<Self> {
        Arc::new(Self {
            stage: AtomicU8::new(stage as u8),
            since: Mutex::new(Instant::now()),
            head: Notify::new(),
            body_open: AtomicBool::new(false),
            unflushed: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            read: Mutex::default(),
            interim: Arc::default(),
            end: OnceLock::new(),
        })
    }

    /// The connection ends so, whatever is under way; the first one told counts.
    pub fn ends(&self, end: ExchangeEnd) {
        let _ = self.end.set(end);
    }

    /// A request's head is complete. Its body has this length, or is chunked.
    pub fn begin_request(&self, body: Option<u64>) {
        lock(&self.read).begin(body);
        self.body_open.store(body != Some(0), Ordering::Release);
        self.set(ConnectionStage::Busy);
        self.head.notify_waiters();
    }

    /// The last byte of a response is handed over.
    pub fn end_request(&self, now: Instant) {
        if self.body_open.load(Ordering::Acquire) {
            self.enter(ConnectionStage::Unread, now);
        } else {
            self.await_next(now);
        }
    }

    /// The present request's body was read to its end.
    pub fn body_ended(&self) {
        self.body_open.store(false, Ordering::Release);
        if self.stage() == ConnectionStage::Unread {
            self.await_next(Instant::now());
        }
    }

    /// Whether more of the present request's body may come.
    pub fn body_open(&self) -> bool {
        self.body_open.load(Ordering::Acquire)
    }

    /// The connection is no request's any more.
    pub fn becomes_tunnel(&self) {
        lock(&self.read).lose();
        self.body_open.store(false, Ordering::Release);
        self.enter(ConnectionStage::Tunnel, Instant::now());
    }

    /// Something was read; nothing when the client has closed its sending side. Returns how many of the
    /// bytes may go on to hyper now; the rest is kept.
    pub fn received(&self, bytes: &[u8], limits: HeadLimits) -> usize {
        let stage = self.stage();
        if bytes.is_empty() {
            self.half_closed.store(true, Ordering::Release);
        } else if stage == ConnectionStage::New {
            self.set(ConnectionStage::Head);
        } else if stage.between() {
            self.enter(ConnectionStage::Head, Instant::now());
        } else if stage == ConnectionStage::Unread {
            self.enter(stage, Instant::now());
        }
        lock(&self.read).add(bytes, limits)
    }

    /// What hyper may have of what was kept, at most `room` bytes: it wants to read.
    pub fn kept(&self, room: usize, limits: HeadLimits) -> Option<Bytes> {
        lock(&self.read).give(room, limits)
    }

    /// Of the request that begins: why it is refused, if it is, and the header lines that it lacks. The
    /// connection closes after one that is refused.
    pub fn take_judgement(&self) -> (Option<HeadError>, SurplusLines) {
        let (refusal, surplus) = lock(&self.read).take_judgement();
        if refusal.is_some() {
            // What the client still sends is read and thrown away, so that it can read the answer.
            self.body_open.store(true, Ordering::Release);
        }
        (refusal, surplus)
    }

    /// A part of a response is given to the socket.
    pub fn begin_write(&self) {
        self.unflushed.store(true, Ordering::Release);
    }

    /// All of it is written.
    pub fn flushed(&self) {
        self.unflushed.store(false, Ordering::Release);
    }

    /// Waits until no head is awaited here for the first time, and none is under way.
    pub async fn head_complete(&self) {
        let complete = self.head.notified();
        if self.awaits_first_request() {
            complete.await;
        }
    }

    /// Whether exactly the present request was read: all of it, and nothing of the next.
    pub fn read_whole(&self) -> bool {
        !self.body_open() && lock(&self.read).whole()
    }

    /// Whether the connection is between two requests, or before the first, with nothing read ahead
    /// and nothing left to read or to write.
    pub fn idle(&self) -> bool {
        let waits =
            self.unflushed.load(Ordering::Acquire) || self.half_closed.load(Ordering::Acquire);
        self.stage().between() && !waits && self.read_whole()
    }

    /// The kind of silence of an idle connection.
    pub fn silence(&self) -> Option<Silence> {
        let since = *lock(&self.since);
        let silence = match self.stage() {
            ConnectionStage::Idle | ConnectionStage::Adopted => Silence::Kept(since),
            _ => Silence::New,
        };
        self.idle().then_some(silence)
    }

    /// Whether a client waits for a response, or for its rest.
    pub fn answering(&self) -> bool {
        self.stage() == ConnectionStage::Busy
    }

    /// Whether the connection became a tunnel.
    pub fn tunnel(&self) -> bool {
        self.stage() == ConnectionStage::Tunnel
    }

    /// Waits until the client has asked nothing for `time`, counted from `since` at the earliest.
    pub async fn silent(&self, since: Instant, time: Duration) {
        let mut from = since;
        loop {
            tokio::time::sleep_until(from + time).await;
            let stage_since = *lock(&self.since);
            let idle = matches!(
                self.stage(),
                ConnectionStage::Idle | ConnectionStage::Adopted
            );
            if idle && stage_since <= from {
                return;
            }
            from = if idle { stage_since } else { Instant::now() };
        }
    }

    /// When the time limit of this stage is over, if it has one.
    pub fn deadline(&self, limits: &LimitsSection) -> Option<Instant> {
        let limit = match self.stage() {
            ConnectionStage::New | ConnectionStage::Head => limits.header_time.0,
            ConnectionStage::Idle | ConnectionStage::Adopted if !limits.idle.0.is_zero() => {
                limits.idle.0
            }
            // A body that nobody has asked for is not always taken by who would tell of its end: hyper
            // reads a short one by itself. The client may be silent no longer than the longer of both.
            ConnectionStage::Unread if !limits.idle.0.is_zero() => {
                limits.idle.0.max(limits.body_idle.0)
            }
            _ => return None,
        };
        Some(*lock(&self.since) + limit)
    }

    /// Whether no head is complete here since the connection came, or a later one is under way.
    pub fn awaits_first_request(&self) -> bool {
        matches!(
            self.stage(),
            ConnectionStage::New | ConnectionStage::Adopted | ConnectionStage::Head
        )
    }

    /// Whether a part of a head was read, and its rest is awaited.
    pub fn head_begun(&self) -> bool {
        self.stage() == ConnectionStage::Head
    }

    /// Whether a response could be written now that no request asked for: nothing is left of an
    /// earlier response.
    pub fn may_interrupt(&self) -> bool {
        !self.unflushed.load(Ordering::Acquire)
    }

    fn await_next(&self, now: Instant) {
        let stage = match lock(&self.read).begun_next() {
            true => ConnectionStage::Head,
            false => ConnectionStage::Idle,
        };
        self.enter(stage, now);
    }

    fn stage(&self) -> ConnectionStage {
        let stage = self.stage.load(Ordering::Acquire);
        ConnectionStage::ALL[usize::from(stage) % ConnectionStage::ALL.len()]
    }

    fn set(&self, stage: ConnectionStage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn enter(&self, stage: ConnectionStage, now: Instant) {
        *lock(&self.since) = now;
        self.set(stage);
    }
}

/// One request under way; dropped when the last byte of the response is handed over or the client
/// is gone.
#[derive(Debug)]
pub struct InFlight {
    /// Counts it for its client's address.
    pub address: Option<AddressGuard>,
    progress: Option<Arc<ConnectionProgress>>,
    pub record: ExchangeRecord,
    _open: GaugeGuard,
}

impl InFlight {
    /// A request whose head just came in. Its body has this length, or is chunked.
    pub fn begin(
        progress: &Arc<ConnectionProgress>,
        stats: &Arc<Stats>,
        body: Option<u64>,
        record: ExchangeRecord,
    ) -> Self {
        progress.begin_request(body);
        Self {
            address: None,
            progress: Some(Arc::clone(progress)),
            record,
            _open: GaugeGuard::new(stats, |stats| &stats.requests),
        }
    }

    /// How far its connection is.
    pub fn progress(&self) -> Option<&Arc<ConnectionProgress>> {
        self.progress.as_ref()
    }

    /// The connection became a tunnel: no limit on silence applies to it any more. The record of the
    /// request is the tunnel's.
    pub fn upgraded(mut self) -> ExchangeRecord {
        if let Some(progress) = self.progress.take() {
            progress.becomes_tunnel();
        }
        std::mem::take(&mut self.record)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let now = Instant::now();
        if let Some(progress) = &self.progress {
            if let Some(end) = progress.end.get() {
                self.record.ends(*end);
            }
            progress.end_request(now);
        }
        self.record.complete(now.into_std());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: HeadLimits = HeadLimits {
        size: 1024,
        lines: 10,
        keep_case: false,
    };

    /// What comes from the client goes to hyper, as far as it may.
    fn receive(progress: &ConnectionProgress, bytes: &[u8]) {
        if progress.received(bytes, ANY) == 0 {
            progress.kept(usize::MAX, ANY);
        }
    }

    #[test]
    fn a_connection_is_idle_only_between_whole_requests() {
        let progress = ConnectionProgress::new();
        assert!(progress.idle(), "before the first request");
        receive(&progress, b"GET / HTTP/1.1\r\n");
        assert!(!progress.idle(), "a part of a head was read");
        receive(&progress, b"\r\n");
        progress.begin_request(Some(0));
        assert!(progress.read_whole() && !progress.idle());
        progress.begin_write();
        progress.end_request(Instant::now());
        assert!(!progress.idle(), "the response is not written");
        progress.flushed();
        assert!(progress.idle());
        receive(
            &progress,
            b"POST / HTTP/1.1\r\ncontent-length: 1\r\n\r\naGET",
        );
        progress.begin_request(Some(1));
        progress.body_ended();
        assert!(!progress.read_whole(), "a part of the next request, too");
        progress.end_request(Instant::now());
        assert!(!progress.idle() && progress.head_begun());
    }

    #[test]
    fn a_connection_whose_body_was_not_read_to_its_end_is_not_idle() {
        let limits = LimitsSection::default();
        let progress = ConnectionProgress::new();
        receive(&progress, b"POST / HTTP/1.1\r\ncontent-length: 4\r\n\r\nGE");
        progress.begin_request(Some(4));
        progress.end_request(Instant::now());
        assert!(!progress.idle() && !progress.head_begun());
        receive(&progress, b"T ");
        assert!(
            !progress.idle(),
            "it came, but nobody has taken it out of the connection"
        );
        let silent = progress.deadline(&limits).unwrap() - *lock(&progress.since);
        assert_eq!(
            silent,
            limits.idle.0.max(limits.body_idle.0),
            "no head is awaited"
        );
        progress.body_ended();
        assert!(progress.idle());
        receive(
            &progress,
            b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n",
        );
        progress.begin_request(None);
        progress.end_request(Instant::now());
        receive(&progress, b"0\r\n\r\nGET");
        progress.body_ended();
        assert!(!progress.idle() && progress.head_begun());
    }

    #[test]
    fn an_adopted_connection_may_be_silent_like_a_kept_one() {
        let limits = LimitsSection::default();
        let time = |progress: &ConnectionProgress| {
            let deadline = progress.deadline(&limits).unwrap();
            deadline.duration_since(*lock(&progress.since))
        };
        let (new, adopted) = (ConnectionProgress::new(), ConnectionProgress::adopted());
        assert!(new.idle() && adopted.idle());
        assert_eq!(time(&new), limits.header_time.0);
        assert_eq!(time(&adopted), limits.idle.0);
        receive(&adopted, b"G");
        assert_eq!(time(&adopted), limits.header_time.0);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_counts_from_the_last_response() {
        let (second, begun) = (Duration::from_secs(1), Instant::now());
        let progress = ConnectionProgress::new();
        progress.begin_request(Some(0));
        tokio::time::advance(second).await;
        progress.end_request(Instant::now());
        progress.silent(begun, 3 * second).await;
        let waited = begun.elapsed();
        assert!((4 * second..5 * second).contains(&waited), "{waited:?}");
    }
}
