//! A backend as the front door sees it: a door that is open, held or gone, and everything that went
//! through it and is not finished yet.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use http::{Method, Uri};
use slab::Slab;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::upstream::Upstream;
use crate::os::mutex::lock;

/// How many blockers are named before "+N more".
pub const BLOCKERS_SHOWN: usize = 8;

/// How much of a path is shown.
const PATH_SHOWN: usize = 200;

/// Whether a request may go through.
#[derive(Clone, Debug)]
pub enum Door {
    Open(Arc<Upstream>),
    /// Requests still go through, tunnels wait: this backend is about to be replaced and cannot
    /// overlap.
    RequestsOnly(Arc<Upstream>),
    /// Wait here; the text says for what.
    Held(Arc<str>),
    /// Look the route up again: a newer generation has it.
    Gone,
}

/// What goes through a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request and its answer.
    Request,
    /// A connection after 101.
    Tunnel,
}

/// A backend: a sidecar's unit, or a plain upstream.
#[derive(Debug)]
pub struct Backend {
    name: String,
    door: watch::Sender<Door>,
    work: Mutex<Work>,
    /// Rings whenever something finishes.
    finished: Notify,
    /// Ends the tunnels of one drain; a fresh one takes its place.
    tunnels_end: Mutex<CancellationToken>,
    /// Cuts the connections to one run of the server behind; a fresh one takes its place.
    cut: Mutex<CancellationToken>,
}

#[derive(Debug, Default)]
struct Work {
    items: Slab<Item>,
    epoch: u64,
    requests: usize,
    tunnels: usize,
    /// Requests of earlier epochs.
    before: usize,
}

#[derive(Debug)]
struct Item {
    kind: Kind,
    epoch: u64,
    what: What,
    since: Instant,
}

/// What a request asks for, to be named when something waits for it.
#[derive(Clone, Debug)]
pub struct What {
    method: Method,
    target: Uri,
}

impl What {
    /// A request. Cheap: nothing is copied.
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

impl std::fmt::Display for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:.*}", self.method, PATH_SHOWN, self.path())
    }
}

/// What is going on behind a door.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests not answered in full.
    pub requests: usize,
    pub tunnels: usize,
}

impl Backend {
    /// A backend whose door is held for the reason given.
    pub fn held(name: impl Into<String>, why: &str) -> Arc<Self> {
        Self::with(name.into(), Door::Held(why.into()))
    }

    /// A backend that is always there.
    pub fn open(name: impl Into<String>, upstream: Arc<Upstream>) -> Arc<Self> {
        Self::with(name.into(), Door::Open(upstream))
    }

    fn with(name: String, door: Door) -> Arc<Self> {
        Arc::new(Self {
            name,
            door: watch::Sender::new(door),
            work: Mutex::default(),
            finished: Notify::new(),
            tunnels_end: Mutex::default(),
            cut: Mutex::default(),
        })
    }

    /// The sidecar's name or the upstream's address.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Changes the door; a door that is gone stays gone.
    pub fn set(&self, door: Door) {
        self.door.send_if_modified(|current| {
            let change = !matches!(current, Door::Gone);
            if change {
                *current = door;
            }
            change
        });
    }

    pub fn watch(&self) -> watch::Receiver<Door> {
        self.door.subscribe()
    }

    /// Registers a request or tunnel, then looks at the door: whoever holds the door first and
    /// counts afterwards misses nobody.
    ///
    /// # Errors
    /// The door as it is, when it does not let this kind through.
    pub fn enter(
        self: &Arc<Self>,
        kind: Kind,
        what: &What,
    ) -> Result<(Ticket, Arc<Upstream>), Door> {
        // Before it is counted: whoever ends the tunnels afterwards ends this one, too, even while
        // it waits for its 101.
        let end = (kind == Kind::Tunnel).then(|| lock(&self.tunnels_end).clone());
        let ticket = self.register(kind, what.clone(), end);
        let door = self.door.borrow().clone();
        match (door, kind) {
            (Door::Open(upstream), _) | (Door::RequestsOnly(upstream), Kind::Request) => {
                Ok((ticket, upstream))
            }
            (door, _) => Err(door),
        }
    }

    fn register(
        self: &Arc<Self>,
        kind: Kind,
        what: What,
        end: Option<CancellationToken>,
    ) -> Ticket {
        let mut work = self.work();
        let epoch = work.epoch;
        match kind {
            Kind::Request => work.requests += 1,
            Kind::Tunnel => work.tunnels += 1,
        }
        let key = work.items.insert(Item {
            kind,
            epoch,
            what,
            since: Instant::now(),
        });
        Ticket {
            backend: Arc::clone(self),
            key,
            end,
        }
    }

    /// What is going on now.
    pub fn counts(&self) -> Counts {
        let work = self.work();
        Counts {
            requests: work.requests,
            tunnels: work.tunnels,
        }
    }

    /// From here on, [`wait_before`](Self::wait_before) waits for what is going on now.
    pub fn begin_epoch(&self) {
        let mut work = self.work();
        work.epoch += 1;
        work.before = work.requests;
    }

    /// Waits until the requests that were there when the epoch began are answered.
    pub async fn wait_before(&self) {
        self.wait(|work| work.before == 0).await;
    }

    /// Waits until no tunnel is left.
    pub async fn wait_tunnels(&self) {
        self.wait(|work| work.tunnels == 0).await;
    }

    /// Waits until nothing is left.
    pub async fn wait_all(&self) {
        self.wait(|work| work.requests == 0 && work.tunnels == 0)
            .await;
    }

    async fn wait(&self, done: impl Fn(&Work) -> bool) {
        loop {
            let finished = self.finished.notified();
            tokio::pin!(finished);
            finished.as_mut().enable();
            if done(&self.work()) {
                return;
            }
            finished.await;
        }
    }

    /// Ends the tunnels there are, and those that still wait for their 101 when they have it: a
    /// WebSocket is told 1012 first.
    pub fn end_tunnels(&self) {
        std::mem::take(&mut *lock(&self.tunnels_end)).cancel();
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

    /// What is not finished, the oldest first: at most [`BLOCKERS_SHOWN`], then "+N more".
    pub fn blockers(&self) -> Vec<String> {
        let work = self.work();
        let mut items: Vec<&Item> = work.items.iter().map(|(_, item)| item).collect();
        items.sort_by_key(|item| item.since);
        first_few(items.iter().map(|item| item.describe()))
    }

    fn work(&self) -> MutexGuard<'_, Work> {
        lock(&self.work)
    }
}

/// The first [`BLOCKERS_SHOWN`] of what is waited for, then "+N more".
pub fn first_few(all: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = all.len().saturating_sub(BLOCKERS_SHOWN);
    let rest = (more > 0).then(|| format!("+{more} more"));
    all.take(BLOCKERS_SHOWN).chain(rest).collect()
}

/// Lets the tunnels of `all` close by themselves until `at`, then ends them and waits for `last` at
/// most.
pub async fn close_tunnels<'a>(
    all: impl Iterator<Item = &'a Arc<Backend>> + Clone,
    at: tokio::time::Instant,
    last: Duration,
) {
    let closed = || join_all(all.clone().map(|backend| backend.wait_tunnels()));
    if tokio::time::timeout_at(at, closed()).await.is_err() {
        all.clone().for_each(|backend| backend.end_tunnels());
        // What is left by then is for the caller to cut.
        let _ = tokio::time::timeout(last, closed()).await;
    }
}

impl Item {
    fn describe(&self) -> String {
        let kind = match self.kind {
            Kind::Request => "",
            Kind::Tunnel => "tunnel ",
        };
        format!(
            "{kind}{} for {} s",
            self.what,
            self.since.elapsed().as_secs()
        )
    }
}

/// One request or tunnel under way; finished when dropped.
#[derive(Debug)]
pub struct Ticket {
    backend: Arc<Backend>,
    key: usize,
    /// Ends it, where it is a tunnel's.
    end: Option<CancellationToken>,
}

impl Ticket {
    /// Ends the tunnel that this is for.
    pub fn tunnel_end(&self) -> CancellationToken {
        self.end.clone().unwrap_or_default()
    }

    /// The server did not agree to a tunnel: its answer has the time of a request.
    pub fn is_request(&mut self) {
        if self.end.take().is_some() {
            let mut work = self.backend.work();
            work.tunnels -= 1;
            work.requests += 1;
            let epoch = work.epoch;
            if let Some(item) = work.items.get_mut(self.key) {
                (item.kind, item.epoch) = (Kind::Request, epoch);
            }
        }
    }

    /// The backend behind the door.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut work = self.backend.work();
        let Some(item) = work.items.try_remove(self.key) else {
            return;
        };
        match item.kind {
            Kind::Request => work.requests -= 1,
            Kind::Tunnel => work.tunnels -= 1,
        }
        if item.kind == Kind::Request && item.epoch < work.epoch {
            work.before = work.before.saturating_sub(1);
        }
        drop(work);
        self.backend.finished.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream() -> Arc<Upstream> {
        Upstream::new(
            super::super::upstream::Address::Socket(([127, 0, 0, 1], 1).into()),
            1,
            CancellationToken::new(),
        )
    }

    fn get(path: &str) -> What {
        What::new(&Method::GET, &path.parse().unwrap())
    }

    #[tokio::test]
    async fn a_fade_waits_only_for_what_was_there_before() {
        let backend = Backend::open("a", upstream());
        let (old, _) = backend.enter(Kind::Request, &get("/old")).unwrap();
        backend.begin_epoch();
        let (new, _) = backend.enter(Kind::Request, &get("/new")).unwrap();
        drop(old);
        backend.wait_before().await;
        assert_eq!(backend.counts().requests, 1);
        assert_eq!(backend.blockers(), ["GET /new for 0 s"]);
        drop(new);
        backend.wait_all().await;
    }

    #[tokio::test]
    async fn a_fading_door_lets_requests_through_but_no_tunnels() {
        let backend = Backend::open("a", upstream());
        backend.set(Door::RequestsOnly(upstream()));
        assert!(backend.enter(Kind::Request, &get("/")).is_ok());
        assert!(matches!(
            backend.enter(Kind::Tunnel, &get("/")),
            Err(Door::RequestsOnly(_))
        ));
        assert_eq!(
            backend.counts(),
            Counts::default(),
            "who is turned away is not counted"
        );
        backend.set(Door::Gone);
        backend.set(Door::Open(upstream()));
        assert!(
            matches!(backend.enter(Kind::Request, &get("/")), Err(Door::Gone)),
            "gone stays gone"
        );
    }

    #[tokio::test]
    async fn a_tunnel_that_waits_for_its_101_is_ended_with_the_others_and_a_refused_one_is_a_request()
     {
        let backend = Backend::open("a", upstream());
        let (mut early, _) = backend.enter(Kind::Tunnel, &get("/ws")).unwrap();
        backend.end_tunnels();
        assert!(early.tunnel_end().is_cancelled());
        early.is_request();
        assert_eq!(
            backend.counts(),
            Counts {
                requests: 1,
                tunnels: 0
            }
        );
        let (late, _) = backend.enter(Kind::Tunnel, &get("/ws")).unwrap();
        assert!(!late.tunnel_end().is_cancelled());
        drop((early, late));
        backend.wait_all().await;
        assert_eq!(backend.counts(), Counts::default());
    }

    #[test]
    fn many_blockers_are_counted_not_listed() {
        let backend = Backend::open("a", upstream());
        let tickets: Vec<_> = (0..11)
            .map(|n| {
                backend
                    .enter(Kind::Request, &get(&format!("/{n}")))
                    .unwrap()
            })
            .collect();
        assert_eq!(backend.blockers().len(), BLOCKERS_SHOWN + 1);
        assert_eq!(backend.blockers()[BLOCKERS_SHOWN], "+3 more");
        drop(tickets);
        assert!(backend.blockers().is_empty());
    }
}
