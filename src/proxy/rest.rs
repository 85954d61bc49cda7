//! A client between two requests, or before its first one: it has its socket, but no parser and no
//! buffers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::client_move;
use super::client_socket::ClientSocket;
use super::disposition::{self, Disposition, ServedClient};
use super::progress::ConnectionProgress;
use super::worker_context::WorkerContext;

/// How long a client is silent before it loses its parser and its buffers: many send their next
/// request sooner.
const SILENT: Duration = Duration::from_secs(1);

/// Waits until a connection can lose its parser and its buffers. Polled after the connection in the
/// same task.
pub async fn due(progress: &ConnectionProgress) {
    loop {
        progress.silent(Instant::now(), SILENT).await;
        if progress.idle() {
            return;
        }
    }
}

/// Waits for the next request of a client. Returns whether it is to be served: else its connection
/// ends here.
pub async fn rest(
    context: &WorkerContext,
    socket: &ClientSocket,
    client: ServedClient<'_>,
) -> bool {
    let mut state = context.state.subscribe();
    let deadline = client
        .progress
        .deadline(&context.front.table().settings.limits);
    let expired = async {
        match deadline {
            Some(deadline) => sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        arrived = socket.arrived() => arrived,
        disposition = disposition::of(&mut state, client) => match disposition {
            Disposition::Migrate => {
                client_move::send(&state, &socket.stream, client.peer);
                false
            }
            Disposition::GiveWay => {
                context.front.stats.displaced.fetch_add(1, Ordering::Relaxed);
                false
            }
            Disposition::CloseSilent => false,
            // The first request of a client that has just come is still answered.
            Disposition::CloseAfterResponse => client.progress.awaits_first_request(),
        },
        () = expired => false,
    }
}
