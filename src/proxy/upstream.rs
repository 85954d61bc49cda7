//! One run of a server behind the front door, and how a request gets a connection to it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::head_limits::HeadLimits;
use super::named_server::NamedServer;
use super::other_protocol::OtherProtocol;
use super::pool::{IdlePool, PURGE_EVERY};
use super::request_body::ClientBody;
use super::upstream_connection::UpstreamConnection;
use crate::os::accept_queue::ConnectTurn;
use crate::os::port::{Server, Stranger};
use crate::os::{descriptors, unix_socket};

/// How long a connection attempt to a loopback or nearby upstream may take; the kernel's own limit
/// is minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two attempts at a unix socket whose queue is full: no event tells that there is
/// room in it.
const UNIX_AGAIN: Duration = Duration::from_millis(10);

/// How long connections to a name are used: a name may lead to another address by then.
const NAMED_KEEP: Duration = Duration::from_secs(60);

/// How long a kept connection may take to be ready for its next request: a turn of its task.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// Where an upstream listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A sidecar on loopback.
    Sidecar(Arc<Server>),
    /// A server that the gateway does not start, by its name or its address.
    Name(Arc<NamedServer>),
    /// The same, at a unix socket.
    Unix(PathBuf),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sidecar(server) => server.at.address.fmt(f),
            Self::Name(server) => server.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One run of a server behind the front door, with the connections to it.
#[derive(Debug)]
pub struct Upstream {
    pub address: Address,
    pub pool: IdlePool,
    /// What it speaks, if that was found not to be HTTP/1.
    pub other: Option<OtherProtocol>,
    cut: CancellationToken,
}

impl Upstream {
    /// An upstream without connections yet, for `workers` threads; `cut` ends all of them.
    pub fn new(address: Address, workers: usize, cut: CancellationToken) -> Arc<Self> {
        Self::speaking(None, address, workers, cut)
    }

    /// The same for a server that was found to speak something else than HTTP/1.
    pub fn speaking(
        other: Option<OtherProtocol>,
        address: Address,
        workers: usize,
        cut: CancellationToken,
    ) -> Arc<Self> {
        Arc::new(Self {
            address,
            pool: IdlePool::new(workers),
            other,
            cut,
        })
    }

    /// Whether this is a sidecar: the gateway starts it again when it is gone.
    pub fn is_sidecar(&self) -> bool {
        matches!(self.address, Address::Sidecar(_))
    }

    /// Whether the end of a drain cut its connections.
    pub fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Waits until the end of a drain cuts its connections.
    pub async fn wait_cut(&self) {
        self.cut.cancelled().await;
    }

    /// A kept connection for one request; `repeatable` when the request may be sent once more.
    pub async fn kept(&self, repeatable: bool) -> Option<UpstreamConnection> {
        while let Some(mut connection) = self.pool.take(repeatable) {
            // Most are, and need no timer.
            if connection.sender.is_ready() {
                return Some(connection);
            }
            // Never ready: one whose upstream did not take the end of the request before.
            let ready = tokio::time::timeout(READY_TIMEOUT, connection.sender.ready());
            if matches!(ready.await, Ok(Ok(()))) {
                return Some(connection);
            }
        }
        None
    }

    /// A new connection, for responses with such `heads`; to a sidecar, with its `turn`.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn connect(
        &self,
        turn: Option<ConnectTurn<'_>>,
        heads: HeadLimits,
    ) -> io::Result<UpstreamConnection> {
        let connecting = async {
            let stream = match &self.address {
                Address::Sidecar(server) => server.connect().await?,
                Address::Name(server) => server.connect().await?,
                Address::Unix(path) => return connect_unix(path).await,
            };
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .inspect_err(|error| self.report_stranger(error))?;
        drop(turn);
        if descriptors::share(&stream) != descriptors::Share::Clients {
            let why = "the gateway has no descriptor left for it (ulimit -n, LimitNOFILE=)";
            return Err(io::Error::other(why));
        }
        let leaves_room = descriptors::leaves_room(&stream);
        UpstreamConnection::new(stream, self.cut.clone(), heads, leaves_room).await
    }

    fn report_stranger(&self, error: &io::Error) {
        if let Some(stranger) = Stranger::of(error).filter(|stranger| stranger.new) {
            warn!(
                "[gateway] {} is the address of a sidecar, but {} listens there: no request is sent to it",
                self.address, stranger.holder
            );
        }
    }
}

/// Connects to a unix socket, which is driven as a [`TcpStream`]: reading and writing are the same
/// system calls. The caller limits the time.
async fn connect_unix(path: &Path) -> io::Result<TcpStream> {
    loop {
        match unix_socket::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(UNIX_AGAIN).await;
            }
            connected => return TcpStream::from_std(OwnedFd::from(connected?).into()),
        }
    }
}

/// An upstream connection in use by one request, to be kept afterwards.
#[derive(Debug)]
pub struct UpstreamLease {
    pub connection: UpstreamConnection,
    /// Where it goes back to.
    pub upstream: Arc<Upstream>,
    /// The request's body: a connection goes back only when all of it was sent.
    pub sent: ClientBody,
}

impl UpstreamLease {
    /// Gives the connection back, if it can take another request.
    pub fn give_back(self) {
        let now = Instant::now();
        let old = matches!(self.upstream.address, Address::Name(_))
            && now.duration_since(self.connection.made) > NAMED_KEEP;
        if self.sent.ended() && !self.connection.broken() && !old {
            let many = self.upstream.pool.keep(self.connection, now);
            if many {
                tokio::spawn(purge(Arc::downgrade(&self.upstream)));
            }
        }
    }
}

/// Closes idle connections of this worker that nobody needs, until few are left.
async fn purge(upstream: Weak<Upstream>) {
    loop {
        tokio::time::sleep(PURGE_EVERY).await;
        let goes_on = upstream
            .upgrade()
            .is_some_and(|upstream| upstream.pool.purge());
        if !goes_on {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;
    use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[tokio::test]
    async fn a_unix_server_whose_queue_is_full_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let (family, kind) = (AddressFamily::Unix, SockType::Stream);
        let listener = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
        socket::bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let listener = UnixListener::from(listener);
        let mut full = Vec::new();
        while let Ok(client) = unix_socket::connect(&path) {
            full.push(client);
        }
        let mut connecting = Box::pin(connect_unix(&path));
        assert!(connecting.as_mut().now_or_never().is_none());
        let accepted: Vec<UnixStream> = (full.iter())
            .map(|_| listener.accept().unwrap().0)
            .collect();
        connecting.await.unwrap();
        listener.accept().unwrap();
        drop((accepted, listener));
        let gone = connect_unix(&path).await.unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::ConnectionRefused);
    }
}
