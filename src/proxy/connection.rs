//! One client connection, from accept to close: serves its requests one after the other, until the
//! client closes it or [`WorkerState`] ends it between two requests.

use std::convert::Infallible;
use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
use super::drain::{KeepAlive, WorkerState};
use super::forwarded::Peer;
use super::local_reply::{Form, NotForwarded, closing};
use super::moved_client::MovedClient;
use super::progress::{ConnectionProgress, InFlight};
use super::proxy_protocol::Arrival;
use super::request_head::HeadError;
use super::request_id::X_REQUEST_ID;
use super::request_record::{RequestEnd, RequestRecord};
use super::response_body::ResponseBody;
use super::room::{FIRST_REQUEST, Room};
use super::tasks::WorkerTasks;
use super::{
    Front, RoutingTable, address_limits, client_left, client_move, crowd, endpoints, forward,
};
use crate::config::Dur;
use crate::os::descriptors;

/// How long a kept connection may be silent before a drain closes it: longer than most clients'
/// pause between two requests.
const SILENCE: Duration = Duration::from_secs(15);

/// How long a client beyond the limit may take to send its request's head.
const CROWDED_HEAD: Dur = Dur::secs(2);

/// What the threads of one set of workers and their connections share.
#[derive(Debug)]
pub struct WorkerContext {
    pub front: Arc<Front>,
    pub state: watch::Sender<WorkerState>,
    pub limit: ConnectionLimit,
    pub room: Arc<Room>,
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
            room: Arc::default(),
            tasks: WorkerTasks::default(),
        }
    }
}

/// Serves a client on this thread.
pub fn spawn(context: &Arc<WorkerContext>, arrival: Arrival, permit: OwnedSemaphorePermit) {
    let serving = serve_client(Arc::clone(context), arrival, permit);
    tokio::spawn(context.tasks.client(serving));
}

/// Serves a new client within the limit.
pub async fn serve_client(
    context: Arc<WorkerContext>,
    arrival: Arrival,
    permit: OwnedSemaphorePermit,
) {
    let mut slot = ConnectionSlot::new(Some(permit), &context.front.stats);
    let Some(peer) = arrival.client(&context.front, &context.state).await else {
        return;
    };
    if !slot.enter(&context.front, peer) {
        return address_limits::turn_away(arrival.stream).await;
    }
    let progress = ConnectionProgress::new();
    serve_open(&context, arrival.stream, peer, slot, &progress).await;
}

async fn serve_open(
    context: &WorkerContext,
    stream: TcpStream,
    peer: Peer,
    slot: ConnectionSlot,
    progress: &Arc<ConnectionProgress>,
) {
    let _open = context.room.enter(progress);
    let client = Client {
        peer,
        standing: Standing::Within,
        progress,
    };
    serve(context, &Arc::new(stream), client, Some(slot)).await;
}

/// Answers one request of a client beyond the limit.
pub async fn serve_crowded(
    context: &WorkerContext,
    stream: &Arc<TcpStream>,
    peer: Peer,
    progress: &Arc<ConnectionProgress>,
) {
    let slot = ConnectionSlot::new(None, &context.front.stats);
    let client = Client {
        peer,
        standing: Standing::Beyond,
        progress,
    };
    serve(context, stream, client, Some(slot)).await;
}

/// Serves a client that a predecessor hands over. The predecessor had admitted it, so it is served
/// beyond the limit, too.
pub fn spawn_adopted(context: &Arc<WorkerContext>, client: MovedClient) {
    match client_move::identify(client) {
        Ok((stream, peer)) => {
            let permit = context.limit.try_take();
            let mut slot = ConnectionSlot::new(permit, &context.front.stats);
            slot.admitted(&context.front, peer);
            let (context, tasks) = (Arc::clone(context), &context.tasks);
            tokio::spawn(tasks.client(async move {
                let progress = ConnectionProgress::adopted();
                serve_open(&context, stream, peer, slot, &progress).await;
            }));
        }
        Err(error) => debug!("a client that was passed on is gone: {error}"),
    }
}

/// Serves the watchdog, which takes up no slot and is not waited for.
pub fn spawn_probe(context: &Arc<WorkerContext>, end: OwnedFd) {
    if let Ok(stream) = TcpStream::from_std(end.into()) {
        let context = Arc::clone(context);
        tokio::spawn(async move {
            let client = Client {
                peer: Peer::Watchdog,
                standing: Standing::Within,
                progress: &ConnectionProgress::new(),
            };
            serve(&context, &Arc::new(stream), client, None).await;
        });
    }
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
    /// It closes at once: it is idle, and a new client needs its place.
    GiveWay,
}

/// Whether a client is one of those that the limit allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Within,
    /// It gets one answer of the gateway's own.
    Beyond,
}

/// Who a connection is served for.
#[derive(Clone, Copy, Debug)]
struct Client<'a> {
    peer: Peer,
    standing: Standing,
    progress: &'a Arc<ConnectionProgress>,
}

async fn serve(
    context: &WorkerContext,
    stream: &Arc<TcpStream>,
    client: Client<'_>,
    slot: Option<ConnectionSlot>,
) {
    let (front, workers) = (&context.front, &context.state);
    let mut limits = front.table().settings.limits.clone();
    if client.standing == Standing::Beyond {
        limits.header_time = limits.header_time.min(CROWDED_HEAD);
    }
    let (header_size, headers) = (limits.header_size, limits.headers);
    let half_close = limits.half_close;
    let progress = client.progress;
    let left = client_left::left(Arc::clone(stream), progress, half_close);
    let io = ClientIo::new(
        Arc::clone(stream),
        slot,
        Arc::clone(progress),
        (Arc::clone(front), client.peer),
        limits,
    );
    let service = service_fn(|mut request: Request<Incoming>| {
        let body = request.body().size_hint().exact();
        let table = front.table();
        let refusal = progress.take_refusal();
        let record = match refusal {
            None => RequestRecord::begin(front, &table, client.peer, &mut request),
            Some(_) => RequestRecord::unread(front, client.peer),
        };
        let id = record.id().cloned();
        let in_flight = InFlight::begin(progress, &front.stats, body, record);
        async move {
            let mut response = match refusal {
                Some(error) => refuse(front, error, &request, in_flight),
                None => respond(context, &table, client, request, in_flight).await,
            };
            if let Some(id) = id {
                // A server that answers with an id of its own is not contradicted.
                response.headers_mut().entry(X_REQUEST_ID).or_insert(id);
            }
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
        .max_header_size(header_size)
        .max_headers(headers);
    let connection = builder
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut state = workers.subscribe();
    let serving = async {
        tokio::select! {
            biased;
            ended = &mut connection => ended,
            disposition = disposition(&mut state, client) => match disposition {
                Disposition::Migrate => {
                    client_move::send(&state, stream, client.peer);
                    Ok(())
                }
                Disposition::GiveWay => {
                    front.stats.displaced.fetch_add(1, Ordering::Relaxed);
                    connection.as_mut().graceful_shutdown();
                    connection.await
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
        () = left => return progress.ends(RequestEnd::ClientGone),
    };
    if let Err(error) = ended {
        // The connection and the request under way are dropped after this.
        progress.ends(RequestEnd::ClientGone);
        debug!("a client connection ended: {error}");
        if error.is_parse() {
            let status = front.refused_by_hyper(&error);
            RequestRecord::refused(front, client.peer, status, RequestEnd::Refused);
        }
    }
}

/// Waits until the state of the workers ends this connection. Polled after the connection in the
/// same task, so it sees a connection that has just done all it could.
async fn disposition(state: &mut watch::Receiver<WorkerState>, client: Client<'_>) -> Disposition {
    let progress = client.progress;
    let moves = client.peer != Peer::Watchdog && client.standing == Standing::Within;
    loop {
        let (migrates, keep_alive) = {
            let state = state.borrow_and_update();
            (state.migrates() && moves, state.keep_alive)
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
            () = poll_fn(|cx| progress.poll_displaced(cx)) => return Disposition::GiveWay,
            _ = state.changed() => {}
        }
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

/// Answers a request that was refused by its head; `request` stands in for it.
fn refuse(
    front: &Front,
    error: HeadError,
    request: &Request<Incoming>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let form = Form::of(request.headers());
    let response = front.refuse_request(&NotForwarded::Head(error), form, None);
    front.stats.answered(response.status().as_u16());
    ResponseBody::of_request(response, in_flight, RequestEnd::Refused)
}

/// Answers one request: here, or by the upstream.
async fn respond(
    context: &WorkerContext,
    table: &RoutingTable,
    client: Client<'_>,
    request: Request<Incoming>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let (front, peer) = (&context.front, client.peer);
    let own = endpoints::respond(front, table, peer, &request);
    let own = match client.standing {
        Standing::Within => own,
        Standing::Beyond => {
            let form = Form::of(request.headers());
            let turned_away = || crowd::turn_away(context).reply(form);
            Some(closing(own.unwrap_or_else(turned_away)))
        }
    };
    let response = match own {
        Some(response) => {
            drop(forward::body_of(
                front,
                request,
                &table.settings.limits,
                &in_flight,
            ));
            let end = match response.status() {
                StatusCode::UNAUTHORIZED
                | StatusCode::NOT_FOUND
                | StatusCode::METHOD_NOT_ALLOWED => RequestEnd::Refused,
                _ if client.standing == Standing::Beyond => RequestEnd::Refused,
                _ => RequestEnd::Done,
            };
            ResponseBody::of_request(response, in_flight, end)
        }
        None => forward::forward(front, table, peer, request, in_flight).await,
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
    use crate::proxy::request_head::HeadLimits;

    fn receive(progress: &ConnectionProgress) {
        let limits = HeadLimits {
            size: 1024,
            lines: 10,
        };
        progress.received(b"GET / HTTP/1.1\r\n\r\n", limits);
    }

    fn answered() -> Arc<ConnectionProgress> {
        let progress = ConnectionProgress::new();
        receive(&progress);
        progress.begin_request(Some(0));
        progress.end_request();
        progress
    }

    async fn within(
        time: Duration,
        state: &watch::Sender<WorkerState>,
        progress: &Arc<ConnectionProgress>,
        peer: Peer,
    ) -> Option<Disposition> {
        let mut state = state.subscribe();
        let client = Client {
            peer,
            standing: Standing::Within,
            progress,
        };
        let disposition = disposition(&mut state, client);
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
        receive(&busy);
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
