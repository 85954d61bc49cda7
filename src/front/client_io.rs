//! A client's socket, with the patience that the limits give it: for one request's head, and for silence between requests.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, Sleep};

/// What a client is told that takes too long over a request's head.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A connected client.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a unix socket.
    Unix(UnixStream),
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one request's head.
    pub head: Duration,
    /// For silence between requests; zero means for ever.
    pub idle: Duration,
}

const IDLE: u8 = 0;
const HEAD: u8 = 1;
const BUSY: u8 = 2;

/// Where a connection stands, shared between its socket and its requests.
#[derive(Debug)]
pub struct Phase {
    state: AtomicU8,
    since: Mutex<Instant>,
}

impl Phase {
    /// A connection that has sent nothing yet. Its first bytes are awaited like the rest of a head.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(HEAD), since: Mutex::new(Instant::now()) })
    }

    /// A request's head is complete.
    pub fn busy(&self) {
        self.state.store(BUSY, Ordering::Release);
    }

    /// A request is answered.
    pub fn idle(&self) {
        self.enter(IDLE);
    }

    fn enter(&self, state: u8) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        self.state.store(state, Ordering::Release);
    }

    fn deadline(&self, patience: Patience) -> Option<Instant> {
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        match self.state.load(Ordering::Acquire) {
            HEAD => Some(since + patience.head),
            IDLE if !patience.idle.is_zero() => Some(since + patience.idle),
            _ => None,
        }
    }
}

/// The socket under a client connection.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    phase: Arc<Phase>,
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientIo {
    /// Watches over `stream`.
    pub fn new(stream: Stream, phase: Arc<Phase>, patience: Patience) -> Self {
        Self { stream, phase, patience, timer: None }
    }

    /// Whether the client used up its patience. The timer is set once for each wait, not for each request.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(deadline) = self.phase.deadline(self.patience) else { return Poll::Pending };
            let now = Instant::now();
            if now >= deadline {
                return Poll::Ready(());
            }
            let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            if timer.deadline() > deadline || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            if timer.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn say_timeout(&mut self) {
        if self.phase.state.load(Ordering::Acquire) == HEAD {
            // The answer is a courtesy to a client that is given up: if it does not fit into the socket, it is lost.
            let _ = match &self.stream {
                Stream::Tcp(stream) => stream.try_write(REQUEST_TIMEOUT),
                Stream::Unix(stream) => stream.try_write(REQUEST_TIMEOUT),
            };
        }
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        };
        if result.is_ready() {
            if buf.filled().len() > before && self.phase.state.load(Ordering::Acquire) == IDLE {
                self.phase.enter(HEAD);
            }
            return result;
        }
        if self.poll_expired(cx).is_ready() {
            self.say_timeout();
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.stream {
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
