//! Tickets: the requests and tunnels under way at one backend. A drain waits for them, and names
//! those that it still waits for.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use http::{Method, Uri};
use slab::Slab;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::streams::StreamsEnd;
use crate::os::mutex::lock;

/// How many blockers are named before "+N more".
pub const BLOCKERS_SHOWN: usize = 8;

/// How long a request may wait while its server answers nothing, where no configuration says it:
/// longer than most answers take, and shorter than most people wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much of a path is shown, and of a method: both may fill a whole head.
const PATH_SHOWN: usize = 200;
const METHOD_SHOWN: usize = 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TicketKind {
    /// A request and its response.
    Request,
    /// A request that asks for an upgrade, and the connection after 101.
    Tunnel,
}

/// The tickets of one backend.
#[derive(Debug)]
pub struct Tickets {
    /// The sidecar's name or the upstream's address.
    pub backend: String,
    ledger: Mutex<Ledger>,
    /// Ends the streams among the requests.
    pub streams: StreamsEnd,
    /// Notified whenever a ticket ends.
    ended: Notify,
    made: Instant,
    /// When the server last answered, in milliseconds since these were made.
    answered: AtomicU64,
    /// How long a request may wait while the server answers nothing, in milliseconds.
    patience: AtomicU64,
}

#[derive(Debug, Default)]
struct Ledger {
    open: Slab<OpenTicket>,
    epoch: u64,
    counts: Counts,
    /// Requests of earlier epochs.
    before: usize,
    /// The streams and tunnels that were ended before their time, each with its age.
    ended_early: Vec<String>,
    /// How many of them are not named.
    ended_more: usize,
}

#[derive(Debug)]
struct OpenTicket {
    kind: TicketKind,
    epoch: u64,
    line: RequestLine,
    since: Instant,
}

/// Method and target of a request, to be named when something waits for it.
#[derive(Clone, Debug)]
pub struct RequestLine {
    method: Method,
    target: Uri,
}

/// How much is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests whose response is not complete.
    pub requests: usize,
    pub tunnels: usize,
}

impl Counts {
    fn of(&mut self, kind: TicketKind) -> &mut usize {
        match kind {
            TicketKind::Request => &mut self.requests,
            TicketKind::Tunnel => &mut self.tunnels,
        }
    }
}

/// One request or tunnel under way; it ends when the ticket is dropped.
#[derive(Debug)]
pub struct Ticket {
    tickets: Arc<Tickets>,
    key: usize,
    /// Ends the tunnel, where it is one.
    end: Option<CancellationToken>,
}

impl RequestLine {
    /// Cheap: the parts are shared, not copied.
    pub fn new(method: &Method, target: &Uri) -> Self {
        Self {
            method: method.clone(),
            target: target.clone(),
        }
    }

    /// The path without the query, which may hold secrets.
    pub fn path(&self) -> &str {
        self.target.path()
    }
}

impl std::fmt::Display for RequestLine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let method = self.method.as_str();
        write!(f, "{method:.METHOD_SHOWN$} {:.PATH_SHOWN$}", self.path())
    }
}

impl Tickets {
    pub fn new(backend: String) -> Arc<Self> {
        Arc::new(Self {
            backend,
            ledger: Mutex::default(),
            streams: StreamsEnd::default(),
            ended: Notify::new(),
            made: Instant::now(),
            answered: AtomicU64::new(0),
            patience: AtomicU64::new(PATIENCE.as_millis() as u64),
        })
    }

    /// Sets how long a request may wait while the server answers nothing; 0 for any time.
    pub fn set_patience(&self, patience: Duration) {
        self.patience
            .store(patience.as_millis() as u64, Ordering::Relaxed);
    }

    /// What waits for an answer for too long, when the server has answered nothing since it came: the
    /// server is stopped in its tracks, or works long on all it was asked.
    pub fn stalled(&self) -> Option<String> {
        self.stalled_at(Instant::now())
    }

    fn stalled_at(&self, now: Instant) -> Option<String> {
        let patience = match self.patience.load(Ordering::Relaxed) {
            0 => return None,
            millis => Duration::from_millis(millis),
        };
        let answered = self.made + Duration::from_millis(self.answered.load(Ordering::Relaxed));
        let ledger = self.ledger();
        let waiting = ledger.open.iter().map(|(_, ticket)| ticket);
        let (since, line) = waiting
            .filter(|ticket| ticket.kind == TicketKind::Request && ticket.since > answered)
            .map(|ticket| (ticket.since, &ticket.line))
            .min_by_key(|(since, _)| *since)?;
        let waits = now.saturating_duration_since(since);
        let seconds = waits.as_secs();
        (waits > patience).then(|| {
            format!(
                "{} answers nothing: {line} waits for {seconds} s",
                self.backend
            )
        })
    }

    /// Whether the server has answered something that was asked, after this moment.
    pub fn answered_since(&self, moment: Instant) -> bool {
        let after = moment.saturating_duration_since(self.made).as_millis() as u64;
        // What is noted is rounded up.
        self.answered.load(Ordering::Relaxed) > after + 1
    }

    /// Registers a request or tunnel; `end` ends a tunnel.
    pub fn open(
        self: &Arc<Self>,
        kind: TicketKind,
        line: RequestLine,
        end: Option<CancellationToken>,
    ) -> Ticket {
        let mut ledger = self.ledger();
        let epoch = ledger.epoch;
        *ledger.counts.of(kind) += 1;
        let key = ledger.open.insert(OpenTicket {
            kind,
            epoch,
            line,
            since: Instant::now(),
        });
        Ticket {
            tickets: Arc::clone(self),
            key,
            end,
        }
    }

    /// What is under way now.
    pub fn counts(&self) -> Counts {
        self.ledger().counts
    }

    /// From here on, [`wait_before`](Self::wait_before) waits for the requests of this moment.
    pub fn begin_epoch(&self) {
        let mut ledger = self.ledger();
        ledger.epoch += 1;
        ledger.before = ledger.counts.requests;
    }

    /// Waits until the requests that were there when the epoch began are answered.
    pub async fn wait_before(&self) {
        self.wait(|ledger| ledger.before == 0).await;
    }

    /// Waits until no tunnel is left.
    pub async fn wait_tunnels(&self) {
        self.wait(|ledger| ledger.counts.tunnels == 0).await;
    }

    /// Waits until nothing is left.
    pub async fn wait_all(&self) {
        self.wait(|ledger| ledger.counts == Counts::default()).await;
    }

    async fn wait(&self, done: impl Fn(&Ledger) -> bool) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if done(&self.ledger()) {
                return;
            }
            ended.await;
        }
    }

    /// What is under way, the oldest first: at most [`BLOCKERS_SHOWN`], then "+N more".
    pub fn blockers(&self) -> Vec<String> {
        self.named(|_| true)
    }

    /// The same for requests only: tunnels are told that they end, and have a time of their own.
    pub fn requests(&self) -> Vec<String> {
        self.named(|kind| kind == TicketKind::Request)
    }

    fn named(&self, wanted: impl Fn(TicketKind) -> bool) -> Vec<String> {
        let ledger = self.ledger();
        let open = ledger.open.iter().map(|(_, ticket)| ticket);
        let mut open: Vec<&OpenTicket> = open.filter(|ticket| wanted(ticket.kind)).collect();
        open.sort_by_key(|ticket| ticket.since);
        first_few(open.iter().map(|ticket| ticket.to_string()))
    }

    /// The streams and tunnels that were ended before their time since this was last asked: at most
    /// [`BLOCKERS_SHOWN`], then "+N more".
    pub fn take_ended_early(&self) -> Vec<String> {
        let mut ledger = self.ledger();
        let more = std::mem::take(&mut ledger.ended_more);
        let mut ended = std::mem::take(&mut ledger.ended_early);
        ended.extend((more > 0).then(|| format!("+{more} more")));
        ended
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }
}

/// The first [`BLOCKERS_SHOWN`] of what is waited for, then "+N more".
pub fn first_few(all: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = all.len().saturating_sub(BLOCKERS_SHOWN);
    let rest = (more > 0).then(|| format!("+{more} more"));
    all.take(BLOCKERS_SHOWN).chain(rest).collect()
}

impl std::fmt::Display for OpenTicket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let tunnel = match self.kind {
            TicketKind::Request => "",
            TicketKind::Tunnel => "tunnel ",
        };
        let seconds = self.since.elapsed().as_secs();
        write!(f, "{tunnel}{} for {seconds} s", self.line)
    }
}

impl Ticket {
    /// Ends the streams of its backend.
    pub fn streams(&self) -> &StreamsEnd {
        &self.tickets.streams
    }

    /// The gateway ends this stream or tunnel, which would have gone on.
    pub fn ends_early(&self) {
        let mut ledger = self.tickets.ledger();
        if ledger.ended_early.len() == BLOCKERS_SHOWN {
            ledger.ended_more += 1;
        } else if let Some(ticket) = ledger.open.get(self.key) {
            let ticket = ticket.to_string();
            ledger.ended_early.push(ticket);
        }
    }

    /// Cancelled when the tunnel that this ticket is for must end.
    pub fn tunnel_end(&self) -> CancellationToken {
        self.end.clone().unwrap_or_default()
    }

    /// The server did not agree to a tunnel: the exchange has the time limit of a request.
    pub fn becomes_request(&mut self) {
        if self.end.take().is_some() {
            let mut ledger = self.tickets.ledger();
            ledger.counts.tunnels -= 1;
            ledger.counts.requests += 1;
            let epoch = ledger.epoch;
            if let Some(ticket) = ledger.open.get_mut(self.key) {
                (ticket.kind, ticket.epoch) = (TicketKind::Request, epoch);
            }
        }
    }

    /// The server began to answer.
    pub fn answered(&self) {
        let tickets = &self.tickets;
        // Rounded up: what it answers came before.
        let millis = tickets.made.elapsed().as_millis() as u64 + 1;
        tickets.answered.store(millis, Ordering::Relaxed);
    }

    /// How much is under way at the backend, this included.
    pub fn crowd(&self) -> usize {
        let Counts { requests, tunnels } = self.tickets.counts();
        requests + tunnels
    }

    /// The name of the backend.
    pub fn backend(&self) -> &str {
        &self.tickets.backend
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut ledger = self.tickets.ledger();
        let Some(ticket) = ledger.open.try_remove(self.key) else {
            return;
        };
        *ledger.counts.of(ticket.kind) -= 1;
        if ticket.kind == TicketKind::Request && ticket.epoch < ledger.epoch {
            ledger.before = ledger.before.saturating_sub(1);
        }
        drop(ledger);
        self.tickets.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_blockers_are_counted_not_listed() {
        let tickets = Tickets::new("a".to_owned());
        let line = |n: u32| RequestLine::new(&Method::GET, &format!("/{n}").parse().unwrap());
        let open: Vec<_> = (0..11)
            .map(|n| tickets.open(TicketKind::Request, line(n), None))
            .collect();
        assert_eq!(tickets.blockers().len(), BLOCKERS_SHOWN + 1);
        assert_eq!(tickets.blockers()[BLOCKERS_SHOWN], "+3 more");
        drop(open);
        assert!(tickets.blockers().is_empty());
    }

    #[test]
    fn a_server_is_stalled_when_it_answers_nothing_while_a_request_waits() {
        let tickets = Tickets::new("a".to_owned());
        let open = |kind| {
            let line = RequestLine::new(&Method::GET, &"/x?secret=1".parse().unwrap());
            tickets.open(kind, line, None)
        };
        let _tunnel = open(TicketKind::Tunnel);
        let later = || Instant::now() + Duration::from_secs(61);
        assert_eq!(tickets.stalled_at(later()), None, "nobody waits");
        let first = open(TicketKind::Request);
        assert_eq!(tickets.stalled(), None, "it has time");
        let text = tickets.stalled_at(later()).unwrap();
        assert_eq!(text, "a answers nothing: GET /x waits for 61 s");
        tickets.set_patience(Duration::ZERO);
        assert_eq!(tickets.stalled_at(later()), None, "any time");
        tickets.set_patience(Duration::from_secs(1));
        assert!(tickets.stalled_at(later()).is_some());
        open(TicketKind::Request).answered();
        assert_eq!(tickets.stalled_at(later()), None, "it answers others");
        drop(first);
    }

    #[test]
    fn of_a_request_line_that_fills_a_head_the_beginning_is_shown() {
        let method = Method::from_bytes("A".repeat(60_000).as_bytes()).unwrap();
        let target = format!("/{}", "b".repeat(60_000)).parse().unwrap();
        let line = RequestLine::new(&method, &target).to_string();
        assert_eq!(line.len(), METHOD_SHOWN + 1 + PATH_SHOWN);
    }
}
