//! Holding requests: a request waits here while its backend is away, until the backend's door lets
//! it through or its time is over (`hold.time`).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::Front;
use super::backend::{Backend, Door};
use super::exchange_record::ExchangeRecord;
use super::local_reply::NotForwarded;
use super::sessions::RequestSession;
use super::stats::HeldRequest;
use super::ticket::{RequestLine, Ticket, TicketKind};
use super::upstream::{Address, Upstream};
use crate::os::accept_queue::ConnectTurn;

/// How often a sidecar that runs but refuses connections is tried again. The end of a sidecar is
/// noticed at once, without polling.
const REFUSED_AGAIN: Duration = Duration::from_millis(100);

/// One request's way to its backend. It may wait more than once, but only `hold.time` in all.
pub struct RequestHold<'a> {
    pub front: &'a Arc<Front>,
    pub host: &'a str,
    pub kind: TicketKind,
    pub line: &'a RequestLine,
    pub record: &'a mut ExchangeRecord,
    /// What it has to do with the sessions of its server, if they are remembered.
    pub session: Option<RequestSession>,
    /// The backend that let it through last.
    pub entered: Option<Arc<Backend>>,
    /// When its first wait began, if one did.
    pub since: Option<Instant>,
}

impl RequestHold<'_> {
    /// Goes through the door, waiting for it to open if need be.
    ///
    /// # Errors
    /// [`NotForwarded`] when there is no route, when `hold.time` is over, when `hold.requests` wait
    /// already, or when no request is let in.
    pub async fn enter(&mut self) -> Result<(Ticket, Arc<Upstream>), NotForwarded> {
        match self.backend() {
            Ok(backend) => match self.try_enter(&backend) {
                Ok(entered) => Ok(entered),
                Err(_) => self.wait().await,
            },
            Err(_) if self.starting() => self.wait().await,
            Err(refused) => Err(refused),
        }
    }

    /// Through the door of the copy that made its session, where that is another one, or of `backend`.
    fn try_enter(&mut self, backend: &Arc<Backend>) -> Result<(Ticket, Arc<Upstream>), Door> {
        if let Some(home) = self.session.as_ref().and_then(RequestSession::home)
            && let Some(entered) = home.enter_session(self.kind, self.line)
        {
            self.record.served_by(home.generation());
            self.entered = Some(home);
            return Ok(entered);
        }
        let entered = backend.enter(self.kind, self.line);
        if self.session.is_some() {
            self.entered = Some(Arc::clone(backend));
        }
        entered
    }

    /// Waits until the backend changes, or a moment, after it refused a connection.
    ///
    /// # Errors
    /// [`NotForwarded`] when `hold.time` is over.
    pub async fn connection_refused(&mut self, cause: &str) -> Result<(), NotForwarded> {
        let backend = Arc::clone(&self.backend()?);
        if let Some(refusal) = self.front.refusal() {
            return Err(NotForwarded::Refused(refusal));
        }
        let mut door = backend.watch();
        let _held = self.hold(cause)?;
        let until = self.until();
        let again = (Instant::now() + REFUSED_AGAIN).min(until);
        let _ = tokio::time::timeout_at(again, door.changed()).await;
        if Instant::now() >= until {
            Err(NotForwarded::Unavailable(cause.to_owned()))
        } else {
            Ok(())
        }
    }

    /// Waits for a turn to connect to a sidecar: until there is room in its accept queue. Its name is
    /// `backend`. Other servers have no turns.
    ///
    /// # Errors
    /// [`NotForwarded`] when `hold.time` is over, or `hold.requests` wait already.
    pub async fn turn<'u>(
        &mut self,
        upstream: &'u Upstream,
        backend: &str,
    ) -> Result<Option<ConnectTurn<'u>>, NotForwarded> {
        let Address::Sidecar(server) = &upstream.address else {
            return Ok(None);
        };
        if let Some(turn) = server.turn_now() {
            return Ok(Some(turn));
        }
        let why = format!("{backend} accepts no connection: its accept queue is full");
        let _held = self.hold(&why)?;
        tokio::select! {
            turn = server.turn() => Ok(Some(turn)),
            // The connection fails at once, and the request is routed anew.
            () = upstream.wait_cut() => Ok(None),
            () = tokio::time::sleep_until(self.until()) => Err(NotForwarded::Unavailable(why)),
        }
    }

    /// Whether the request's way leads to this run of its server.
    pub fn leads_to(&mut self, upstream: &Arc<Upstream>) -> bool {
        let leads = |backend: &Arc<Backend>| backend.leads_to(upstream);
        self.entered.as_ref().is_some_and(leads) || self.backend().as_ref().is_ok_and(leads)
    }

    async fn wait(&mut self) -> Result<(Ticket, Arc<Upstream>), NotForwarded> {
        let mut table = self.front.watch_table();
        let mut refusal = self.front.watch_refusal();
        let mut held = None;
        loop {
            table.borrow_and_update();
            let refused = refusal.borrow_and_update().clone();
            let (why, door) = match self.backend() {
                Ok(backend) => {
                    let door = backend.watch();
                    let why = match self.try_enter(&backend) {
                        Ok(entered) => return Ok(entered),
                        Err(Door::Held(why)) => why.to_string(),
                        Err(Door::RequestsOnly(_) | Door::SessionsOnly(_) | Door::Open(_)) => {
                            format!("{} is restarting", backend.tickets.backend)
                        }
                        Err(Door::Gone) => "the gateway is going away".to_owned(),
                    };
                    (why, Some(door))
                }
                Err(_) if self.starting() => ("the gateway is starting".to_owned(), None),
                Err(refused) => return Err(refused),
            };
            if self.front.closing() {
                return Err(NotForwarded::Unavailable(
                    "the gateway is stopping".to_owned(),
                ));
            }
            if let Some(refusal) = refused {
                return Err(NotForwarded::Refused(refusal));
            }
            if held.is_none() {
                held = Some(self.hold(&why)?);
            }
            let something = async {
                tokio::select! {
                    () = changed(door) => {}
                    _ = table.changed() => {}
                    _ = refusal.changed() => {}
                }
            };
            if tokio::time::timeout_at(self.until(), something)
                .await
                .is_err()
            {
                return Err(NotForwarded::Unavailable(why));
            }
        }
    }

    /// Before the first generation there are no routes, but the clients of the previous process
    /// may already be there.
    fn starting(&self) -> bool {
        self.front.table().generation == 0
    }

    fn backend(&mut self) -> Result<Arc<Backend>, NotForwarded> {
        let table = self.front.table();
        let found = table.routes.find_counted(self.host, self.line.path());
        let (backend, route) = found.ok_or(NotForwarded::NoRoute)?;
        self.record.routed(route, table.generation);
        Ok(Arc::clone(backend))
    }

    /// Counts it among those that wait; this process's own requests do not count.
    fn hold(&mut self, why: &str) -> Result<Option<HeldRequest>, NotForwarded> {
        let since = *self.since.get_or_insert_with(Instant::now);
        let stats = &self.front.stats;
        let held = (self.record.is_of_client()).then(|| HeldRequest::new(stats, since));
        self.record.held();
        if stats.held.load(Ordering::Relaxed) > self.front.table().settings.hold.requests as u64 {
            return Err(NotForwarded::Unavailable(format!(
                "{why}, and too many requests wait already"
            )));
        }
        Ok(held)
    }

    /// When `hold.time` is over.
    fn until(&mut self) -> Instant {
        let since = *self.since.get_or_insert_with(Instant::now);
        since + self.front.table().settings.hold.time.0
    }
}

async fn changed(door: Option<watch::Receiver<Door>>) {
    match door {
        // An error means that the backend is gone, and the table with it.
        Some(mut door) => drop(door.changed().await),
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use http::{Method, Uri};

    use super::*;
    use crate::config::Config;
    use crate::os::port::Server;
    use crate::proxy::forwarded::Peer;
    use crate::proxy::{Reason, Refusal, Route, Routes, RoutingTable, Settings};

    fn refusal(word: &'static str) -> Refusal {
        Refusal {
            reason: Reason::new(word),
            until: std::time::Instant::now() + Duration::from_secs(5),
        }
    }

    fn line() -> RequestLine {
        RequestLine::new(&Method::GET, &Uri::from_static("/"))
    }

    fn hold<'a>(
        front: &'a Arc<Front>,
        line: &'a RequestLine,
        record: &'a mut ExchangeRecord,
    ) -> RequestHold<'a> {
        RequestHold {
            front,
            host: "h",
            kind: TicketKind::Request,
            line,
            record,
            session: None,
            entered: None,
            since: None,
        }
    }

    fn open() -> Door {
        let address = Address::Sidecar(Arc::new(Server::new(([127, 0, 0, 1], 9).into(), 1)));
        Door::Open(Upstream::new(address, 1, Default::default()))
    }

    fn publish(front: &Front, generation: u64, backend: &Arc<Backend>) {
        let routes = Routes::new(
            vec![Route {
                host: None,
                path: "/".to_owned(),
                backend: Arc::clone(backend),
                sessions: None,
            }],
            None,
        );
        front.publish(RoutingTable {
            generation,
            routes,
            settings: Settings::new(&Config::default()),
        });
    }

    #[tokio::test]
    async fn while_requests_are_refused_only_an_open_door_lets_through() {
        let front = Front::new("a", &Config::default());
        assert_eq!(*front.health(), [Reason::new("starting")]);
        front.refuse(Some(refusal("safe mode")));
        assert_eq!(*front.health(), [Reason::new("safe mode")]);
        let line = line();
        let ask = async || {
            let mut record = ExchangeRecord::default();
            hold(&front, &line, &mut record).enter().await.map(drop)
        };
        let closed = |result: Result<(), NotForwarded>| matches!(&result, Err(NotForwarded::Refused(refusal)) if refusal.reason.word == "safe mode");
        assert!(closed(ask().await), "before there are routes");
        let backend = Backend::new("app", Door::Held("app is starting".into()));
        publish(&front, 1, &backend);
        assert!(closed(ask().await), "and at a held door");
        let mut record = ExchangeRecord::default();
        let mut hold = hold(&front, &line, &mut record);
        assert!(closed(
            hold.connection_refused("app refuses connections").await
        ));
        backend.set(open());
        assert_eq!(ask().await, Ok(()));
        front.refuse(None);
        assert_eq!(*front.health(), [Reason::new("starting")]);
    }

    #[tokio::test]
    async fn a_waiting_request_learns_at_once_that_it_is_refused() {
        let front = Front::new("a", &Config::default());
        let backend = Backend::new("app", Door::Held("app is starting".into()));
        publish(&front, 1, &backend);
        let waiting = |front: &Arc<Front>| {
            let front = Arc::clone(front);
            tokio::spawn(async move {
                let mut record = ExchangeRecord::unread(front.records(), Peer::Unix);
                hold(&front, &line(), &mut record).enter().await.map(drop)
            })
        };
        let first = waiting(&front);
        while front.stats.held.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        front.refuse(Some(refusal("throttled")));
        assert!(
            matches!(first.await.unwrap(), Err(NotForwarded::Refused(refusal)) if refusal.reason.word == "throttled")
        );
        front.refuse(None);
        let second = waiting(&front);
        while front.stats.held.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        backend.set(open());
        assert_eq!(second.await.unwrap(), Ok(()));
    }
}
