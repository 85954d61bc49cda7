//! The transport of a client connection: its socket, with the time limits for a request's head and
//! for silence between requests.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::admission::ConnectionSlot;
use super::client_stream::ClientStream;
use super::progress::{ConnectionProgress, Timeouts};

/// The response to a client that takes too long over a request's head.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// The socket under a client connection, or under the tunnel that it became.
#[derive(Debug)]
pub struct ClientIo {
    stream: ClientStream,
    _slot: Option<ConnectionSlot>,
    progress: Arc<ConnectionProgress>,
    timeouts: Timeouts,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientIo {
    pub fn new(
        stream: ClientStream,
        slot: Option<ConnectionSlot>,
        progress: Arc<ConnectionProgress>,
        timeouts: Timeouts,
    ) -> Self {
        Self {
            stream,
            _slot: slot,
            progress,
            timeouts,
            timer: None,
        }
    }

    /// Whether the client's time is over. The timer is set once for each wait, not for each
    /// request.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(deadline) = self.progress.deadline(self.timeouts) else {
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

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = self.stream.poll_read(cx, buf);
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
        self.progress.begin_write();
        self.stream.poll_write(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.progress.begin_write();
        self.stream.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.progress.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown())
    }
}
