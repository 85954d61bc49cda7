//! One client connection, from accept to close: serves its requests one after the other, until the
//! client closes it or [`super::drain::WorkerState`] ends it between two requests.

use std::convert::Infallible;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{CONNECTION, HeaderValue};
use http::{Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tracing::debug;

use super::admission::ConnectionSlot;
use super::client_io::ClientIo;
use super::client_socket::ClientSocket;
use super::disposition::{self, Disposition, ServedClient, Standing};
use super::exchange_end::ExchangeEnd;
use super::exchange_record::ExchangeRecord;
use super::forwarded::Peer;
use super::head_limits::HeadLimits;
use super::local_reply::{Form, NotForwarded, closing};
use super::moved_client::MovedClient;
use super::progress::{ConnectionProgress, InFlight};
use super::proxy_protocol::Arrival;
use super::request_head::HeadError;
use super::request_id::X_REQUEST_ID;
use super::response_body::ResponseBody;
use super::seats::FIRST_REQUEST;
use super::sidecar_gauges::{METRICS, used_now};
use super::socket_read::BUFFER_MAX;
use super::worker_context::WorkerContext;
use super::{
    Front, RoutingTable, address_limits, client_left, client_move, control_upgrade, endpoints,
    forward, passage, rest, wave,
};
use crate::config::Dur;

/// How long a client beyond the limit may take to send its request's head.
const CROWDED_HEAD: Dur = Dur::secs(2);

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
        // In a box, as it has a buffer: else each client's task would have room for it.
        return Box::pin(address_limits::turn_away(arrival.stream)).await;
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
    let open = context.room.seats.enter(progress);
    let _held = context.front.wave.holds(wave::CLIENT);
    let socket = Arc::new(ClientSocket::new(stream, Some(slot)));
    let client = ServedClient {
        peer,
        standing: Standing::Within(&open),
        progress,
    };
    while rest::rest(context, &socket, client).await {
        // In a box: a connection at rest is small.
        if Box::pin(serve(context, &socket, client)).await == Served::Ended {
            return;
        }
    }
}

/// Answers one request of a client beyond the limit.
pub async fn serve_crowded(
    context: &WorkerContext,
    socket: &Arc<ClientSocket>,
    peer: Peer,
    progress: &Arc<ConnectionProgress>,
) {
    let client = ServedClient {
        peer,
        standing: Standing::Beyond,
        progress,
    };
    Box::pin(serve(context, socket, client)).await;
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

/// Serves this process itself, which takes up no slot and is not waited for.
pub fn spawn_own(context: &Arc<WorkerContext>, peer: Peer, end: OwnedFd) {
    if let Ok(stream) = TcpStream::from_std(end.into()) {
        let context = Arc::clone(context);
        tokio::spawn(async move {
            let client = ServedClient {
                peer,
                standing: Standing::Exempt,
                progress: &ConnectionProgress::new(),
            };
            let socket = Arc::new(ClientSocket::new(stream, None));
            serve(&context, &socket, client).await;
        });
    }
}

/// How serving a connection came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Served {
    /// It is closed, or it is a tunnel.
    Ended,
    /// It is between two requests, and its client is silent.
    Rests,
}

async fn serve(
    context: &WorkerContext,
    socket: &Arc<ClientSocket>,
    client: ServedClient<'_>,
) -> Served {
    let _held = context.front.wave.holds(wave::BUFFERS);
    let (front, workers) = (&context.front, &context.state);
    let table = front.table();
    let mut limits = table.settings.limits.clone();
    if matches!(client.standing, Standing::Beyond) {
        limits.header_time = limits.header_time.min(CROWDED_HEAD);
    }
    let heads = HeadLimits {
        size: limits.header_size,
        lines: limits.headers,
        keep_case: table.settings.keep_header_case,
    };
    drop(table);
    let half_close = limits.half_close;
    let progress = client.progress;
    let left = client_left::left(&socket.stream, progress, half_close);
    let io = ClientIo::new(
        Arc::clone(socket),
        Arc::clone(progress),
        (Arc::clone(front), client.peer),
        (limits, heads),
    );
    let service = service_fn(|mut request: Request<Incoming>| {
        let body = request.body().size_hint().exact();
        let table = front.table();
        let (refusal, surplus) = progress.take_judgement();
        surplus.append_to(request.headers_mut());
        let record = match refusal {
            None => {
                ExchangeRecord::begin(front.records(), &table.settings, client.peer, &mut request)
            }
            Some(_) => ExchangeRecord::unread(front.records(), client.peer),
        };
        let id = record.id().cloned();
        let in_flight = InFlight::begin(progress, &front.stats, body, record);
        async move {
            let mut response = match refusal {
                Some(error) => refuse(front, error, &request, in_flight),
                // Pinned at once, like each below it: a future that is moved is copied.
                None => pin!(respond(context, &table, client, request, in_flight)).await,
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
        // As most servers write them. To keep the case that came costs a twelfth of a request's time.
        .preserve_header_case(heads.keep_case)
        .title_case_headers(true)
        .header_read_timeout(None)
        .max_header_size(heads.size)
        .max_headers(heads.parsed())
        .max_buf_size(heads.size.max(BUFFER_MAX));
    let connection = builder
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    tokio::pin!(connection);
    let mut state = workers.subscribe();
    let serving = async {
        tokio::select! {
            biased;
            ended = &mut connection => ended,
            disposition = disposition::of(&mut state, client) => match disposition {
                Disposition::Migrate => {
                    client_move::send(&state, &socket.stream, client.peer);
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
        () = rest::due(progress), if matches!(client.standing, Standing::Within(_)) => return Served::Rests,
        // hyper does not look at the socket while it waits for a response.
        () = left => {
            progress.ends(ExchangeEnd::ClientGone);
            return Served::Ended;
        }
    };
    if let Err(error) = ended {
        // The connection and the request under way are dropped after this.
        progress.ends(ExchangeEnd::ClientGone);
        debug!("a client connection ended: {error}");
        if error.is_parse() {
            let status = front.refused_by_hyper(&error);
            ExchangeRecord::refused(front.records(), client.peer, status, ExchangeEnd::Refused);
        }
    }
    Served::Ended
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
    ResponseBody::of_request(response, in_flight, ExchangeEnd::Refused)
}

/// Answers one request: here, or by the upstream.
async fn respond(
    context: &WorkerContext,
    table: &RoutingTable,
    client: ServedClient<'_>,
    request: Request<Incoming>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let (front, peer) = (&context.front, client.peer);
    let control = request.uri().path() == control_upgrade::PATH;
    if control && matches!(client.standing, Standing::Within(_)) {
        let limits = &table.settings.limits;
        let response = control_upgrade::respond(front, limits, peer, request, in_flight);
        front.stats.answered(response.status().as_u16());
        return response;
    }
    let sidecars = match request.uri().path() {
        METRICS if endpoints::access(front, request.headers()).is_some() => {
            Box::pin(used_now(front.sidecars())).await
        }
        _ => Vec::new(),
    };
    // A passage asks what the sidecar answers, even where the gateway answers clients in its place.
    let own = (peer != Peer::Passage)
        .then(|| endpoints::respond(front, table, peer, &request, &sidecars))
        .flatten();
    let own = match client.standing {
        Standing::Within(_) | Standing::Exempt => own,
        Standing::Beyond => {
            let form = Form::of(request.headers());
            let turned_away = || context.room.turn_away(front).reply(form);
            // A WebSocket would stay, so there is room for none here: try again.
            let own = own.filter(|_| !control);
            Some(closing(own.unwrap_or_else(turned_away)))
        }
    };
    let mut response = match own {
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
                | StatusCode::METHOD_NOT_ALLOWED => ExchangeEnd::Refused,
                _ if matches!(client.standing, Standing::Beyond) => ExchangeEnd::Refused,
                _ => ExchangeEnd::Done,
            };
            ResponseBody::of_request(response, in_flight, end)
        }
        None => pin!(forward::forward(front, table, peer, request, in_flight)).await,
    };
    if peer.is_client() {
        front.stats.answered(response.status().as_u16());
    } else if peer == Peer::Passage {
        passage::tell_server(&mut response);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_client_at_rest_is_small() {
        fn size<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
            size_of::<F>()
        }
        // 1,400 bytes; with room for a buffer it was 4,500.
        let size = size(serve_client);
        assert!(size < 2048, "{size} bytes");
    }
}
