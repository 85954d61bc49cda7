//! The control protocol on the listeners of the front door, over WebSocket, for clients with a token.

use std::any::Any;
use std::net::TcpStream as StdTcpStream;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};

use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::connection::{ReadingEnd, Service, converse};
use super::places::{Place, Places, REMOTE_MAX};
use super::websocket::{self, CloseCause};
use crate::control::access::{AccessTokens, Caller, TokenGrant};
use crate::control::counters::{ControlCounters, ControlRefusal};
use crate::control::protocol::ShutdownReason;
use crate::os::mutex::lock;

/// Clients that may be admitted and not served yet: a place that was given away says nothing of a socket
/// that nobody has looked at. Such a client waits for no other one, so few do at once.
const ARRIVALS_MAX: usize = REMOTE_MAX;

/// What the front door and the control server share.
#[derive(Debug)]
pub struct PublicControl {
    /// Until they are set, no client has access.
    pub tokens: OnceLock<AccessTokens>,
    /// What happened at all control connections.
    pub counters: Arc<ControlCounters>,
    places: Places,
    outlook: watch::Sender<Outlook>,
    admitted: mpsc::Sender<Admitted>,
    /// Until they are served.
    arrivals: Mutex<Option<mpsc::Receiver<Admitted>>>,
}

/// What becomes of the connections to this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// They stay.
    Open,
    /// They end with the process.
    Ends(ShutdownReason),
    /// Another process serves: they end when nothing is under way on them.
    Moved,
}

/// A client whose request for a WebSocket is granted: it has a place.
#[derive(Debug)]
pub struct Admission {
    caller: Caller,
    place: Place,
    /// Its place among those that are not served yet.
    entry: mpsc::OwnedPermit<Admitted>,
}

/// The same after the handshake.
#[derive(Debug)]
struct Admitted {
    caller: Caller,
    place: Place,
    socket: StdTcpStream,
    /// What was read behind the request.
    early: Vec<u8>,
    /// What the connection occupies at the front door.
    _occupies: Box<dyn Any + Send>,
}

impl Default for PublicControl {
    fn default() -> Self {
        let (admitted, arrivals) = mpsc::channel(ARRIVALS_MAX);
        Self {
            tokens: OnceLock::new(),
            counters: Arc::default(),
            places: Places::default(),
            outlook: watch::Sender::new(Outlook::Open),
            admitted,
            arrivals: Mutex::new(Some(arrivals)),
        }
    }
}

impl PublicControl {
    /// What this token allows, if it is one.
    pub fn access(&self, token: &str) -> Option<TokenGrant> {
        self.tokens.get()?.access(token)
    }

    /// A place for this client; none when all are busy, or too many wait to be served.
    pub fn admit(&self, caller: Caller) -> Option<Admission> {
        let admission = || {
            // First, as a client that has no entry is to take no place from another.
            let entry = self.admitted.clone().try_reserve_owned().ok()?;
            let place = self.places.take(caller)?;
            Some(Admission {
                caller,
                place,
                entry,
            })
        };
        let admission = admission();
        if admission.is_none() {
            self.counters.refused(ControlRefusal::Crowded);
        }
        admission
    }

    /// The handshake is done: what the client says from now on, `early` first, is the control protocol.
    pub fn enter(
        &self,
        admission: Admission,
        (socket, early): (StdTcpStream, Vec<u8>),
        occupies: impl Any + Send,
    ) {
        let Admission {
            caller,
            place,
            entry,
        } = admission;
        // Nobody serves only when the process ends.
        entry.send(Admitted {
            caller,
            place,
            socket,
            early,
            _occupies: Box::new(occupies),
        });
    }

    /// Says what becomes of the connections.
    pub fn announce(&self, outlook: Outlook) {
        self.outlook.send_if_modified(|known| {
            let news = *known != outlook;
            *known = outlook;
            news
        });
    }

    /// How a connection is closed that has ended so.
    fn closing(&self, end: ReadingEnd, fault: Option<CloseCause>) -> Option<CloseCause> {
        match end {
            ReadingEnd::Slow => None,
            ReadingEnd::GivenAway => Some(CloseCause::GivenAway),
            ReadingEnd::Client => fault,
            ReadingEnd::Server => Some(match *self.outlook.borrow() {
                Outlook::Ends(ShutdownReason::Stop) => CloseCause::Stop,
                // Whoever has not heard that the gateway stops is to connect again.
                Outlook::Ends(ShutdownReason::Restart) | Outlook::Moved | Outlook::Open => {
                    CloseCause::Restart
                }
            }),
        }
    }
}

/// Serves those who are admitted until `stop`, then returns when every request has its answer and every
/// connection is closed.
pub async fn serve_public(
    public: Arc<PublicControl>,
    calls: mpsc::Sender<super::Call>,
    stop: CancellationToken,
) {
    let Some(mut arrivals) = lock(&public.arrivals).take() else {
        return;
    };
    let service = Service {
        calls,
        counters: Arc::clone(&public.counters),
    };
    let connections = TaskTracker::new();
    let spawn = |admitted| {
        let (public, service, stop) = (Arc::clone(&public), service.clone(), stop.clone());
        connections.spawn(serve_client(public, service, admitted, stop));
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            Some(admitted) = arrivals.recv() => spawn(admitted),
            else => break,
        }
    }
    // They are told why their connections end.
    arrivals.close();
    while let Ok(admitted) = arrivals.try_recv() {
        spawn(admitted);
    }
    drop(service);
    connections.close();
    connections.wait().await;
}

/// Waits until another process serves, and nothing is under way on this connection.
async fn left_behind(mut outlook: watch::Receiver<Outlook>, place: &Place) {
    loop {
        let moved = outlook.wait_for(|outlook| *outlook == Outlook::Moved).await;
        // The sender is as old as the connection's own reference to it.
        drop(moved);
        place.idle().await;
        // This process may serve again by now.
        if *outlook.borrow() == Outlook::Moved {
            return;
        }
    }
}

async fn serve_client(
    public: Arc<PublicControl>,
    service: Service,
    admitted: Admitted,
    stop: CancellationToken,
) {
    let (caller, place) = (admitted.caller, admitted.place);
    // One that the runtime cannot watch is disconnected.
    let Ok(socket) = TcpStream::from_std(admitted.socket) else {
        return;
    };
    let counters = Arc::clone(&public.counters);
    counters.websockets.fetch_add(1, Ordering::Relaxed);
    let stream = websocket::accept(socket, admitted.early).await;
    let (mut source, mut sink) = websocket::halves(stream, Arc::clone(&counters));
    let outlook = public.outlook.subscribe();
    let ending = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = left_behind(outlook, &place) => {}
        }
    };
    let ended = converse((&mut source, &mut sink), caller, &place, &service, ending).await;
    drop(service);
    if let Some(closing) = public.closing(ended, source.fault()) {
        websocket::close((source, sink), closing).await;
    }
    counters.websockets.fetch_sub(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::access::Authority;

    const READER: Caller = Caller::Remote {
        address: None,
        authority: Authority::Reader,
    };

    #[tokio::test]
    async fn a_connection_that_ends_without_a_stop_is_to_come_again() {
        let public = PublicControl::default();
        let closing = || public.closing(ReadingEnd::Server, None);
        assert_eq!(closing(), Some(CloseCause::Restart));
        for (outlook, cause) in [
            (Outlook::Ends(ShutdownReason::Stop), CloseCause::Stop),
            (Outlook::Ends(ShutdownReason::Restart), CloseCause::Restart),
            (Outlook::Moved, CloseCause::Restart),
            (Outlook::Open, CloseCause::Restart),
        ] {
            public.announce(outlook);
            assert_eq!(closing(), Some(cause), "{outlook:?}");
        }
    }

    #[tokio::test]
    async fn no_more_sockets_wait_to_be_served_than_there_is_room_for() {
        let public = PublicControl::default();
        let mut others = Vec::new();
        for _ in 0..ARRIVALS_MAX {
            let (socket, other) = std::os::unix::net::UnixStream::pair().unwrap();
            others.push(other);
            let socket = StdTcpStream::from(std::os::fd::OwnedFd::from(socket));
            let admission = public.admit(READER).unwrap();
            public.enter(admission, (socket, Vec::new()), ());
        }
        assert!(public.admit(READER).is_none(), "the queue is full");
        let mut arrivals = lock(&public.arrivals).take().unwrap();
        assert!(arrivals.recv().await.is_some());
        assert!(public.admit(READER).is_some());
    }

    #[tokio::test]
    async fn who_waits_for_an_idle_connection_keeps_no_request_from_it() {
        let places = Places::default();
        let place = places.take(READER).unwrap();
        let outlook = watch::Sender::new(Outlook::Moved);
        let mut ends = Box::pin(left_behind(outlook.subscribe(), &place));
        let held = place.begin_request().await;
        assert!(futures_util::poll!(&mut ends).is_pending());
        let request = place.begin_request();
        let another = futures_util::FutureExt::now_or_never(request).unwrap();
        drop(held);
        assert!(futures_util::poll!(&mut ends).is_pending());
        // It serves again, and then another process does.
        outlook.send_replace(Outlook::Open);
        drop(another);
        assert!(futures_util::poll!(&mut ends).is_pending());
        outlook.send_replace(Outlook::Moved);
        assert!(futures_util::poll!(&mut ends).is_ready());
    }
}
