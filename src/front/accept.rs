//! Threads that accept clients and serve them. Each has a runtime of its own and shares the listeners: measured, this
//! carries a tenth more than one work-stealing runtime.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::answering::Answering;
use super::client_io::{ClientIo, Phase, Seat, Stream};
use super::headers::Peer;
use super::listener::Socket;
use super::response_body::ResponseBody;
use super::stats::Open;
use super::{Client, Front, endpoints, proxy, worker};

/// Pause after an accept error that is not the client's: no descriptor or memory left. Something must be closed first,
/// and nothing tells when.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long a client that was accepted just before a stop may take to send its request.
const NEWCOMER: Duration = Duration::from_secs(1);

/// How long a kept connection may be silent before a process that finishes its work closes it: longer than a client's
/// pause between two requests, and it will find the successor when it comes again.
const SILENCE: Duration = Duration::from_secs(15);

/// How many probes of the watchdog may wait; it sends one at a time.
const PROBES: usize = 4;

/// The serving threads.
#[derive(Debug)]
pub struct Workers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    probes: Vec<mpsc::Sender<StdUnixStream>>,
    shared: Arc<Shared>,
    sockets: watch::Sender<Arc<Vec<Socket>>>,
}

#[derive(Debug)]
struct Shared {
    front: Arc<Front>,
    slots: Arc<Semaphore>,
    /// How many slots there are.
    allowed: Mutex<usize>,
    /// Set when no further client is accepted.
    closing: CancellationToken,
    /// Set when clients are asked to come again over a new connection, each when it suits.
    fading: CancellationToken,
    /// Set when idle clients are sent away.
    quiet: CancellationToken,
    /// Set when the threads must end whatever they do.
    abort: CancellationToken,
    clients: TaskTracker,
}

impl Workers {
    /// Starts `count` threads that serve clients of `sockets`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(front: &Arc<Front>, sockets: Vec<Socket>, count: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            front: Arc::clone(front),
            slots: Arc::new(Semaphore::new(front.table().settings.connections)),
            allowed: Mutex::new(front.table().settings.connections),
            closing: CancellationToken::new(),
            fading: CancellationToken::new(),
            quiet: CancellationToken::new(),
            abort: CancellationToken::new(),
            clients: TaskTracker::new(),
        });
        let sockets = watch::Sender::new(Arc::new(sockets));
        let mut threads = Vec::new();
        let mut probes = Vec::new();
        for index in 0..count.max(1) {
            let (sender, receiver) = mpsc::channel(PROBES);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let shared = Arc::clone(&shared);
            let sockets = sockets.subscribe();
            let thread = std::thread::Builder::new().name(format!("front-{index}")).spawn(move || {
                worker::become_worker(index);
                runtime.block_on(serve(shared, sockets, receiver));
                // What still runs here was given up.
                runtime.shutdown_background();
            })?;
            threads.push(thread);
            probes.push(sender);
        }
        Ok(Self { threads: Mutex::new(threads), probes, shared, sockets })
    }

    /// How many threads serve.
    pub fn count(&self) -> usize {
        self.probes.len()
    }

    /// Puts one end of a socket pair into each thread's own queue, as if a client had connected; the other ends come back.
    /// A thread that does not take its end is shown by its index.
    ///
    /// # Errors
    /// The index of a thread whose queue is full or gone, or why no pair could be made.
    pub fn probe(&self) -> Result<Vec<StdUnixStream>, String> {
        let mut ends = Vec::new();
        for (index, queue) in self.probes.iter().enumerate() {
            let (ours, theirs) = StdUnixStream::pair().map_err(|error| error.to_string())?;
            for end in [&ours, &theirs] {
                end.set_nonblocking(true).map_err(|error| error.to_string())?;
            }
            queue.try_send(theirs).map_err(|_| format!("thread {index} takes no connections"))?;
            ends.push(ours);
        }
        Ok(ends)
    }

    /// From here on, clients of these sockets are accepted. A socket that is no longer among them is closed after what
    /// waits in its queue is accepted.
    pub fn listen(&self, sockets: Vec<Socket>) {
        self.sockets.send_replace(Arc::new(sockets));
    }

    /// From here on this many clients are served at once. Where more are there already, nobody is sent away: fewer slots
    /// come back at the next call.
    pub fn allow(&self, connections: usize) {
        let mut allowed = self.shared.allowed.lock().unwrap_or_else(PoisonError::into_inner);
        if connections > *allowed {
            self.shared.slots.add_permits(connections - *allowed);
            *allowed = connections;
        } else {
            *allowed -= self.shared.slots.forget_permits(*allowed - connections);
        }
    }

    /// Accepts what waits already, then nobody any more. `leave_queue` when somebody else holds the sockets too and will
    /// serve those who wait.
    pub fn close(&self, leave_queue: bool) {
        if leave_queue {
            self.shared.abort_accepting();
        }
        self.shared.closing.cancel();
    }

    /// Lets kept connections end when it suits their clients: after the next answer, or after a long silence. Returns when no
    /// client is left.
    pub async fn fade(&self) {
        self.shared.fading.cancel();
        self.shared.clients.close();
        self.shared.clients.wait().await;
    }

    /// Sends idle clients away and tells the others to close after their answer; returns when no client is left.
    pub async fn quiet(&self) {
        self.shared.quiet.cancel();
        self.shared.clients.close();
        self.shared.clients.wait().await;
    }

    /// Ends the threads; what is not finished is cut.
    pub fn end(&self) {
        self.shared.abort.cancel();
        for thread in std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner)) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn abort_accepting(&self) {
        self.slots.close();
    }
}

async fn serve(shared: Arc<Shared>, mut sockets: watch::Receiver<Arc<Vec<Socket>>>, mut probes: mpsc::Receiver<StdUnixStream>) {
    let abort = shared.abort.clone();
    let accepting = async {
        let mut listeners: JoinSet<()> = JoinSet::new();
        let mut current = CancellationToken::new();
        start_listeners(&shared, &mut sockets, &mut listeners, &current);
        loop {
            tokio::select! {
                Some(end) = probes.recv() => {
                    if let Ok(stream) = UnixStream::from_std(end) {
                        let client = Client { peer: Peer::Unix, unix: true, internal: true };
                        tokio::spawn(connection(Arc::clone(&shared), Stream::Unix(Arc::new(stream)), client, None));
                    }
                }
                Ok(()) = sockets.changed() => {
                    std::mem::take(&mut current).cancel();
                    start_listeners(&shared, &mut sockets, &mut listeners, &current);
                }
                Some(_) = listeners.join_next() => {}
                else => break,
            }
        }
    };
    tokio::select! {
        () = accepting => abort.cancelled().await,
        () = abort.cancelled() => {}
    }
}

fn start_listeners(
    shared: &Arc<Shared>,
    sockets: &mut watch::Receiver<Arc<Vec<Socket>>>,
    listeners: &mut JoinSet<()>,
    current: &CancellationToken,
) {
    for socket in sockets.borrow_and_update().iter() {
        let listener = match socket.try_clone().and_then(Listener::new) {
            Ok(listener) => listener,
            Err(error) => {
                warn!("[gateway] cannot accept on {:?}: {error}", socket.local());
                continue;
            }
        };
        listeners.spawn(accept_all(Arc::clone(shared), listener, current.clone()));
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: Socket) -> io::Result<Self> {
        socket.tune()?;
        match socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            Socket::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, Client)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(tcp_client),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((Stream::Unix(Arc::new(stream)), Client { peer: Peer::Unix, unix: true, internal: false }))
            }
        }
    }
}

fn tcp_client((stream, addr): (TcpStream, SocketAddr)) -> (Stream, Client) {
    (Stream::Tcp(Arc::new(stream)), Client { peer: Peer::Tcp(addr.ip()), unix: false, internal: false })
}

async fn accept_all(shared: Arc<Shared>, listener: Listener, current: CancellationToken) {
    let mut complained = false;
    loop {
        // Waits for a place without taking it: several of these loops wait, and those nobody comes to need none.
        if shared.slots.acquire().await.is_err() {
            return;
        }
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            // Only after the queue was found empty: whoever waits in it is served.
            () = shared.closing.cancelled() => return,
            () = current.cancelled() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                complained = false;
                // None only where the last was taken just now and a stop began meanwhile.
                let slot = Arc::clone(&shared.slots).acquire_owned().await.ok();
                let stats = &shared.front.stats;
                stats.accepted.fetch_add(1, Ordering::Relaxed);
                // Held by the socket itself: a tunnel takes up a place, too.
                let seat = Some((slot, Open::new(stats, |stats| &stats.connections)));
                tokio::spawn(shared.clients.track_future(connection(Arc::clone(&shared), stream, client, seat)));
            }
            Err(error) if client_is_gone(&error) => {}
            Err(error) => {
                if !std::mem::replace(&mut complained, true) {
                    warn!("[gateway] cannot accept clients for the moment, they wait: {error}");
                }
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn client_is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn connection(shared: Arc<Shared>, stream: Stream, client: Client, seat: Seat) {
    let front = Arc::clone(&shared.front);
    let settings = front.table().settings.clone();
    let phase = Phase::new();
    let gone = stream.reset();
    let waiting = stream.waiting();
    let io = TokioIo::new(ClientIo::new(stream, seat, Arc::clone(&phase), settings.patience));
    let service = service_fn(|request: Request<Incoming>| {
        let answering = Answering::begin(&phase, &front.stats);
        let body = request.body().size_hint().exact();
        let last = shared.fading.is_cancelled() && !phase.more_follows(body) && !waiting();
        let answer = answer(Arc::clone(&front), client, request, answering);
        async move {
            let mut answer = answer.await?;
            if last && answer.status() != StatusCode::SWITCHING_PROTOCOLS {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    // A client may close its sending side and still read; ours own patience counts, see ClientIo.
    builder.half_close(true).header_read_timeout(None).max_header_size(settings.header_size);
    let connection = builder.serve_connection(io, service).with_upgrades();
    tokio::pin!(connection);
    let silent = async {
        shared.fading.cancelled().await;
        phase.silent(SILENCE).await;
    };
    let ended = tokio::select! {
        ended = &mut connection => ended,
        // hyper does not look at the socket while it waits for an answer, as half-closed clients must be answered.
        () = gone => return,
        () = shared.quiet.cancelled() => finish(connection, &phase).await,
        // On a silent connection this closes at once, which is what is wanted.
        () = silent => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!("a client connection ended: {error}");
    }
}

/// Serves the request that was begun, if any was, and closes.
///
/// hyper's graceful shutdown closes a connection at once that has sent nothing yet; whoever was accepted a moment ago is
/// about to.
async fn finish<I, S>(mut connection: Pin<&mut http1::UpgradeableConnection<I, S>>, phase: &Phase) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let early = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = tokio::time::timeout(NEWCOMER, phase.head_complete()) => None,
    };
    match early {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn answer(
    front: Arc<Front>,
    client: Client,
    request: Request<Incoming>,
    answering: Answering,
) -> Result<Response<ResponseBody>, Infallible> {
    let table = front.table();
    let response = match endpoints::own(&front, &table, &client, &request) {
        Some(response) => {
            drop(proxy::body_of(request, 0));
            response.map(|body| body.answering(answering))
        }
        None => proxy::forward(&front, &table, client.peer, request, answering).await,
    };
    if !client.internal {
        front.stats.answered(response.status().as_u16());
    }
    Ok(response)
}
