//! Connections to one upstream: opened, kept between requests, and chosen by what a request can
//! risk.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::request_body::RequestBody;
use super::worker_index;
use crate::os::mutex::lock;

/// How long a connection attempt to a loopback or nearby upstream may take; the kernel's own limit
/// is minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a kept connection may take to be ready for its next request: a turn of its task.
const READY_TIMEOUT: Duration = Duration::from_millis(100);

/// A request that must not be sent twice takes a kept connection only if it was idle for less than
/// this: at the edge of the upstream's own idle timeout 45 of 302 POSTs failed (measured with
/// Node).
const RISKY_IDLE: Duration = Duration::from_secs(1);

/// Idle connections kept for each worker; more than this many at once is a burst that need not be
/// remembered.
const IDLE_MAX: usize = 64;

/// An idle connection older than this is closed rather than tried: below the usual upstream default
/// of 60 to 75 s.
const IDLE_KEEP: Duration = Duration::from_secs(55);

/// Where an upstream listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A sidecar on loopback.
    Socket(SocketAddr),
    /// A name to be resolved at each connection.
    Name(String, u16),
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Socket(addr) => addr.fmt(f),
            Self::Name(host, port) => write!(f, "{host}:{port}"),
        }
    }
}

/// One run of a server behind the front door, with the connections to it.
#[derive(Debug)]
pub struct Upstream {
    address: Address,
    /// Half of what the upstream announced as its idle timeout, in milliseconds; 0 when it
    /// announced none.
    half_announced: AtomicU64,
    idle: Box<[Mutex<Vec<Idle>>]>,
    cut: CancellationToken,
}

#[derive(Debug)]
struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection that takes one request at a time.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<RequestBody>,
    traffic: Arc<Traffic>,
    /// Whether it carried a request before.
    pub reused: bool,
}

/// What happened on a connection's socket.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    write_failed: AtomicBool,
}

impl Upstream {
    /// An upstream without connections yet, for `workers` threads; `cut` ends all of them.
    pub fn new(address: Address, workers: usize, cut: CancellationToken) -> Arc<Self> {
        let idle = (0..workers.max(1)).map(|_| Mutex::default()).collect();
        Arc::new(Self {
            address,
            half_announced: AtomicU64::new(0),
            idle,
            cut,
        })
    }

    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Whether this is a sidecar, which comes back when it is gone.
    pub fn is_sidecar(&self) -> bool {
        matches!(self.address, Address::Socket(_))
    }

    /// A connection for one request; `safe` when the request may be repeated without harm.
    ///
    /// # Errors
    /// When no new connection can be made.
    pub async fn connection(self: &Arc<Self>, safe: bool, fresh: bool) -> io::Result<Connection> {
        if !fresh {
            while let Some(mut connection) = self.take_idle(safe) {
                // One whose upstream never took the end of the request before is never ready.
                if matches!(
                    tokio::time::timeout(READY_TIMEOUT, connection.sender.ready()).await,
                    Ok(Ok(()))
                ) {
                    connection.reused = true;
                    return Ok(connection);
                }
            }
        }
        self.connect().await
    }

    fn take_idle(&self, safe: bool) -> Option<Connection> {
        let risk = self.risky_idle();
        let mut idle = lock(self.slot());
        let now = Instant::now();
        if let Some(oldest) = idle.first()
            && now.duration_since(oldest.since) > IDLE_KEEP
        {
            idle.retain(|one| now.duration_since(one.since) <= IDLE_KEEP);
        }
        // The youngest is the likeliest to be alive; a request that cannot be repeated takes only
        // one surely within the idle timeout.
        let youngest = idle.last()?;
        if !safe && now.duration_since(youngest.since) >= risk {
            return None;
        }
        idle.pop().map(|one| one.connection)
    }

    fn risky_idle(&self) -> Duration {
        match self.half_announced.load(Ordering::Relaxed) {
            0 => RISKY_IDLE,
            half => RISKY_IDLE.min(Duration::from_millis(half)),
        }
    }

    /// Keeps a connection for the next request.
    pub fn keep(&self, connection: Connection) {
        if connection.sender.is_closed() {
            return;
        }
        let mut idle = lock(self.slot());
        if idle.len() < IDLE_MAX {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Remembers the `Keep-Alive: timeout=N` of an answer.
    pub fn announced(&self, keep_alive: &str) {
        let timeout = keep_alive.split(',').find_map(|part| {
            part.trim()
                .strip_prefix("timeout=")?
                .trim()
                .parse::<u64>()
                .ok()
        });
        if let Some(seconds) = timeout {
            self.half_announced
                .store(seconds.saturating_mul(500).max(1), Ordering::Relaxed);
        }
    }

    fn slot(&self) -> &Mutex<Vec<Idle>> {
        &self.idle[worker_index::get() % self.idle.len()]
    }

    async fn connect(&self) -> io::Result<Connection> {
        let connecting = async {
            match &self.address {
                Address::Socket(addr) => TcpStream::connect(addr).await,
                Address::Name(host, port) => TcpStream::connect((host.as_str(), *port)).await,
            }
        };
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        let traffic = Arc::new(Traffic::default());
        let io = TokioIo::new(UpstreamIo {
            stream,
            traffic: Arc::clone(&traffic),
        });
        let (sender, driver) = http1::Builder::new()
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        // The driver ends with its connection; its error reaches the request that it was for.
        tokio::spawn(
            self.cut
                .clone()
                .run_until_cancelled_owned(driver.with_upgrades()),
        );
        Ok(Connection {
            sender,
            traffic,
            reused: false,
        })
    }
}

impl Connection {
    /// The hyper handle that sends the request.
    pub fn sender(&mut self) -> &mut SendRequest<RequestBody> {
        &mut self.sender
    }

    /// Bytes received on this connection so far.
    pub fn received(&self) -> u64 {
        self.traffic.received.load(Ordering::Relaxed)
    }

    /// Whether the upstream stopped reading: nothing more can be sent here.
    pub fn broken(&self) -> bool {
        self.traffic.write_failed.load(Ordering::Relaxed)
    }
}

/// A socket whose write errors are swallowed: an upstream may answer before it has read the whole
/// body and close, and then the read side decides. hyper would give up at the failed write and lose
/// the answer.
struct UpstreamIo {
    stream: TcpStream,
    traffic: Arc<Traffic>,
}

impl UpstreamIo {
    fn swallow(&self, result: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(_)) => {
                self.traffic.write_failed.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(len))
            }
            other => other,
        }
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        let count = buf.filled().len() - before;
        if count > 0 {
            self.traffic
                .received
                .fetch_add(count as u64, Ordering::Relaxed);
        }
        result
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.swallow(result, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.swallow(result, bufs.iter().map(|buf| buf.len()).sum())
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx).map(|_| Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx).map(|_| Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_an_announced_idle_timeout_is_the_limit_for_risky_requests() {
        let upstream = Upstream::new(Address::Name("x".into(), 1), 1, CancellationToken::new());
        assert_eq!(upstream.risky_idle(), Duration::from_secs(1));
        upstream.announced("timeout=1, max=5");
        assert_eq!(upstream.risky_idle(), Duration::from_millis(500));
        upstream.announced("timeout=600");
        assert_eq!(upstream.risky_idle(), Duration::from_secs(1));
        upstream.announced("garbage");
        assert_eq!(upstream.risky_idle(), Duration::from_secs(1));
    }
}
