//! The accept loops: each takes clients off the listen queue of one listener.

use std::io;
use std::net::TcpListener as StdTcp;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdUnix;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::warn;

use super::connection;
use super::crowd;
use super::drain::{Accepting, restricted_to};
use super::forwarded::Peer;
use super::listener::ListenSocket;
use super::proxy_protocol::{Arrival, announces};
use super::worker_context::WorkerContext;
use crate::config::Listen;
use crate::os::descriptors::{self, Share};

/// Pause after an accept error that is not the client's: no descriptor or memory left. Something
/// must be closed first, and there is no event for that.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// A listener registered with the runtime of one thread.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// Starts an accept loop for each of the current sockets. The loops of earlier sockets end by
/// themselves, see [`accept_loop`].
pub fn start(
    context: &Arc<WorkerContext>,
    sockets: &mut watch::Receiver<Arc<Vec<ListenSocket>>>,
    loops: &mut JoinSet<()>,
) {
    let current = Arc::clone(&sockets.borrow_and_update());
    for socket in current.iter() {
        let local = socket.local();
        let acceptor = match socket.try_clone().and_then(Acceptor::new) {
            Ok(acceptor) => acceptor,
            Err(error) => {
                warn!("[gateway] cannot accept on {:?}: {error}", socket.local());
                continue;
            }
        };
        let accepting = accept_loop(Arc::clone(context), (acceptor, local), sockets.clone());
        loops.spawn(context.tasks.accept_loops.track_future(accepting));
    }
}

/// Accepts until [`WorkerState::accepting`](super::drain::WorkerState) forbids it, or until other
/// sockets are listened on. The clients that wait in the queue by then are accepted, too, unless
/// the queue is left to another process.
async fn accept_loop(
    context: Arc<WorkerContext>,
    (acceptor, local): (Acceptor, Option<Listen>),
    mut sockets: watch::Receiver<Arc<Vec<ListenSocket>>>,
) {
    let mut state = context.state.subscribe();
    let mut warned = false;
    // Only those that wait in the queue are still accepted.
    let mut last = false;
    loop {
        let stopped = || context.state.borrow().accepting >= Accepting::Stopped;
        if stopped() {
            return;
        }
        let arrived = tokio::select! {
            biased;
            accepted = acceptor.accept(), if !last => Some(accepted),
            () = restricted_to(&mut state, Accepting::QueueOnly), if !last => None,
            Ok(()) = sockets.changed(), if !last => None,
            else => None,
        };
        last |= arrived.is_none();
        if arrived.is_none() && stopped() {
            return;
        }
        match arrived.unwrap_or_else(|| acceptor.accept_waiting()) {
            Ok((stream, peer)) => {
                let share = descriptors::share(&stream);
                let permit = match share {
                    Share::Clients => context.limit.try_take(),
                    Share::Crowd | Share::Rest => None,
                };
                let stats = &context.front.stats;
                stats.accepted.fetch_add(1, Ordering::Relaxed);
                let arrival = Arrival {
                    announced: announces(&context.front.table().settings, local.as_ref()),
                    stream,
                    peer,
                };
                if let Some(permit) = permit {
                    connection::spawn(&context, arrival, permit);
                } else {
                    crowd::spawn(&context, arrival);
                    // Those who came before have their turn before another one takes their place.
                    tokio::task::yield_now().await;
                }
                if share == Share::Rest {
                    warn_once(&mut warned, "no descriptor is left for them");
                    tokio::select! {
                        () = descriptors::room() => {}
                        () = restricted_to(&mut state, Accepting::QueueOnly) => {}
                    }
                }
                warned = share == Share::Rest;
            }
            Err(error) if client_is_gone(&error) => {}
            // The queue is empty, and nobody is to be waited for.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if takes_nobody(&error) => {
                let at = local.as_ref().map(ToString::to_string);
                warn!(
                    "[gateway] {} takes no clients any more ({error}): its socket is shut down, and whoever holds it passes it to each process; gatewayctl restart --force has a service manager make another one",
                    at.as_deref().unwrap_or("a listener")
                );
                // Nothing but another socket helps: it is not tried again.
                tokio::select! {
                    () = restricted_to(&mut state, Accepting::QueueOnly) => {}
                    Ok(()) = sockets.changed() => {}
                }
                return;
            }
            Err(error) => {
                warn_once(&mut warned, &error);
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

fn warn_once(warned: &mut bool, why: impl std::fmt::Display) {
    if !std::mem::replace(warned, true) {
        warn!("[gateway] cannot accept clients for the moment, they wait: {why}");
    }
}

/// Whether a listener has been shut down, or was never one: accept(2) says so for ever.
fn takes_nobody(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}

fn client_is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted
    )
}

impl Acceptor {
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

    /// Accepts a client that waits in the queue. Asks the kernel: the runtime may not have heard of
    /// the client yet.
    ///
    /// # Errors
    /// `WouldBlock` when nobody waits, and what accept(2) says.
    fn accept_waiting(&self) -> io::Result<(TcpStream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let listener = StdTcp::from(listener.as_fd().try_clone_to_owned()?);
                let (stream, addr) = listener.accept()?;
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, Peer::Tcp(addr.ip())))
            }
            Self::Unix(listener) => {
                let listener = StdUnix::from(listener.as_fd().try_clone_to_owned()?);
                let stream = OwnedFd::from(listener.accept()?.0);
                let stream = std::net::TcpStream::from(stream);
                stream.set_nonblocking(true)?;
                Ok((TcpStream::from_std(stream)?, Peer::Unix))
            }
        }
    }

    async fn accept(&self) -> io::Result<(TcpStream, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (stream, addr) = listener.accept().await?;
                Ok((stream, Peer::Tcp(addr.ip())))
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let stream = OwnedFd::from(stream.into_std()?);
                Ok((TcpStream::from_std(stream.into())?, Peer::Unix))
            }
        }
    }
}
