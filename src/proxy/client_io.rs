//! The transport of a client connection: its socket, with the time limits for a request's head and
//! for silence between requests.
//!
//! A unix socket is driven as a [`TcpStream`], too: reading and writing are the same system calls.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::sys::socket::{Shutdown, shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};

use super::admission::ConnectionSlot;
use super::progress::ConnectionProgress;
use crate::config::LimitsSection;

/// The response to a client that takes too long over a request's head.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The socket under a client connection, or under the tunnel that it became.
#[derive(Debug)]
pub struct ClientIo {
    stream: Arc<TcpStream>,
    _slot: Option<ConnectionSlot>,
    progress: Arc<ConnectionProgress>,
    limits: LimitsSection,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientIo {
    pub fn new(
        stream: Arc<TcpStream>,
        slot: Option<ConnectionSlot>,
        progress: Arc<ConnectionProgress>,
        limits: LimitsSection,
    ) -> Self {
        Self {
            stream,
            _slot: slot,
            progress,
            limits,
            timer: None,
        }
    }

    /// Whether the client's time is over. The timer is set once for each wait, not for each
    /// request.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(deadline) = self.progress.deadline(&self.limits) else {
                return Poll::Pending;
            };
            let now = Instant::now();
            if now >= deadline {
                return Poll::Ready(());
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn answer_timeout(&self) {
        // Nothing may be written into the middle of an earlier response.
        if self.progress.may_interrupt() {
            // The connection closes in any case: if the response does not fit into the socket, it
            // is lost.
            let _ = self.stream.try_write(REQUEST_TIMEOUT);
        }
    }
}

/// Reads once. When fewer bytes come than there is room for, the socket is empty: WouldBlock tells
/// the runtime so and saves a further read. Bytes that arrive in the meantime still wake the task,
/// because their readiness event is newer.
fn poll_read(
    stream: &TcpStream,
    cx: &mut Context<'_>,
    buf: &mut ReadBuf<'_>,
) -> Poll<io::Result<()>> {
    let room = buf.remaining();
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut came = false;
        let result = stream.try_io(Interest::READABLE, || {
            let count = stream.try_read_buf(buf)?;
            came = true;
            if count > 0 && count < room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            Ok(())
        });
        match result {
            _ if came => return Poll::Ready(Ok(())),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return Poll::Ready(result),
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = poll_read(&self.stream, cx, buf);
        if result.is_ready() {
            self.progress.received(&buf.filled()[before..]);
            return result;
        }
        if self.poll_expired(cx).is_ready() {
            self.answer_timeout();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.begin_write();
        loop {
            ready!(self.stream.poll_write_ready(cx))?;
            match self.stream.try_write_vectored(bufs) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => return Poll::Ready(written),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(shutdown(self.stream.as_raw_fd(), Shutdown::Write).map_err(io::Error::from))
    }
}
