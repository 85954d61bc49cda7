//! The transport of a client connection: its socket, with the time limits for a request's head, for
//! silence between requests, and for a client that does not read.
//!
//! A unix socket is driven as a [`tokio::net::TcpStream`], too: reading and writing are the same system calls.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::Front;
use super::admission::ConnectionSlot;
use super::client_socket::ClientSocket;
use super::exchange_end::ExchangeEnd;
use super::exchange_record::ExchangeRecord;
use super::forwarded::Peer;
use super::head_limits::HeadLimits;
use super::lazy_timer::LazyTimer;
use super::progress::ConnectionProgress;
use super::send_wait::SendWait;
use super::socket_read::poll_read;
use super::stats::Limit;
use crate::config::LimitsSection;

/// The response to a client that takes too long over a request's head.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// How long a connection is still read after its last response, when the client has not sent all of
/// its body: what comes to a closed socket resets it, and the client loses the response. nginx's
/// lingering_timeout is 5 s, too.
const LINGER: Duration = Duration::from_secs(5);

/// What is thrown away at once while it lingers.
const DISCARDED: usize = 4096;

/// The socket under a client connection, or under the tunnel that it became.
#[derive(Debug)]
pub struct ClientIo {
    socket: Arc<ClientSocket>,
    progress: Arc<ConnectionProgress>,
    front: Arc<Front>,
    peer: Peer,
    limits: LimitsSection,
    heads: HeadLimits,
    timer: LazyTimer,
    send: SendWait,
    /// Whether a part of an interim response is written.
    interim_begun: bool,
    /// Until when it lingers, once our side is closed.
    lingers: Option<Instant>,
}

impl ClientIo {
    pub fn new(
        socket: Arc<ClientSocket>,
        progress: Arc<ConnectionProgress>,
        (front, peer): (Arc<Front>, Peer),
        (limits, heads): (LimitsSection, HeadLimits),
    ) -> Self {
        Self {
            socket,
            progress,
            front,
            peer,
            limits,
            heads,
            timer: LazyTimer::default(),
            send: SendWait::default(),
            interim_begun: false,
            lingers: None,
        }
    }

    /// The socket for who goes on with the connection, what is left of what was read, and the connection's
    /// place.
    ///
    /// # Errors
    /// When this process has no descriptor left.
    pub fn into_socket(self) -> io::Result<(StdTcpStream, Bytes, Option<ConnectionSlot>)> {
        let kept = self.progress.kept(usize::MAX, self.heads);
        let (socket, slot) = self.socket.pass_on()?;
        Ok((socket, kept.unwrap_or_default(), slot))
    }

    /// Whether the client's time is over.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.progress.deadline(&self.limits) else {
            return Poll::Pending;
        };
        self.timer.poll_at(deadline, cx)
    }

    /// A client that has begun a head is told that its time is over. One that said nothing since its
    /// last response, or at all, waits for no answer.
    fn answer_timeout(&self) {
        if !self.progress.head_begun() {
            return;
        }
        self.front.stats.expired(Limit::Head);
        self.front.cuts.log(format_args!(
            "a client did not send the head of its request within {} (limits.header_time)",
            self.limits.header_time
        ));
        let timeout = StatusCode::REQUEST_TIMEOUT;
        ExchangeRecord::refused(
            self.front.records(),
            self.peer,
            timeout,
            ExchangeEnd::TimedOut,
        );
        // Nothing may be written into the middle of an earlier response.
        if self.progress.may_interrupt() {
            // The connection closes in any case: if the response does not fit into the socket, it
            // is lost.
            let _ = self.socket.stream.try_write(REQUEST_TIMEOUT);
        }
    }

    /// Waits for a client that does not read, as long as it may.
    fn poll_stalled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let limit = self.limits.send_idle;
        if limit.0.is_zero() || self.progress.tunnel() {
            return Poll::Pending;
        }
        ready!(self.send.poll_over(&self.socket.stream, limit.0, cx));
        self.progress.ends(ExchangeEnd::TimedOut);
        self.front.stats.expired(Limit::Send);
        self.front.cuts.log(format_args!(
            "a client is disconnected: it read nothing of its answer for {limit} (limits.send_idle)"
        ));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes the interim responses that wait. Each is begun only when hyper has nothing left to write.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let progress = Arc::clone(&self.progress);
        loop {
            let Poll::Ready(writable) = self.socket.stream.poll_write_ready(cx) else {
                return self.poll_stalled(cx).map_ok(|_| ());
            };
            writable?;
            let Some(mut waiting) = progress.interim.waiting() else {
                return Poll::Ready(Ok(()));
            };
            match self.socket.stream.try_write(&waiting) {
                Ok(count) => {
                    self.send.over();
                    self.interim_begun = !progress.interim.written(&mut waiting, count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Reads and throws away what the client still sends.
    fn poll_linger(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let mut discarded = [0; DISCARDED];
        loop {
            let mut buffer = ReadBuf::new(&mut discarded);
            match poll_read(&self.socket.stream, cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return self.timer.poll_at(until, cx),
            }
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let limits = self.heads;
        let before = buf.filled().len();
        loop {
            if let Some(kept) = self.progress.kept(buf.remaining(), limits) {
                buf.put_slice(&kept);
                return Poll::Ready(Ok(()));
            }
            match poll_read(&self.socket.stream, cx, buf) {
                Poll::Ready(Ok(())) => {
                    let read = &buf.filled()[before..];
                    let (ends, passed) = (read.is_empty(), self.progress.received(read, limits));
                    buf.set_filled(before + passed);
                    if ends || passed > 0 {
                        return Poll::Ready(Ok(()));
                    }
                }
                Poll::Pending if self.poll_expired(cx).is_ready() => {
                    self.answer_timeout();
                    return Poll::Ready(Ok(()));
                }
                result => return result,
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.interim_begun {
            ready!(self.poll_interim(cx))?;
        }
        self.progress.begin_write();
        loop {
            let Poll::Ready(writable) = self.socket.stream.poll_write_ready(cx) else {
                return self.poll_stalled(cx);
            };
            writable?;
            match self.socket.stream.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.send.over();
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper has written all it had.
        if self.progress.interim.waiting().is_some() {
            ready!(self.poll_interim(cx))?;
        }
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let until = match self.lingers {
            Some(until) => until,
            None => {
                shutdown(self.socket.stream.as_raw_fd(), Shutdown::Write)?;
                if !self.progress.body_open() {
                    return Poll::Ready(Ok(()));
                }
                *self.lingers.insert(Instant::now() + LINGER)
            }
        };
        self.poll_linger(until, cx).map(Ok)
    }
}
