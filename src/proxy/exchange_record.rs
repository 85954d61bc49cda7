//! What is known of one request from its head to its last byte, for the access log and the metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Request, StatusCode};

use super::Settings;
use super::access_log::{AccessEntry, AccessLog, LoggedHead};
use super::exchange_end::ExchangeEnd;
use super::forwarded::Peer;
use super::request_id;
use super::route_stats::{EndedRequest, RouteStats};
use super::stats::{Stats, Unsettled};

/// Where the record of a request goes when it is complete.
#[derive(Clone, Debug)]
pub struct Records {
    pub stats: Arc<Stats>,
    pub access_log: Arc<AccessLog>,
}

/// The record of one request; complete when dropped. There is none of this process's own requests.
#[derive(Debug, Default)]
pub struct ExchangeRecord(Option<Box<Known>>);

#[derive(Debug)]
struct Known {
    records: Records,
    peer: Peer,
    began: Instant,
    id: Option<HeaderValue>,
    asked: RecordedHead,
    /// The route that it took last, and the generation of that.
    route: Option<(Arc<RouteStats>, u64)>,
    /// How often it was sent once more.
    retries: u32,
    /// When it was last sent, and how long the head of the answer took from there.
    upstream: Option<(Instant, Option<Duration>)>,
    status: u16,
    /// Bytes of the answer's body that were handed over.
    bytes: u64,
    end: Option<ExchangeEnd>,
    /// It was held.
    held: Option<Unsettled>,
}

/// What the client asked, as far as the access log may need it.
#[derive(Debug)]
enum RecordedHead {
    /// There was no access log when the request began: it has no line, even if there is one by its
    /// end, because the line would not say what was asked.
    Unlogged,
    /// Its head could not be read.
    Unread,
    Read(Box<LoggedHead>),
}

impl ExchangeRecord {
    /// The record of a request whose head just came in, which has an id from here on if it is to
    /// have one.
    pub fn begin<B>(
        records: Records,
        settings: &Settings,
        peer: Peer,
        request: &mut Request<B>,
    ) -> Self {
        if !peer.is_client() {
            return Self::default();
        }
        let with_id = settings.request_id;
        let id = with_id.then(|| request_id::settle(request.headers_mut()));
        let asked = if records.access_log.is_on() {
            let client = settings.forwarded.told(peer, request.headers());
            RecordedHead::Read(Box::new(LoggedHead::of(request, client)))
        } else {
            RecordedHead::Unlogged
        };
        Self(Some(Box::new(Known::new(records, peer, id, asked))))
    }

    /// The record of a request whose head is not known.
    pub fn unread(records: Records, peer: Peer) -> Self {
        let known = || Box::new(Known::new(records, peer, None, RecordedHead::Unread));
        Self(peer.is_client().then(known))
    }

    /// Records a request that is answered though its head is not known.
    pub fn refused(records: Records, peer: Peer, status: StatusCode, end: ExchangeEnd) {
        let mut record = Self::unread(records, peer);
        record.answered(status);
        record.ends(end);
    }

    /// The id of the request, if it has one.
    pub fn id(&self) -> Option<&HeaderValue> {
        self.0.as_ref()?.id.as_ref()
    }

    /// It takes this route of this generation.
    pub fn routed(&mut self, route: &Arc<RouteStats>, generation: u64) {
        self.note(|known| known.route = Some((Arc::clone(route), generation)));
    }

    /// A copy of this generation serves it, which may be an older one than the route has.
    pub fn served_by(&mut self, generation: u64) {
        self.note(|known| {
            if let Some((_, routed)) = &mut known.route {
                *routed = generation;
            }
        });
    }

    /// It is sent to a server. The access log alone tells how long that took.
    pub fn sent(&mut self) {
        self.note(|known| {
            known.upstream = known.is_logged().then(|| (Instant::now(), None));
        });
    }

    /// It is sent once more.
    pub fn retried(&mut self) {
        self.note(|known| known.retries += 1);
    }

    /// The server began to answer.
    pub fn upstream_answered(&mut self) {
        self.note(|known| {
            if let Some((sent, time)) = &mut known.upstream {
                *time = Some(sent.elapsed());
            }
        });
    }

    /// Whether it is the request of a client.
    pub fn is_of_client(&self) -> bool {
        self.0.is_some()
    }

    /// It is held.
    pub fn held(&mut self) {
        self.note(|known| {
            let stats = &known.records.stats;
            known.held.get_or_insert_with(|| Unsettled::new(stats));
        });
    }

    /// What became of it is known, though it may go on for long.
    pub fn settles(&mut self) {
        self.note(|known| known.held = None);
    }

    /// The client gets an answer with this status.
    pub fn answered(&mut self, status: StatusCode) {
        self.note(|known| known.status = status.as_u16());
    }

    /// So much of the answer's body was handed over.
    pub fn handed_over(&mut self, bytes: u64) {
        self.note(|known| known.bytes += bytes);
    }

    /// How it ends; the first one told counts.
    pub fn ends(&mut self, end: ExchangeEnd) {
        self.note(|known| {
            known.end.get_or_insert(end);
        });
    }

    /// It ended at `now`.
    pub fn complete(&mut self, now: Instant) {
        if let Some(known) = self.0.take() {
            known.complete(now);
        }
    }

    fn note(&mut self, note: impl FnOnce(&mut Known)) {
        if let Some(known) = &mut self.0 {
            note(known);
        }
    }
}

impl Drop for ExchangeRecord {
    fn drop(&mut self) {
        if self.0.is_some() {
            self.complete(Instant::now());
        }
    }
}

impl Known {
    fn new(records: Records, peer: Peer, id: Option<HeaderValue>, asked: RecordedHead) -> Self {
        Self {
            records,
            peer,
            began: Instant::now(),
            id,
            asked,
            route: None,
            retries: 0,
            upstream: None,
            status: 0,
            bytes: 0,
            end: None,
            held: None,
        }
    }

    /// Whether it has a line in the access log, if there is one by its end.
    fn is_logged(&self) -> bool {
        !matches!(self.asked, RecordedHead::Unlogged)
    }

    fn complete(self, now: Instant) {
        let end = self.end.unwrap_or(ExchangeEnd::Cut);
        let Records { stats, access_log } = &self.records;
        if end == ExchangeEnd::ClientGone {
            stats.left.fetch_add(1, Ordering::Relaxed);
        }
        let duration = now.saturating_duration_since(self.began);
        if let Some((route, _)) = &self.route {
            route.count(EndedRequest {
                status: self.status,
                end,
                retries: self.retries,
                duration,
            });
        }
        // Only now: who waits for it counts.
        drop(self.held);
        if !access_log.is_on() {
            return;
        }
        let asked = match &self.asked {
            RecordedHead::Unlogged => return,
            RecordedHead::Unread => None,
            RecordedHead::Read(head) => Some(head),
        };
        let upstream = self.upstream;
        access_log.push(AccessEntry {
            time: SystemTime::now(),
            client: asked.map_or(self.peer, |head| head.client),
            asked: asked.map(|head| head.text(self.id.as_ref())),
            status: match (self.status, end) {
                // No answer went out: nginx's number for it, which evaluations of logs know.
                (0, ExchangeEnd::ClientGone) => CLIENT_CLOSED,
                (status, _) => status,
            },
            bytes: self.bytes,
            duration,
            upstream: upstream.map(|(sent, time)| time.unwrap_or_else(|| sent.elapsed())),
            route: self.route.clone(),
            retries: self.retries,
            end,
        });
    }
}

/// nginx's status for a client that left before its answer began (NGX_HTTP_CLIENT_CLOSED_REQUEST).
const CLIENT_CLOSED: u16 = 499;

impl LoggedHead {
    fn of<B>(request: &Request<B>, client: Peer) -> Self {
        let headers = request.headers();
        let authority = || {
            let authority = request.uri().authority()?.as_str();
            HeaderValue::from_str(authority).ok()
        };
        let field = |name: header::HeaderName| HeaderMap::get(headers, name).cloned();
        Self {
            client,
            method: request.method().clone(),
            target: request.uri().clone(),
            version: request.version(),
            host: authority().or_else(|| field(header::HOST)),
            referer: field(header::REFERER),
            agent: field(header::USER_AGENT),
        }
    }
}
