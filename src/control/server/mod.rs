//! The gateway's end of the control socket.

mod bind;
mod connection;
mod places;
mod queued_event;
mod reply;
mod subscribers;

use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::bind::{bind, bind_aside, names};
use self::connection::converse;
pub use self::places::OWN_MAX;
use self::places::Places;
pub use self::reply::{Call, Caller, HeldConnection, Reply};
pub use self::subscribers::Subscribers;

/// How long to wait when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the control socket until `stop`, then takes no more requests and returns when every
/// request has its answer.
///
/// It waits for every [`Reply`] that is kept. When `calls` is closed, every request is answered with
/// a failure.
pub async fn serve(listener: UnixListener, calls: mpsc::Sender<Call>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    let places = Places::default();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("[gateway] control socket: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(caller) = admit(&stream) else {
            continue;
        };
        let Some(place) = places.take(caller.uid) else {
            tracing::warn!(
                "[gateway] control socket: every connection is busy, pid {} was turned away",
                caller.pid
            );
            continue;
        };
        connections.spawn(converse(stream, caller, place, calls.clone(), stop.clone()));
    }
    drop((listener, calls));
    connections.close();
    connections.wait().await;
}

/// Lets in root and our own user. The file's mode keeps others out already, unless it was changed.
fn admit(stream: &UnixStream) -> Option<Caller> {
    let (uid, pid) = match stream.peer_cred() {
        Ok(peer) => (peer.uid(), peer.pid().unwrap_or(0)),
        Err(error) => {
            tracing::warn!(
                "[gateway] control socket: refused a peer that cannot be known: {error}"
            );
            return None;
        }
    };
    if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
        return Some(Caller { uid, pid });
    }
    tracing::warn!("[gateway] control socket: refused uid {uid} (pid {pid})");
    None
}

#[cfg(test)]
mod tests;
