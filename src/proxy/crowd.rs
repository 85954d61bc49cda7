//! Clients beyond the limit of connections: an idle one gives way to the new one, or the new one is
//! turned away. The gateway's own pages, such as /healthz, are answered in any case.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;

use super::admission::ConnectionSlot;
use super::client_socket::ClientSocket;
use super::connection;
use super::exchange_end::ExchangeEnd;
use super::exchange_record::ExchangeRecord;
use super::forwarded::Peer;
use super::progress::ConnectionProgress;
use super::proxy_protocol::Arrival;
use super::room::CrowdPlace;
use super::worker_context::WorkerContext;

/// How long a client that gives way may take for it: a turn of its thread, which may be busy.
const GIVE_WAY: Duration = Duration::from_secs(1);

/// What is sent to a client that has not sent its request before its place is another's.
const TURNED_AWAY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 2\r\nConnection: close\r\n\r\n";

/// Serves a client for which no connection is left, if another one gives way, or turns it away.
pub fn spawn(context: &Arc<WorkerContext>, arrival: Arrival) {
    let place = context.room.join_crowd();
    let serving = admit(Arc::clone(context), arrival, place);
    tokio::spawn(context.tasks.client(serving));
}

async fn admit(context: Arc<WorkerContext>, arrival: Arrival, mut place: CrowdPlace) {
    if context.room.seats.make_room() {
        let permit = tokio::select! {
            permit = tokio::time::timeout(GIVE_WAY, context.limit.take()) => permit.ok().flatten(),
            () = place.lost() => None,
        };
        if let Some(permit) = permit {
            drop(place);
            return connection::serve_client(context, arrival, permit).await;
        }
    }
    let peer = tokio::select! {
        biased;
        client = arrival.client(&context.front, &context.state) => match client {
            Some(peer) => peer,
            None => return,
        },
        () = place.lost() => return turn_away(&context, arrival.peer, &arrival.stream),
    };
    let slot = ConnectionSlot::new(None, &context.front.stats);
    let socket = Arc::new(ClientSocket::new(arrival.stream, Some(slot)));
    let progress = ConnectionProgress::new();
    let serving = connection::serve_crowded(&context, &socket, peer, &progress);
    tokio::select! {
        biased;
        () = serving => {}
        () = place.lost() => {
            if progress.awaits_first_request() {
                turn_away(&context, peer, &socket.stream);
            }
        }
    }
}

/// Turns a client away that has lost its place before its request came.
fn turn_away(context: &WorkerContext, peer: Peer, stream: &TcpStream) {
    context.room.turn_away(&context.front);
    context.front.stats.answered(503);
    let status = StatusCode::SERVICE_UNAVAILABLE;
    ExchangeRecord::refused(context.front.records(), peer, status, ExchangeEnd::Refused);
    // The connection closes in any case.
    let _ = stream.try_write(TURNED_AWAY);
}
