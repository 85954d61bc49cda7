//! A backend as the front door sees it: its door, which is open, held or gone, and the tickets of
//! what went through.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ticket::{RequestLine, Ticket, TicketKind, Tickets};
use super::upstream::Upstream;
use crate::os::mutex::lock;

/// Whether a request may go through.
#[derive(Clone, Debug)]
pub enum Door {
    Open(Arc<Upstream>),
    /// Requests go through, new tunnels wait: this backend is about to be replaced and cannot
    /// overlap with its successor.
    RequestsOnly(Arc<Upstream>),
    /// A newer generation has the route, and only requests of sessions that this one made go through.
    SessionsOnly(Arc<Upstream>),
    /// Requests wait; the text is the reason.
    Held(Arc<str>),
    /// The route must be looked up again: a newer generation has it.
    Gone,
}

/// A backend: a sidecar's slot, or a plain upstream.
#[derive(Debug)]
pub struct Backend {
    door: watch::Sender<Door>,
    pub tickets: Arc<Tickets>,
    /// Ends the tunnels of one drain; a fresh one takes its place.
    tunnels_end: Mutex<CancellationToken>,
    /// Cuts the connections to one run of the server; a fresh one takes its place.
    cut: Mutex<CancellationToken>,
    /// Whether this copy made sessions that are remembered.
    made_sessions: AtomicBool,
    /// When the last request of a session came since the door is open to those only.
    last_session: Mutex<Option<Instant>>,
    /// The last generation that had it.
    generation: AtomicU64,
}

impl Backend {
    pub fn new(name: impl Into<String>, door: Door) -> Arc<Self> {
        Arc::new(Self {
            door: watch::Sender::new(door),
            tickets: Tickets::new(name.into()),
            tunnels_end: Mutex::default(),
            cut: Mutex::default(),
            made_sessions: AtomicBool::new(false),
            last_session: Mutex::default(),
            generation: AtomicU64::default(),
        })
    }

    /// Changes the door. One that is gone stays gone, and one for sessions only stays that or goes,
    /// unless it is [reopened](Self::reopen).
    pub fn set(&self, door: Door) {
        self.door.send_if_modified(|current| {
            let next = match (&*current, door) {
                (Door::Gone, _) => return false,
                (Door::SessionsOnly(_), Door::Open(_) | Door::RequestsOnly(_)) => return false,
                // The process that had the sessions is away.
                (Door::SessionsOnly(_), Door::Held(_)) => Door::Gone,
                (_, door) => door,
            };
            *current = next;
            true
        });
    }

    /// A newer generation has the route. While this one drains, requests of sessions that it made go
    /// through, if there are any.
    pub fn retire(&self) {
        let made = self.made_sessions.load(Ordering::Relaxed);
        *lock(&self.last_session) = made.then(Instant::now);
        let sessions_only = |door: &Door| match door {
            Door::Open(upstream) | Door::RequestsOnly(upstream) if made => {
                Door::SessionsOnly(Arc::clone(upstream))
            }
            _ => Door::Gone,
        };
        self.door.send_modify(|door| *door = sessions_only(door));
    }

    /// How long ago the last request of a session came, where the door is open to those only.
    pub fn sessions_idle(&self) -> Option<Duration> {
        let waits = matches!(&*self.door.borrow(), Door::SessionsOnly(_));
        let last = *lock(&self.last_session);
        last.filter(|_| waits).map(|last| last.elapsed())
    }

    /// A generation has it, beside those before.
    pub fn belongs_to(&self, generation: u64) {
        self.generation.store(generation, Ordering::Relaxed);
    }

    /// The last generation that has it.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Relaxed)
    }

    /// This copy made a session that is remembered.
    pub fn has_sessions(&self) {
        self.made_sessions.store(true, Ordering::Relaxed);
    }

    /// Opens a door that was gone: its generation serves again. Nobody else changes the door between
    /// the call of `door` and its change.
    pub fn reopen(&self, door: impl FnOnce() -> Door) {
        self.door.send_modify(|current| *current = door());
    }

    pub fn watch(&self) -> watch::Receiver<Door> {
        self.door.subscribe()
    }

    /// Registers a request or tunnel, then looks at the door: a drain that closes the door first and
    /// counts afterwards misses none.
    ///
    /// # Errors
    /// The door as it is, when it does not let this kind through.
    pub fn enter(
        &self,
        kind: TicketKind,
        line: &RequestLine,
    ) -> Result<(Ticket, Arc<Upstream>), Door> {
        let (ticket, door) = self.look(kind, line);
        match (door, kind) {
            (Door::Open(upstream), _) | (Door::RequestsOnly(upstream), TicketKind::Request) => {
                Ok((ticket, upstream))
            }
            (door, _) => Err(door),
        }
    }

    /// The same for a request of a session that this copy made, where another one has the others.
    pub fn enter_session(
        &self,
        kind: TicketKind,
        line: &RequestLine,
    ) -> Option<(Ticket, Arc<Upstream>)> {
        let (ticket, door) = self.look(kind, line);
        let Door::SessionsOnly(upstream) = door else {
            return None;
        };
        *lock(&self.last_session) = Some(Instant::now());
        Some((ticket, upstream))
    }

    fn look(&self, kind: TicketKind, line: &RequestLine) -> (Ticket, Door) {
        // Before the tunnel is counted: a drain that ends the tunnels afterwards ends this one, too,
        // even while it waits for its 101.
        let end = (kind == TicketKind::Tunnel).then(|| lock(&self.tunnels_end).clone());
        let ticket = self.tickets.open(kind, line.clone(), end);
        (ticket, self.door.borrow().clone())
    }

    /// Whether requests go to this run of the server.
    pub fn leads_to(&self, upstream: &Arc<Upstream>) -> bool {
        match &*self.door.borrow() {
            Door::Open(run) | Door::RequestsOnly(run) | Door::SessionsOnly(run) => {
                Arc::ptr_eq(run, upstream)
            }
            Door::Held(_) | Door::Gone => false,
        }
    }

    /// Ends the open tunnels, and those that still wait for their 101 as soon as they have it.
    /// A WebSocket gets a Close frame with status 1012 first.
    pub fn end_tunnels(&self) {
        std::mem::take(&mut *lock(&self.tunnels_end)).cancel();
    }

    /// Ends the answers whose length is not announced: each in order if that is possible within
    /// `last`, else where it is.
    pub async fn end_streams(&self, last: Duration) {
        self.tickets.streams.end_in_order();
        tokio::time::sleep(last).await;
        self.tickets.streams.end_at_once();
    }

    /// The token that cuts the connections of an [`Upstream`] made from here on.
    pub fn cut_token(&self) -> CancellationToken {
        lock(&self.cut).clone()
    }

    /// Cuts what is not finished: the time for it is over. A request that may be repeated goes to
    /// the next run.
    pub fn cut(&self) {
        self.end_tunnels();
        std::mem::take(&mut *lock(&self.cut)).cancel();
    }
}

/// Lets the tunnels of `backends` close by themselves until `at`, then ends them and waits for at
/// most `last`. The caller cuts what is left by then.
pub async fn close_tunnels<'a>(
    backends: impl Iterator<Item = &'a Arc<Backend>> + Clone,
    at: tokio::time::Instant,
    last: Duration,
) {
    let closed = || {
        join_all(
            backends
                .clone()
                .map(|backend| backend.tickets.wait_tunnels()),
        )
    };
    if tokio::time::timeout_at(at, closed()).await.is_err() {
        backends.clone().for_each(|backend| backend.end_tunnels());
        let _ = tokio::time::timeout(last, closed()).await;
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::os::port::Server;
    use crate::proxy::Address;
    use crate::proxy::ticket::Counts;

    fn upstream() -> Arc<Upstream> {
        let address = Address::Sidecar(Arc::new(Server::new(([127, 0, 0, 1], 1).into(), 1)));
        Upstream::new(address, 1, CancellationToken::new())
    }

    fn get(path: &str) -> RequestLine {
        RequestLine::new(&Method::GET, &path.parse().unwrap())
    }

    #[tokio::test]
    async fn a_drain_waits_only_for_the_requests_of_before() {
        let backend = Backend::new("a", Door::Open(upstream()));
        let (old, _) = backend.enter(TicketKind::Request, &get("/old")).unwrap();
        backend.tickets.begin_epoch();
        let (new, _) = backend.enter(TicketKind::Request, &get("/new")).unwrap();
        drop(old);
        backend.tickets.wait_before().await;
        assert_eq!(backend.tickets.counts().requests, 1);
        assert_eq!(backend.tickets.blockers(), ["GET /new for 0 s"]);
        drop(new);
        backend.tickets.wait_all().await;
    }

    #[tokio::test]
    async fn a_door_for_requests_only_lets_no_tunnel_through() {
        let backend = Backend::new("a", Door::Open(upstream()));
        backend.set(Door::RequestsOnly(upstream()));
        assert!(backend.enter(TicketKind::Request, &get("/")).is_ok());
        assert!(matches!(
            backend.enter(TicketKind::Tunnel, &get("/")),
            Err(Door::RequestsOnly(_))
        ));
        assert_eq!(
            backend.tickets.counts(),
            Counts::default(),
            "a request that is turned away is not counted"
        );
        backend.set(Door::Gone);
        backend.set(Door::Open(upstream()));
        assert!(
            matches!(
                backend.enter(TicketKind::Request, &get("/")),
                Err(Door::Gone)
            ),
            "gone stays gone"
        );
    }

    #[test]
    fn a_retired_door_lets_sessions_through_until_their_process_is_away() {
        let plain = Backend::new("a", Door::Open(upstream()));
        plain.retire();
        assert!(
            matches!(*plain.watch().borrow(), Door::Gone),
            "it made none"
        );

        let backend = Backend::new("a", Door::Open(upstream()));
        backend.has_sessions();
        let line = get("/");
        assert!(backend.enter_session(TicketKind::Request, &line).is_none());
        backend.retire();
        assert!(backend.sessions_idle().is_some());
        let refused = backend.enter(TicketKind::Request, &line);
        assert!(matches!(refused, Err(Door::SessionsOnly(_))));
        for kind in [TicketKind::Request, TicketKind::Tunnel] {
            assert!(backend.enter_session(kind, &line).is_some());
        }
        backend.set(Door::Open(upstream()));
        assert!(backend.enter(TicketKind::Request, &line).is_err());
        backend.set(Door::Held("a is starting".into()));
        backend.set(Door::Open(upstream()));
        assert!(backend.enter_session(TicketKind::Request, &line).is_none());
        assert_eq!(backend.sessions_idle(), None);
        assert_eq!(backend.tickets.counts(), Counts::default());
        backend.reopen(|| Door::Open(upstream()));
        assert!(backend.enter(TicketKind::Request, &line).is_ok());
    }

    #[tokio::test]
    async fn a_tunnel_that_waits_for_its_101_is_ended_with_the_others_and_a_refused_one_is_a_request()
     {
        let backend = Backend::new("a", Door::Open(upstream()));
        let (mut early, _) = backend.enter(TicketKind::Tunnel, &get("/ws")).unwrap();
        backend.end_tunnels();
        assert!(early.tunnel_end().is_cancelled());
        early.becomes_request();
        assert_eq!(
            backend.tickets.counts(),
            Counts {
                requests: 1,
                tunnels: 0
            }
        );
        let (late, _) = backend.enter(TicketKind::Tunnel, &get("/ws")).unwrap();
        assert!(!late.tunnel_end().is_cancelled());
        drop((early, late));
        backend.tickets.wait_all().await;
        assert_eq!(backend.tickets.counts(), Counts::default());
    }
}
