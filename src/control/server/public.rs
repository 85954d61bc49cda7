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
use super::places::{Place, Places};
use super::websocket::{self, CloseCause};
use crate::control::access::{AccessTokens, Caller, TokenGrant};
use crate::control::counters::{ControlCounters, ControlRefusal};
use crate::control::protocol::ShutdownReason;
use crate::os::mutex::lock;

/// What the front door and the control server share.
#[derive(Debug)]
pub struct PublicControl {
    /// Until they are set, no client has access.
    pub tokens: OnceLock<AccessTokens>,
    /// What happened at all control connections.
    pub counters: Arc<ControlCounters>,
    places: Places,
    outlook: watch::Sender<Outlook>,
    admitted: mpsc::UnboundedSender<Admitted>,
    /// Until they are served. There are at most as many as places.
    arrivals: Mutex<Option<mpsc::UnboundedReceiver<Admitted>>>,
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
}

/// The same after the handshake.
#[derive(Debug)]
struct Admitted {
    admission: Admission,
    socket: StdTcpStream,
    /// What was read behind the request.
    early: Vec<u8>,
    /// What the connection occupies at the front door.
    _occupies: Box<dyn Any + Send>,
}

impl Default for PublicControl {
    fn default() -> Self {
        let (admitted, arrivals) = mpsc::unbounded_channel();
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

    /// A place for this client; none when all are busy.
    pub fn admit(&self, caller: Caller) -> Option<Admission> {
        let place = self.places.take(caller);
        if place.is_none() {
            self.counters.refused(ControlRefusal::Crowded);
        }
        place.map(|place| Admission { caller, place })
    }

    /// The handshake is done: what the client says from now on, `early` first, is the control protocol.
    pub fn enter(
        &self,
        admission: Admission,
        (socket, early): (StdTcpStream, Vec<u8>),
        occupies: impl Any + Send,
    ) {
        let admitted = Admitted {
            admission,
            socket,
            early,
            _occupies: Box::new(occupies),
        };
        // Nobody serves only when the process ends.
        let _ = self.admitted.send(admitted);
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
                Outlook::Ends(ShutdownReason::Restart) | Outlook::Moved => CloseCause::Restart,
                Outlook::Ends(ShutdownReason::Stop) | Outlook::Open => CloseCause::Stop,
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

/// Waits until another process serves.
async fn moved(outlook: &mut watch::Receiver<Outlook>) {
    let moved = outlook.wait_for(|outlook| *outlook == Outlook::Moved).await;
    // The sender is as old as the connection's own reference to it.
    drop(moved);
}

async fn serve_client(
    public: Arc<PublicControl>,
    service: Service,
    admitted: Admitted,
    stop: CancellationToken,
) {
    let Admission { caller, place } = admitted.admission;
    // One that the runtime cannot watch is disconnected.
    let Ok(socket) = TcpStream::from_std(admitted.socket) else {
        return;
    };
    let counters = Arc::clone(&public.counters);
    counters.websockets.fetch_add(1, Ordering::Relaxed);
    let stream = websocket::accept(socket, admitted.early).await;
    let (mut source, mut sink) = websocket::halves(stream, Arc::clone(&counters));
    let mut outlook = public.outlook.subscribe();
    let ending = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = moved(&mut outlook) => place.idle().await,
        }
    };
    let ended = converse((&mut source, &mut sink), caller, &place, &service, ending).await;
    drop(service);
    if let Some(closing) = public.closing(ended, source.fault()) {
        websocket::close((source, sink), closing).await;
    }
    counters.websockets.fetch_sub(1, Ordering::Relaxed);
}
