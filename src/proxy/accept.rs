//! Threads that accept clients and serve them. Each has a runtime of its own and shares the
//! listeners: measured, this carries a tenth more than one work-stealing runtime.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpStream as StdTcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use super::client_io::{ClientIo, Handle, Phase, Seat, Stream};
use super::headers::Peer;
use super::in_flight::Answering;
use super::listener::ListenSocket;
use super::response_body::ResponseBody;
use super::stats::Open;
use super::{ClientInfo, Front, endpoints, forward, worker};
use crate::os::mutex::lock;

/// Pause after an accept error that is not the client's: no descriptor or memory left. Something
/// must be closed first, and nothing tells when.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// How long a client that was accepted just before a stop may take to send its request.
const NEWCOMER: Duration = Duration::from_secs(1);

/// How long a kept connection may be silent before a process that ends without a successor closes
/// it: longer than most clients' pause between two requests.
const SILENCE: Duration = Duration::from_secs(15);

/// How many sockets may wait for a thread: the watchdog's, one at a time, and those that a
/// predecessor passes on.
const QUEUE: usize = 64;

#[derive(Debug)]
pub struct Workers {
    threads: Mutex<Vec<JoinHandle<()>>>,
    queues: Vec<mpsc::Sender<Passed>>,
    shared: Arc<Shared>,
    sockets: watch::Sender<Arc<Vec<ListenSocket>>>,
}

/// A socket that comes to a thread without its own accepting.
#[derive(Debug)]
enum Passed {
    Probe(StdUnixStream),
    /// A client's, between two requests, from a predecessor.
    Client(OwnedFd),
}

#[derive(Debug)]
struct Shared {
    front: Arc<Front>,
    slots: Arc<Semaphore>,
    /// How many slots there are.
    allowed: Mutex<usize>,
    /// Set when no further client is accepted.
    closing: CancellationToken,
    /// Where clients go that are between two requests; none while they stay.
    elsewhere: Mutex<Option<mpsc::UnboundedSender<OwnedFd>>>,
    /// Set when they go there.
    moving: CancellationToken,
    /// Set when clients are asked to come again over a new connection, each with its next answer.
    fading: CancellationToken,
    /// Set when idle clients are sent away.
    quiet: CancellationToken,
    /// Set after the first of these three: until then it is all that a connection looks at besides
    /// itself.
    stirred: CancellationToken,
    /// Set when the threads must end whatever they do.
    abort: CancellationToken,
    /// Those who accept: none of them may still come with a client when the clients are waited for.
    accepting: TaskTracker,
    /// The clients since the last [`Workers::drain`].
    clients: Mutex<TaskTracker>,
    faded: Mutex<TaskTracker>,
    adopted: AtomicUsize,
}

impl Workers {
    /// Starts `count` threads that serve clients of `sockets`.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made.
    pub fn start(front: &Arc<Front>, sockets: Vec<ListenSocket>, count: usize) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            front: Arc::clone(front),
            slots: Arc::new(Semaphore::new(front.table().settings.connections)),
            allowed: Mutex::new(front.table().settings.connections),
            closing: CancellationToken::new(),
            elsewhere: Mutex::new(None),
            moving: CancellationToken::new(),
            fading: CancellationToken::new(),
            quiet: CancellationToken::new(),
            stirred: CancellationToken::new(),
            abort: CancellationToken::new(),
            accepting: TaskTracker::new(),
            clients: Mutex::default(),
            faded: Mutex::default(),
            adopted: AtomicUsize::new(0),
        });
        let sockets = watch::Sender::new(Arc::new(sockets));
        let mut threads = Vec::new();
        let mut queues = Vec::new();
        for index in 0..count.max(1) {
            let (sender, receiver) = mpsc::channel(QUEUE);
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            let shared = Arc::clone(&shared);
            let sockets = sockets.subscribe();
            let thread = std::thread::Builder::new()
                .name(format!("front-{index}"))
                .spawn(move || {
                    worker::become_worker(index);
                    runtime.block_on(serve(shared, sockets, receiver));
                    // What still runs here was given up.
                    runtime.shutdown_background();
                })?;
            threads.push(thread);
            queues.push(sender);
        }
        Ok(Self {
            threads: Mutex::new(threads),
            queues,
            shared,
            sockets,
        })
    }

    /// How many threads serve.
    pub fn count(&self) -> usize {
        self.queues.len()
    }

    /// Puts one end of a socket pair into each thread's own queue, as if a client had connected;
    /// the other ends come back. A thread that does not take its end is shown by its index.
    ///
    /// # Errors
    /// The index of a thread whose queue is full or gone, or why no pair could be made.
    pub fn probe(&self) -> Result<Vec<StdUnixStream>, String> {
        let mut ends = Vec::new();
        for (index, queue) in self.queues.iter().enumerate() {
            let (ours, theirs) = StdUnixStream::pair().map_err(|error| error.to_string())?;
            for end in [&ours, &theirs] {
                end.set_nonblocking(true)
                    .map_err(|error| error.to_string())?;
            }
            queue
                .try_send(Passed::Probe(theirs))
                .map_err(|_| format!("thread {index} takes no connections"))?;
            ends.push(ours);
        }
        Ok(ends)
    }

    /// From here on, clients of these sockets are accepted. A socket that is no longer among them
    /// is closed after what waits in its queue is accepted.
    pub fn listen(&self, sockets: Vec<ListenSocket>) {
        self.sockets.send_replace(Arc::new(sockets));
    }

    /// From here on this many clients are served at once. Where more are there already, nobody is
    /// sent away: fewer slots come back at the next call.
    pub fn limit_connections(&self, connections: usize) {
        let mut allowed = lock(&self.shared.allowed);
        if connections > *allowed {
            self.shared.slots.add_permits(connections - *allowed);
            *allowed = connections;
        } else {
            *allowed -= self.shared.slots.forget_permits(*allowed - connections);
        }
    }

    /// Accepts what waits already, then nobody any more. `leave_queue` when somebody else holds the
    /// sockets too and will serve those who wait.
    pub fn stop_accepting(&self, leave_queue: bool) {
        if leave_queue {
            self.shared.abort_accepting();
        }
        self.shared.closing.cancel();
    }

    /// Sends every client elsewhere as soon as it is between two requests; it does not notice.
    /// Returns when none is left here.
    pub async fn migrate_to(&self, elsewhere: mpsc::UnboundedSender<OwnedFd>) {
        *lock(&self.shared.elsewhere) = Some(elsewhere);
        self.shared.moving.cancel();
        self.shared.stirred.cancel();
        self.shared.all_gone().await;
    }

    /// Asks clients to come again over a new connection: with their next answer, or by an end after
    /// a long silence. Returns when none of those who are there now is left; newcomers are served
    /// meanwhile.
    pub async fn drain(&self) {
        let before = std::mem::take(&mut *lock(&self.shared.clients));
        *lock(&self.shared.faded) = before.clone();
        self.shared.fading.cancel();
        self.shared.stirred.cancel();
        before.close();
        before.wait().await;
    }

    /// Sends nobody anywhere any more.
    pub fn end_migration(&self) {
        *lock(&self.shared.elsewhere) = None;
    }

    /// Serves a client that a predecessor passes on. Waits while all threads are busy taking
    /// others.
    pub async fn adopt(&self, client: OwnedFd) {
        let next = self.shared.adopted.fetch_add(1, Ordering::Relaxed) % self.queues.len();
        // A thread is gone only when the process ends.
        let _ = self.queues[next].send(Passed::Client(client)).await;
    }

    /// Sends idle clients away and tells the others to close after their answer; returns when no
    /// client is left.
    pub async fn close_connections(&self) {
        self.shared.quiet.cancel();
        self.shared.stirred.cancel();
        self.shared.all_gone().await;
    }

    /// Ends the threads; what is not finished is cut.
    pub fn abort(&self) {
        self.shared.abort.cancel();
        for thread in std::mem::take(&mut *lock(&self.threads)) {
            // A thread that panicked has said so on stderr.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn abort_accepting(&self) {
        self.slots.close();
    }

    async fn all_gone(&self) {
        if self.closing.is_cancelled() {
            self.accepting.close();
            self.accepting.wait().await;
        }
        for clients in [&self.faded, &self.clients] {
            let clients = lock(clients).clone();
            clients.close();
            clients.wait().await;
        }
    }
}

async fn serve(
    shared: Arc<Shared>,
    mut sockets: watch::Receiver<Arc<Vec<ListenSocket>>>,
    mut queue: mpsc::Receiver<Passed>,
) {
    let abort = shared.abort.clone();
    let accepting = async {
        let mut listeners: JoinSet<()> = JoinSet::new();
        let mut current = CancellationToken::new();
        start_listeners(&shared, &mut sockets, &mut listeners, &current);
        loop {
            tokio::select! {
                Some(passed) = queue.recv() => take(&shared, passed),
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

fn take(shared: &Arc<Shared>, passed: Passed) {
    let (stream, client) = match passed {
        Passed::Probe(end) => {
            if let Ok(stream) = UnixStream::from_std(end) {
                let client = ClientInfo {
                    peer: Peer::Unix,
                    unix: true,
                    internal: true,
                };
                tokio::spawn(connection(
                    Arc::clone(shared),
                    Stream::Unix(Arc::new(stream)),
                    client,
                    None,
                ));
            }
            return;
        }
        Passed::Client(fd) => match known(fd) {
            Ok(known) => known,
            Err(error) => return debug!("a client that was passed on is gone: {error}"),
        },
    };
    // Those who come this way have a place already, in the process that they come from.
    begin(
        shared,
        stream,
        client,
        Arc::clone(&shared.slots).try_acquire_owned().ok(),
    );
}

/// Whose socket it is.
fn known(fd: OwnedFd) -> io::Result<(Stream, ClientInfo)> {
    let stream = StdTcpStream::from(fd);
    stream.set_nonblocking(true)?;
    match stream.peer_addr() {
        Ok(addr) => Ok(tcp_client((TcpStream::from_std(stream)?, addr))),
        // No address of the internet: a unix socket.
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Err(error),
        Err(_) => {
            let stream = UnixStream::from_std(OwnedFd::from(stream).into())?;
            Ok((
                Stream::Unix(Arc::new(stream)),
                ClientInfo {
                    peer: Peer::Unix,
                    unix: true,
                    internal: false,
                },
            ))
        }
    }
}

fn begin(
    shared: &Arc<Shared>,
    stream: Stream,
    client: ClientInfo,
    slot: Option<OwnedSemaphorePermit>,
) {
    let stats = &shared.front.stats;
    // Held by the socket itself: a tunnel takes up a place, too.
    let seat = Some((slot, Open::new(stats, |stats| &stats.connections)));
    let tracked =
        lock(&shared.clients).track_future(connection(Arc::clone(shared), stream, client, seat));
    tokio::spawn(tracked);
}

fn start_listeners(
    shared: &Arc<Shared>,
    sockets: &mut watch::Receiver<Arc<Vec<ListenSocket>>>,
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
        listeners.spawn(shared.accepting.track_future(accept_all(
            Arc::clone(shared),
            listener,
            current.clone(),
        )));
    }
}

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Listener {
    fn new(socket: ListenSocket) -> io::Result<Self> {
        socket.tune()?;
        match socket {
            ListenSocket::Tcp(listener) => {
                listener.set_nonblocking(true)?;
                TcpListener::from_std(listener).map(Self::Tcp)
            }
            ListenSocket::Unix(listener, _) => {
                listener.set_nonblocking(true)?;
                UnixListener::from_std(listener).map(Self::Unix)
            }
        }
    }

    async fn accept(&self) -> io::Result<(Stream, ClientInfo)> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(tcp_client),
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                Ok((
                    Stream::Unix(Arc::new(stream)),
                    ClientInfo {
                        peer: Peer::Unix,
                        unix: true,
                        internal: false,
                    },
                ))
            }
        }
    }
}

fn tcp_client((stream, addr): (TcpStream, SocketAddr)) -> (Stream, ClientInfo) {
    (
        Stream::Tcp(Arc::new(stream)),
        ClientInfo {
            peer: Peer::Tcp(addr.ip()),
            unix: false,
            internal: false,
        },
    )
}

async fn accept_all(shared: Arc<Shared>, listener: Listener, current: CancellationToken) {
    let mut complained = false;
    loop {
        // Waits for a place without taking it: several of these loops wait, and those nobody comes
        // to need none.
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
                shared.front.stats.accepted.fetch_add(1, Ordering::Relaxed);
                begin(&shared, stream, client, slot);
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
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

/// What becomes of a connection that does not end by itself.
enum Turn {
    Moved,
    Quiet,
    Silent,
}

async fn connection(shared: Arc<Shared>, stream: Stream, client: ClientInfo, seat: Seat) {
    let front = Arc::clone(&shared.front);
    let settings = front.table().settings.clone();
    let phase = Phase::new();
    let gone = stream.reset();
    let handle = stream.handle();
    let io = TokioIo::new(ClientIo::new(
        stream,
        seat,
        Arc::clone(&phase),
        settings.patience,
    ));
    let service = service_fn(|request: Request<Incoming>| {
        let answering = Answering::begin(&phase, &front.stats, request.body().size_hint().exact());
        let answer = answer(Arc::clone(&front), client, request, answering);
        let (shared, phase) = (&shared, &phase);
        async move {
            let mut answer = answer.await?;
            // Not when more of the client's was read already: it would be lost.
            if shared.fading.is_cancelled()
                && phase.read_whole()
                && answer.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                answer
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    // A client may close its sending side and still read; ours own patience counts, see ClientIo.
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(settings.header_size);
    let connection = builder.serve_connection(io, service).with_upgrades();
    tokio::pin!(connection);
    let at_rest = async {
        shared.moving.cancelled().await;
        // Asked whenever the connection has just done what it could, as both are parts of this
        // task.
        poll_fn(|_| {
            if phase.at_rest() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    };
    let silent = async {
        shared.fading.cancelled().await;
        phase.silent(SILENCE).await;
    };
    let turn = async {
        shared.stirred.cancelled().await;
        tokio::select! {
            biased;
            () = at_rest, if !client.internal => Turn::Moved,
            () = shared.quiet.cancelled() => Turn::Quiet,
            () = silent => Turn::Silent,
        }
    };
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        // hyper does not look at the socket while it waits for an answer, as half-closed clients
        // must be answered.
        () = gone => return,
        turn = turn => match turn {
            Turn::Moved => return move_on(&shared, &handle),
            Turn::Quiet => finish(connection, &phase).await,
            // On a silent connection this closes at once, which is what is wanted.
            Turn::Silent => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        },
    };
    if let Err(error) = ended {
        debug!("a client connection ended: {error}");
    }
}

/// Sends the socket elsewhere. Ours is closed with the connection, which leaves the other one open.
fn move_on(shared: &Shared, handle: &Handle) {
    let elsewhere = lock(&shared.elsewhere);
    if let (Some(elsewhere), Ok(fd)) = (elsewhere.as_ref(), handle.duplicate()) {
        // Nobody is there only when the process ends.
        let _ = elsewhere.send(fd);
    }
}

/// Serves the request that was begun, if any was, and closes.
///
/// hyper's graceful shutdown closes a connection at once that has sent nothing yet; whoever was
/// accepted a moment ago is about to.
async fn finish<I, S>(
    mut connection: Pin<&mut http1::UpgradeableConnection<I, S>>,
    phase: &Phase,
) -> hyper::Result<()>
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
    client: ClientInfo,
    request: Request<Incoming>,
    answering: Answering,
) -> Result<Response<ResponseBody>, Infallible> {
    let table = front.table();
    let response = match endpoints::own(&front, &table, &client, &request) {
        Some(response) => {
            drop(forward::body_of(request, 0));
            response.map(|body| body.answering(answering))
        }
        None => forward::forward(&front, &table, client.peer, request, answering).await,
    };
    if !client.internal {
        front.stats.answered(response.status().as_u16());
    }
    Ok(response)
}
