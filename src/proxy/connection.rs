//! One client connection, from accept to close: serves its requests one after the other, until the
//! client closes it or [`WorkerState`] ends it between two requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tracing::debug;

use super::admission::{ConnectionLimit, ConnectionSlot};
use super::client_io::ClientIo;
use super::drain::{KeepAlive, Migration, WorkerState};
use super::forwarded::Peer;
use super::progress::{ConnectionProgress, InFlight};
use super::response_body::ResponseBody;
use super::tasks::WorkerTasks;
use super::{Front, client_left, endpoints, forward};
use crate::os::descriptors;

/// How long a client that was accepted just before a stop may take to send its request: TCP sends a
/// lost packet again after 1 s, and after 2 s more (RFC 6298).
const FIRST_REQUEST: Duration = Duration::from_secs(3);

/// How long a kept connection may be silent before a drain closes it: longer than most clients'
/// pause between two requests.
const SILENCE: Duration = Duration::from_secs(15);

/// What the threads of one set of workers and their connections share.
#[derive(Debug)]
pub struct WorkerContext {
    pub front: Arc<Front>,
    pub state: watch::Sender<WorkerState>,
    pub limit: ConnectionLimit,
    pub tasks: WorkerTasks,
}

impl WorkerContext {
    /// For workers that begin to serve.
    pub fn new(front: &Arc<Front>) -> Self {
        Self {
            front: Arc::clone(front),
            state: watch::Sender::default(),
            limit: ConnectionLimit::new(descriptors::clients(
                front.table().settings.limits.connections,
            )),
            tasks: WorkerTasks::default(),
        }
    }
}

/// Serves a client on this thread.
pub fn spawn(
    context: &Arc<WorkerContext>,
    stream: TcpStream,
    peer: Peer,
    permit: Option<OwnedSemaphorePermit>,
) {
    spawn_at(context, stream, peer, permit, ConnectionProgress::new());
}

fn spawn_at(
    context: &Arc<WorkerContext>,
    stream: TcpStream,
    peer: Peer,
    permit: Option<OwnedSemaphorePermit>,
    progress: Arc<ConnectionProgress>,
) {
    let slot = ConnectionSlot::new(permit, &context.front.stats);
    let serving = serve(Arc::clone(context), stream, peer, Some(slot), progress);
    tokio::spawn(context.tasks.client(serving));
}

/// Serves a client that a predecessor hands over. The predecessor had admitted it, so it is served
/// beyond the limit, too.
pub fn spawn_adopted(context: &Arc<WorkerContext>, fd: OwnedFd) {
    match identify(fd) {
        Ok((stream, peer)) => {
            let permit = context.limit.try_take();
            let progress = ConnectionProgress::adopted();
            spawn_at(context, stream, peer, permit, progress);
        }
        Err(error) => debug!("a client that was passed on is gone: {error}"),
    }
}

/// Serves the watchdog, which takes up no slot and is not waited for.
pub fn spawn_probe(context: &Arc<WorkerContext>, end: OwnedFd) {
    if let Ok(stream) = TcpStream::from_std(end.into()) {
        let progress = ConnectionProgress::new();
        let serving = serve(Arc::clone(context), stream, Peer::Watchdog, None, progress);
        tokio::spawn(serving);
    }
}

/// The kind of a socket, and its peer.
fn identify(fd: OwnedFd) -> io::Result<(TcpStream, Peer)> {
    let stream = StdTcpStream::from(fd);
    stream.set_nonblocking(true)?;
    let peer = match stream.peer_addr() {
        Ok(addr) => Peer::Tcp(addr.ip()),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => return Err(error),
        // The peer has no internet address: a unix socket.
        Err(_) => Peer::Unix,
    };
    Ok((TcpStream::from_std(stream)?, peer))
}

/// What ends a connection that neither the client nor an error ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Disposition {
    /// Its socket goes to another process.
    Migrate,
    /// It closes after the request under way, or after the first request of a new client.
    CloseAfterResponse,
    /// It closes at once: it was silent for [`SILENCE`].
    CloseSilent,
}

async fn serve(
    context: Arc<WorkerContext>,
    stream: TcpStream,
    peer: Peer,
    slot: Option<ConnectionSlot>,
    progress: Arc<ConnectionProgress>,
) {
    let (front, workers) = (&context.front, &context.state);
    let limits = front.table().settings.limits.clone();
    let (header_size, half_close) = (limits.header_size, limits.half_close);
    let progress = &progress;
    let stream = Arc::new(stream);
    let socket = Arc::downgrade(&stream);
    let left = client_left::left(Arc::clone(&stream), progress, half_close);
    let io = ClientIo::new(
        stream,
        slot,
        Arc::clone(progress),
        Arc::clone(front),
        limits,
    );
    let service = service_fn(|request: Request<Incoming>| {
        let body = request.body().size_hint().exact();
        let in_flight = InFlight::begin(progress, &front.stats, body);
        async move {
            let mut response = respond(front, peer, request, in_flight).await;
            // Not when a part of the next request was read already: it would be lost.
            if response.status() != StatusCode::SWITCHING_PROTOCOLS
                && workers.borrow().announces_close()
                && progress.read_whole()
            {
                let headers = response.headers_mut();
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    // `left` judges a client that closes its sending side. ClientIo applies the time limits.
    builder
        .half_close(true)
        .header_read_timeout(None)
        .max_header_size(header_size);
    let connection = builder
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut state = workers.subscribe();
    let serving = async {
        tokio::select! {
            biased;
            ended = &mut connection => ended,
            disposition = disposition(&mut state, progress, peer) => match disposition {
                Disposition::Migrate => {
                    migrate(&state, &socket);
                    Ok(())
                }
                Disposition::CloseAfterResponse => {
                    close_after_response(connection, progress).await
                }
                Disposition::CloseSilent => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            },
        }
    };
    let ended = tokio::select! {
        biased;
        ended = serving => ended,
        // hyper does not look at the socket while it waits for a response.
        () = left => {
            front.stats.left.fetch_add(1, Ordering::Relaxed);
            return;
        }
    };
    if let Err(error) = ended {
        debug!("a client connection ended: {error}");
    }
}

/// Waits until the state of the workers ends this connection. Polled after the connection in the
/// same task, so it sees a connection that has just done all it could.
async fn disposition(
    state: &mut watch::Receiver<WorkerState>,
    progress: &ConnectionProgress,
    peer: Peer,
) -> Disposition {
    loop {
        let (migrates, keep_alive) = {
            let state = state.borrow_and_update();
            (state.migrates() && peer != Peer::Watchdog, state.keep_alive)
        };
        let idle = poll_fn(|_| match progress.idle() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        });
        let close = async {
            match keep_alive {
                KeepAlive::Kept => std::future::pending().await,
                KeepAlive::Draining { since } => {
                    progress.silent(since, SILENCE).await;
                    Disposition::CloseSilent
                }
                KeepAlive::Closing => Disposition::CloseAfterResponse,
            }
        };
        tokio::select! {
            biased;
            () = idle, if migrates => return Disposition::Migrate,
            disposition = close => return disposition,
            // In ordinary service a connection waits for nothing else.
            _ = state.changed() => {}
        }
    }
}

/// Sends the socket to the other process. This process closes its own descriptor with the
/// connection, which leaves the other one open.
fn migrate(state: &watch::Receiver<WorkerState>, socket: &Weak<TcpStream>) {
    if let Migration::To(destination) = &state.borrow().migration
        && let Some(socket) = socket.upgrade()
        && let Ok(fd) = socket.as_fd().try_clone_to_owned()
    {
        // Nobody receives only when the process ends.
        let _ = destination.send(fd);
    }
}

/// Serves the request that was begun, if there is one, and closes.
///
/// hyper's graceful shutdown closes a connection at once that has sent nothing yet, but a client
/// that was accepted a moment ago is about to send its request.
async fn close_after_response<I, S>(
    mut connection: Pin<&mut http1::UpgradeableConnection<I, S>>,
    progress: &ConnectionProgress,
) -> hyper::Result<()>
where
    S: hyper::service::HttpService<Incoming, ResBody = ResponseBody>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let early = tokio::select! {
        ended = &mut connection => Some(ended),
        _ = tokio::time::timeout(FIRST_REQUEST, progress.head_complete()) => None,
    };
    match early {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Answers one request: here, or by the upstream.
async fn respond(
    front: &Arc<Front>,
    peer: Peer,
    request: Request<Incoming>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let table = front.table();
    let response = match endpoints::respond(front, &table, peer, &request) {
        Some(response) => {
            drop(forward::body_of(
                front,
                request,
                &table.settings.limits,
                &in_flight,
            ));
            response.map(|body| body.in_flight(in_flight))
        }
        None => forward::forward(front, &table, peer, request, in_flight).await,
    };
    if peer != Peer::Watchdog {
        front.stats.answered(response.status().as_u16());
    }
    response
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::Instant;

    use super::*;
    use crate::proxy::drain::Accepting;

    fn answered() -> Arc<ConnectionProgress> {
        let progress = ConnectionProgress::new();
        progress.received(b"GET / HTTP/1.1\r\n\r\n");
        progress.begin_request(Some(0));
        progress.end_request();
        progress
    }

    async fn within(
        time: Duration,
        state: &watch::Sender<WorkerState>,
        progress: &ConnectionProgress,
        peer: Peer,
    ) -> Option<Disposition> {
        let mut state = state.subscribe();
        let disposition = disposition(&mut state, progress, peer);
        tokio::time::timeout(time, disposition).await.ok()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_stays_until_the_state_of_the_workers_says_otherwise() {
        let state = watch::Sender::default();
        let progress = answered();
        let day = Duration::from_secs(86_400);
        assert_eq!(within(day, &state, &progress, Peer::Unix).await, None);
        state.send_if_modified(|state| state.restrict(Accepting::QueueOnly));
        assert_eq!(within(day, &state, &progress, Peer::Unix).await, None);
        state.send_if_modified(|state| state.drain(Instant::now()));
        assert_eq!(
            within(SILENCE / 2, &state, &progress, Peer::Unix).await,
            None
        );
        state.send_if_modified(|state| state.restrict(Accepting::Stopped));
        let silent = Some(Disposition::CloseSilent);
        let rest = SILENCE / 2 + Duration::from_millis(10);
        assert_eq!(within(rest, &state, &progress, Peer::Unix).await, silent);
        state.send_if_modified(WorkerState::close_connections);
        let closed = Some(Disposition::CloseAfterResponse);
        assert_eq!(within(day, &state, &progress, Peer::Unix).await, closed);
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_client_migrates_a_busy_one_and_the_watchdog_do_not() {
        let state = watch::Sender::new(WorkerState::default());
        let (destination, _sockets) = mpsc::unbounded_channel();
        state.send_if_modified(|state| state.migrate_to(destination));
        let day = Duration::from_secs(86_400);
        let (idle, busy) = (answered(), answered());
        busy.received(b"GET / HTTP/1.1\r\n\r\n");
        let migrated = Some(Disposition::Migrate);
        assert_eq!(within(day, &state, &idle, Peer::Unix).await, migrated);
        busy.begin_request(Some(0));
        assert_eq!(within(day, &state, &busy, Peer::Unix).await, None);
        assert_eq!(within(day, &state, &idle, Peer::Watchdog).await, None);
        state.send_if_modified(WorkerState::close_connections);
        let closed = Some(Disposition::CloseAfterResponse);
        assert_eq!(within(day, &state, &idle, Peer::Unix).await, migrated);
        assert_eq!(within(day, &state, &busy, Peer::Unix).await, closed);
        assert_eq!(within(day, &state, &idle, Peer::Watchdog).await, closed);
    }
}
