//! The gateway's end of the control protocol: on its control socket, and on the listeners of the front
//! door.

mod answer_form;
mod asked;
mod bind;
mod connection;
mod frame_count;
mod paced_socket;
mod places;
mod public;
mod queued_event;
mod reply;
mod subscribers;
mod transport;
mod websocket;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::BufReader;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::bind::{bind, bind_aside, names};
use self::connection::{Service, converse};
pub use self::places::OWN_MAX;
use self::places::{Place, Places};
pub use self::public::{Admission, Outlook, PublicControl, serve_public};
pub use self::reply::{Call, HeldConnection, Reply};
pub use self::subscribers::Subscribers;
use self::transport::SocketLines;
use super::access::Caller;
use super::counters::ControlCounters;

/// How long to wait when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the control socket until `stop`, then takes no more requests and returns when every
/// request has its answer.
///
/// It waits for every [`Reply`] that is kept. When `calls` is closed, every request is answered with
/// a failure.
pub async fn serve(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    counters: Arc<ControlCounters>,
    stop: CancellationToken,
) {
    let service = Service { calls, counters };
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
        let Some(place) = places.take(caller) else {
            tracing::warn!(
                "[gateway] control socket: every connection is busy, {caller} was turned away"
            );
            continue;
        };
        let (service, stop) = (service.clone(), stop.clone());
        connections.spawn(serve_client(stream, (caller, place), service, stop));
    }
    drop((listener, service));
    connections.close();
    connections.wait().await;
}

async fn serve_client(
    stream: UnixStream,
    (caller, place): (Caller, Place),
    service: Service,
    stop: CancellationToken,
) {
    let (reader, mut sink) = stream.into_split();
    let mut source = SocketLines(BufReader::new(reader));
    converse(
        (&mut source, &mut sink),
        caller,
        &place,
        &service,
        stop.cancelled(),
    )
    .await;
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
        return Some(Caller::Local { uid, pid });
    }
    tracing::warn!("[gateway] control socket: refused uid {uid} (pid {pid})");
    None
}

#[cfg(test)]
mod tests;
