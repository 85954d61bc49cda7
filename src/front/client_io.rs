//! A client's socket, with the patience that the limits give it: for one request's head, and for silence between requests.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep};

use super::stats::Open;

/// What a client is told that takes too long over a request's head.
const REQUEST_TIMEOUT: &[u8] = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A connected client.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(Arc<TcpStream>),
    /// Over a unix socket.
    Unix(Arc<UnixStream>),
}

impl Stream {
    /// Done when the connection was reset: by the client, or because it does not answer the kernel's keep-alive any more.
    /// A client that only closed its sending side is still there.
    pub fn reset(&self) -> impl Future<Output = ()> + use<> {
        let tcp = match self {
            Self::Tcp(stream) => Some(Arc::clone(stream)),
            // A unix peer that is gone shows when it is written to.
            Self::Unix(_) => None,
        };
        async move {
            match tcp {
                // An error means that the runtime ends.
                Some(stream) => drop(stream.ready(Interest::ERROR).await),
                None => std::future::pending().await,
            }
        }
    }

    /// Tells whether the client has sent something that was not read yet.
    pub fn waiting(&self) -> impl Fn() -> bool + use<> {
        let peek = |fd: i32| recv(fd, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT).is_ok_and(|length| length > 0);
        // Weak: what the connection became may outlive it, and must be alone in holding the socket.
        let tcp = if let Self::Tcp(stream) = self { Arc::downgrade(stream) } else { Weak::new() };
        let unix = if let Self::Unix(stream) = self { Arc::downgrade(stream) } else { Weak::new() };
        move || tcp.upgrade().is_some_and(|tcp| peek(tcp.as_raw_fd())) || unix.upgrade().is_some_and(|unix| peek(unix.as_raw_fd()))
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let result = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    read_then(buf, |buf| stream.try_read_buf(buf), |read| stream.try_io(Interest::READABLE, read))
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    read_then(buf, |buf| stream.try_read_buf(buf), |read| stream.try_io(Interest::READABLE, read))
                }
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_write(&self, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let result = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_write_vectored(bufs)
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_write_ready(cx))?;
                    stream.try_write_vectored(bufs)
                }
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        let fd = match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
        };
        Ok(nix::sys::socket::shutdown(fd, nix::sys::socket::Shutdown::Write)?)
    }
}

/// Reads within `io`. When less comes than there is room for, the socket is empty: `io` is told so, which spares the read
/// that would find that out. What arrives meanwhile still rings, as its readiness is a newer one.
fn read_then(
    buf: &mut ReadBuf<'_>,
    mut read: impl FnMut(&mut ReadBuf<'_>) -> io::Result<usize>,
    io: impl FnOnce(&mut dyn FnMut() -> io::Result<()>) -> io::Result<()>,
) -> io::Result<()> {
    let room = buf.remaining();
    let mut came = false;
    let told = io(&mut || {
        let count = read(buf)?;
        came = true;
        if count > 0 && count < room { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    if came { Ok(()) } else { told }
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
    /// Rings when a head is complete.
    head: Notify,
    /// How many bytes came after the head that was read last, as far as is known.
    after_head: AtomicUsize,
}

/// The end of a request's head.
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// It is not known what follows a head: it came in several parts, or with the request before it.
const UNKNOWN: usize = usize::MAX;

impl Phase {
    /// A connection that has sent nothing yet. Its first bytes are awaited like the rest of a head.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(HEAD), since: Mutex::new(Instant::now()), head: Notify::new(), after_head: AtomicUsize::new(UNKNOWN) })
    }

    /// A request's head is complete.
    pub fn busy(&self) {
        self.state.store(BUSY, Ordering::Release);
        self.head.notify_waiters();
    }

    /// Waits until no request's head is under way: one that was begun is complete.
    pub async fn head_complete(&self) {
        let complete = self.head.notified();
        if self.state.load(Ordering::Acquire) == HEAD {
            complete.await;
        }
    }

    /// A request is answered.
    pub fn idle(&self) {
        self.after_head.store(UNKNOWN, Ordering::Release);
        self.enter(IDLE);
    }

    /// Whether the client has sent, or may have sent, another request behind this one, which has a body of this length.
    pub fn more_follows(&self, body: Option<u64>) -> bool {
        match self.after_head.load(Ordering::Acquire) {
            UNKNOWN => true,
            after => body.is_none_or(|body| after as u64 > body),
        }
    }

    /// Waits until the client has asked nothing for `time`, from now on.
    pub async fn silent(&self, time: Duration) {
        let mut from = Instant::now();
        loop {
            tokio::time::sleep_until(from + time).await;
            let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
            let idle = self.state.load(Ordering::Acquire) == IDLE;
            if idle && since <= from {
                return;
            }
            from = if idle { since } else { Instant::now() };
        }
    }

    /// Looks at what was just read in search of the end of a head.
    fn look(&self, bytes: &[u8]) {
        let end = bytes.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD);
        self.after_head.store(end.map_or(UNKNOWN, |end| bytes.len() - end - END_OF_HEAD.len()), Ordering::Release);
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

/// What a client connection takes up: its place among `limits.connections`, and in the count. None for the watchdog's.
pub type Seat = Option<(Option<OwnedSemaphorePermit>, Open)>;

/// The socket under a client connection, or under the tunnel that it became.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    _seat: Seat,
    phase: Arc<Phase>,
    patience: Patience,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether a part of an answer is not written yet.
    unflushed: bool,
}

impl ClientIo {
    /// Watches over `stream`.
    pub fn new(stream: Stream, seat: Seat, phase: Arc<Phase>, patience: Patience) -> Self {
        Self { stream, _seat: seat, phase, patience, timer: None, unflushed: false }
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
        // Into the middle of an earlier answer nothing may be written.
        if self.phase.state.load(Ordering::Acquire) == HEAD && !self.unflushed {
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
        let result = self.stream.poll_read(cx, buf);
        if result.is_ready() {
            if buf.filled().len() > before && self.phase.state.load(Ordering::Acquire) == IDLE {
                self.phase.enter(HEAD);
                self.phase.look(&buf.filled()[before..]);
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
        self.unflushed = true;
        self.stream.poll_write(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bufs: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        self.stream.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown())
    }
}
