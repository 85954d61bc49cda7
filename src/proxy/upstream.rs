//! One run of a server behind the front door, and how a request gets a connection to it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::pool::IdlePool;
use super::request_body::ClientBody;
use super::upstream_connection::UpstreamConnection;
use crate::os::descriptors;
use crate::os::port::{Server, Stranger};

/// How long a connection attempt to a loopback or nearby upstream may take; the kernel's own limit
/// is minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a kept connection may take to be ready for its next request: a turn of its task.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// Where an upstream listens.
#[derive(Clone, Debug)]
pub enum Address {
    /// A sidecar on loopback.
    Sidecar(Arc<Server>),
    /// A name to be resolved at each connection.
    Name(String, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sidecar(server) => server.at.address.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// One run of a server behind the front door, with the connections to it.
#[derive(Debug)]
pub struct Upstream {
    pub address: Address,
    pub pool: IdlePool,
    cut: CancellationToken,
}

impl Upstream {
    /// An upstream without connections yet, for `workers` threads; `cut` ends all of them.
    pub fn new(address: Address, workers: usize, cut: CancellationToken) -> Arc<Self> {
        Arc::new(Self {
            address,
            pool: IdlePool::new(workers),
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

    /// A connection for one request. `repeatable` when the request may be sent once more; `fresh`
    /// when it must not use a kept connection.
    ///
    /// # Errors
    /// When no new connection can be made.
    pub async fn connection(
        &self,
        repeatable: bool,
        fresh: bool,
    ) -> io::Result<UpstreamConnection> {
        if !fresh {
            while let Some(mut connection) = self.pool.take(repeatable) {
                // Never ready: one whose upstream did not take the end of the request before.
                if matches!(
                    tokio::time::timeout(READY_TIMEOUT, connection.sender.ready()).await,
                    Ok(Ok(()))
                ) {
                    return Ok(connection);
                }
            }
        }
        self.connect().await
    }

    /// A new connection.
    ///
    /// # Errors
    /// When none can be made.
    pub async fn connect(&self) -> io::Result<UpstreamConnection> {
        let connecting = async {
            match &self.address {
                Address::Sidecar(server) => server.connect().await,
                Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
            }
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .inspect_err(|error| self.report_stranger(error))?;
        if descriptors::is_reserved(&stream) {
            let why = "the gateway has no descriptor left for it (ulimit -n, LimitNOFILE=)";
            return Err(io::Error::other(why));
        }
        UpstreamConnection::new(stream, self.cut.clone()).await
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
        if self.sent.ended() && !self.connection.broken() {
            self.upstream.pool.keep(self.connection);
        }
    }
}
