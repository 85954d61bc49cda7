//! Bytes both ways after a 101, until either side ends or the tunnel's time is up.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::address_limits::AddressGuard;
use super::exchange_end::ExchangeEnd;
use super::exchange_record::ExchangeRecord;
use super::log_throttle::LogThrottle;
use super::stats::{GaugeGuard, Limit, Stats};
use super::ticket::Ticket;
use super::websocket::{self, Closing, Frames};
use crate::config::Dur;
use crate::os::mutex::lock;

/// Bytes carried in one go.
const CHUNK: usize = 16 * 1024;

/// The same while little comes: most tunnels are quiet most of the time.
const LITTLE: usize = 2 * 1024;

/// How long a WebSocket may take for its closing handshake, after a Close frame of the gateway or after
/// its other side is gone.
pub const CLOSE_HANDSHAKE: Duration = Duration::from_secs(2);

/// A connection that became a tunnel.
#[derive(Debug)]
pub struct Tunnel {
    /// Whether its protocol is WebSocket.
    pub websocket: bool,
    /// Cancelled when its time is up.
    pub end: CancellationToken,
    /// Counts it at its backend.
    pub ticket: Ticket,
    pub idle: TunnelIdle,
    /// Counts it for this process.
    pub stats: Arc<Stats>,
    pub record: ExchangeRecord,
    /// Counts it for its client's address.
    pub address: Option<AddressGuard>,
}

/// How long a tunnel may be silent (`limits.tunnel_idle`).
#[derive(Debug)]
pub struct TunnelIdle {
    /// Zero means without limit.
    limit: Dur,
    /// When the last byte came, from either side.
    last: Mutex<Instant>,
    /// Cancelled when the limit is reached.
    over: CancellationToken,
    log: Arc<LogThrottle>,
}

impl TunnelIdle {
    pub fn new(limit: Dur, log: &Arc<LogThrottle>) -> Self {
        Self {
            limit,
            last: Mutex::new(Instant::now()),
            over: CancellationToken::new(),
            log: Arc::clone(log),
        }
    }

    fn moved(&self) {
        if !self.limit.0.is_zero() {
            *lock(&self.last) = Instant::now();
        }
    }

    /// Waits until the limit is reached, and says so.
    async fn reached(&self, stats: &Stats) {
        if self.limit.0.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let at = *lock(&self.last) + self.limit.0;
            if Instant::now() >= at {
                break;
            }
            tokio::time::sleep_until(at).await;
        }
        stats.expired(Limit::Tunnel);
        self.log.log(format_args!(
            "a tunnel is closed: nothing went through it for {} (limits.tunnel_idle)",
            self.limit
        ));
        self.over.cancel();
    }
}

impl Tunnel {
    /// Waits for both sides to be handed over, then carries bytes until the end.
    pub async fn run(mut self, client: OnUpgrade, upstream: OnUpgrade) {
        let open = GaugeGuard::new(&self.stats, |stats| &stats.tunnels);
        let mut record = std::mem::take(&mut self.record);
        let (Ok(client), Ok(upstream)) = tokio::join!(client, upstream) else {
            return record.ends(ExchangeEnd::Failed);
        };
        let sent = AtomicU64::new(0);
        self.carry(client, upstream, &sent).await;
        record.handed_over(sent.into_inner());
        record.ends(if self.end.is_cancelled() {
            self.ticket.ends_early();
            match self.websocket {
                true => ExchangeEnd::Ended,
                false => ExchangeEnd::Cut,
            }
        } else if self.idle.over.is_cancelled() {
            ExchangeEnd::TimedOut
        } else {
            ExchangeEnd::Done
        });
        drop((self.ticket, self.address, open));
    }

    /// Counts the bytes that go to the client in `sent`.
    async fn carry(&self, client: Upgraded, upstream: Upgraded, sent: &AtomicU64) {
        let (from_client, to_client) = tokio::io::split(TokioIo::new(client));
        let (from_upstream, to_upstream) = tokio::io::split(TokioIo::new(upstream));
        let inward = self.direction(from_client, to_upstream, None);
        let outward = self.direction(from_upstream, to_client, Some(sent));
        // An error on one side ends both: half a tunnel is of no use. After a clean end of one
        // direction the other goes on; with a WebSocket not for long, because a living peer sends
        // Close before its side ends.
        let both = async {
            tokio::pin!(inward, outward);
            let inward_first = tokio::select! {
                end = &mut inward => end.map(|()| true)?,
                end = &mut outward => end.map(|()| false)?,
            };
            let other = async {
                if inward_first {
                    outward.await
                } else {
                    inward.await
                }
            };
            match self.websocket {
                true => tokio::time::timeout(CLOSE_HANDSHAKE, other)
                    .await
                    .unwrap_or(Ok(())),
                false => other.await,
            }
        };
        let cut = async {
            tokio::select! {
                () = self.end.cancelled() => {}
                () = self.idle.reached(&self.stats) => {}
            }
            tokio::time::sleep(CLOSE_HANDSHAKE).await;
        };
        tokio::select! {
            _ = both => {}
            () = cut => {}
        }
    }

    /// Carries bytes one way. `sent` counts those to a client; frames that go to a server are masked.
    async fn direction(
        &self,
        mut from: ReadHalf<TokioIo<Upgraded>>,
        mut to: WriteHalf<TokioIo<Upgraded>>,
        sent: Option<&AtomicU64>,
    ) -> io::Result<()> {
        let mut frames = Frames::default();
        let mut buffer = vec![0; LITTLE];
        loop {
            let count = tokio::select! {
                biased;
                () = self.end.cancelled() => break,
                () = self.idle.over.cancelled() => break,
                read = from.read(&mut buffer) => read?,
            };
            if count == 0 {
                return to.shutdown().await;
            }
            let bytes = &buffer[..count];
            self.idle.moved();
            to.write_all(bytes).await?;
            if let Some(sent) = sent {
                sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
            }
            if self.websocket {
                frames.advance(bytes);
            }
            let next = if count < LITTLE { LITTLE } else { CHUNK };
            if next != buffer.len() {
                buffer = vec![0; next];
            }
        }
        if !self.websocket || (frames.closing() && frames.between()) {
            return to.shutdown().await;
        }
        self.close_websocket(from, to, frames, sent.is_none()).await
    }

    /// Lets the frame under way finish, sends a Close frame, and reads on until the other side is done.
    async fn close_websocket(
        &self,
        mut from: ReadHalf<TokioIo<Upgraded>>,
        mut to: WriteHalf<TokioIo<Upgraded>>,
        mut frames: Frames,
        masked: bool,
    ) -> io::Result<()> {
        let mut buffer = vec![0; CHUNK];
        while !frames.between() {
            let count = from.read(&mut buffer).await?;
            if count == 0 {
                return to.shutdown().await;
            }
            let pass = frames.boundary_in(&buffer[..count]).unwrap_or(count);
            to.write_all(&buffer[..pass]).await?;
            frames.advance(&buffer[..pass]);
        }
        if !frames.closing() {
            let why = match self.end.is_cancelled() {
                true => Closing::Restart,
                false => Closing::Idle,
            };
            to.write_all(&websocket::close_frame(masked, why)).await?;
            to.flush().await?;
        }
        while from.read(&mut buffer).await? > 0 {}
        to.shutdown().await
    }
}
