//! A client's socket, with the patience that the limits give it: for one request's head, and for
//! silence between requests.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, Sleep};

use super::stats::Open;
use crate::os::mutex::lock;

/// What a client is told that takes too long over a request's head.
const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(Arc<TcpStream>),
    /// Over a unix socket.
    Unix(Arc<UnixStream>),
}

/// See [`Stream::handle`].
#[derive(Debug)]
pub struct Handle(Weak<TcpStream>, Weak<UnixStream>);

impl Handle {
    /// A second descriptor of the socket.
    ///
    /// # Errors
    /// When it is closed, or no descriptor is left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        match (self.0.upgrade(), self.1.upgrade()) {
            (Some(tcp), _) => tcp.as_fd().try_clone_to_owned(),
            (None, Some(unix)) => unix.as_fd().try_clone_to_owned(),
            (None, None) => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Stream {
    /// Done when the connection was reset: by the client, or because it does not answer the
    /// kernel's keep-alive any more. A client that only closed its sending side is still there.
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

    /// A way to the socket that does not keep it open.
    pub fn handle(&self) -> Handle {
        match self {
            Self::Tcp(stream) => Handle(Arc::downgrade(stream), Weak::new()),
            Self::Unix(stream) => Handle(Weak::new(), Arc::downgrade(stream)),
        }
    }

    fn poll_read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let result = match self {
                Self::Tcp(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    read_then(
                        buf,
                        |buf| stream.try_read_buf(buf),
                        |read| stream.try_io(Interest::READABLE, read),
                    )
                }
                Self::Unix(stream) => {
                    ready!(stream.poll_read_ready(cx))?;
                    read_then(
                        buf,
                        |buf| stream.try_read_buf(buf),
                        |read| stream.try_io(Interest::READABLE, read),
                    )
                }
            };
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return Poll::Ready(other),
            }
        }
    }

    fn poll_write(
        &self,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
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
        Ok(nix::sys::socket::shutdown(
            fd,
            nix::sys::socket::Shutdown::Write,
        )?)
    }
}

/// Reads within `io`. When less comes than there is room for, the socket is empty: `io` is told so,
/// which spares the read that would find that out. What arrives meanwhile still rings, as its
/// readiness is a newer one.
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
        if count > 0 && count < room {
            Err(io::ErrorKind::WouldBlock.into())
        } else {
            Ok(())
        }
    });
    if came { Ok(()) } else { told }
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
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
    /// Whether a part of an answer is not written yet.
    unflushed: AtomicBool,
    /// Whether the client has closed its sending side.
    half_closed: AtomicBool,
    read: Mutex<Read>,
}

/// How much of the present request was read, to tell whether something was read beyond it.
#[derive(Clone, Copy, Debug, Default)]
struct Read {
    bytes: u64,
    /// The length of its head; 0 while it is not known.
    head: u64,
    last: [u8; 4],
    /// The length of its body; none for one in chunks.
    body: Option<u64>,
}

/// The end of a head, and of a body in chunks.
const END: [u8; 4] = *b"\r\n\r\n";

impl Read {
    fn add(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        for byte in &bytes[bytes.len().saturating_sub(END.len())..] {
            self.last.rotate_left(1);
            self.last[3] = *byte;
        }
    }

    /// Whether what was read ends with this request.
    fn whole(&self) -> bool {
        match self.body {
            _ if self.bytes == 0 => true,
            Some(length) if length > 0 => self.head > 0 && self.bytes == self.head + length,
            _ => self.last == END,
        }
    }
}

impl Phase {
    /// A connection that has sent nothing yet. Its first bytes are awaited like the rest of a head.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(HEAD),
            since: Mutex::new(Instant::now()),
            head: Notify::new(),
            unflushed: AtomicBool::new(false),
            half_closed: AtomicBool::new(false),
            read: Mutex::default(),
        })
    }

    /// A request's head is complete; a body of this length follows, or one in chunks.
    pub fn busy(&self, body: Option<u64>) {
        lock(&self.read).body = body;
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
        self.enter(IDLE);
    }

    /// Whether nothing was read beyond the present request, and all of it was.
    pub fn read_whole(&self) -> bool {
        lock(&self.read).whole()
    }

    /// Waits until the client has asked nothing for `time`, from now on.
    pub async fn silent(&self, time: Duration) {
        let mut from = Instant::now();
        loop {
            tokio::time::sleep_until(from + time).await;
            let since = *lock(&self.since);
            let idle = self.state.load(Ordering::Acquire) == IDLE;
            if idle && since <= from {
                return;
            }
            from = if idle { since } else { Instant::now() };
        }
    }

    /// Whether the connection is between two requests, or before the first, with nothing read ahead
    /// and nothing left to write.
    pub fn at_rest(&self) -> bool {
        let waits =
            self.unflushed.load(Ordering::Acquire) || self.half_closed.load(Ordering::Acquire);
        self.state.load(Ordering::Acquire) != BUSY && !waits && lock(&self.read).whole()
    }

    /// Something was read; nothing when the client has closed its sending side.
    fn came(&self, bytes: &[u8]) {
        let mut read = lock(&self.read);
        if bytes.is_empty() {
            self.half_closed.store(true, Ordering::Release);
        } else if self.state.load(Ordering::Acquire) == IDLE {
            self.enter(HEAD);
            *read = Read::default();
        }
        if read.bytes == 0 {
            read.head = bytes
                .windows(END.len())
                .position(|end| end == END)
                .map_or(0, |at| (at + END.len()) as u64);
        }
        read.add(bytes);
    }

    fn enter(&self, state: u8) {
        *lock(&self.since) = Instant::now();
        self.state.store(state, Ordering::Release);
    }

    fn deadline(&self, patience: Timeouts) -> Option<Instant> {
        let since = *lock(&self.since);
        match self.state.load(Ordering::Acquire) {
            HEAD => Some(since + patience.head),
            IDLE if !patience.idle.is_zero() => Some(since + patience.idle),
            _ => None,
        }
    }
}

/// What a client connection takes up: its place among `limits.connections`, and in the count. None
/// for the watchdog's.
pub type Seat = Option<(Option<OwnedSemaphorePermit>, Open)>;

/// The socket under a client connection, or under the tunnel that it became.
#[derive(Debug)]
pub struct ClientIo {
    stream: Stream,
    _seat: Seat,
    phase: Arc<Phase>,
    patience: Timeouts,
    timer: Option<Pin<Box<Sleep>>>,
}

impl ClientIo {
    /// Watches over `stream`.
    pub fn new(stream: Stream, seat: Seat, phase: Arc<Phase>, patience: Timeouts) -> Self {
        Self {
            stream,
            _seat: seat,
            phase,
            patience,
            timer: None,
        }
    }

    /// Whether the client used up its patience. The timer is set once for each wait, not for each
    /// request.
    fn poll_expired(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Some(deadline) = self.phase.deadline(self.patience) else {
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

    fn say_timeout(&mut self) {
        // Into the middle of an earlier answer nothing may be written.
        if self.phase.state.load(Ordering::Acquire) == HEAD
            && !self.phase.unflushed.load(Ordering::Acquire)
        {
            // The answer is a courtesy to a client that is given up: if it does not fit into the
            // socket, it is lost.
            let _ = match &self.stream {
                Stream::Tcp(stream) => stream.try_write(REQUEST_TIMEOUT),
                Stream::Unix(stream) => stream.try_write(REQUEST_TIMEOUT),
            };
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
            self.phase.came(&buf.filled()[before..]);
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
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.phase.unflushed.store(true, Ordering::Release);
        self.stream.poll_write(cx, &[io::IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.phase.unflushed.store(true, Ordering::Release);
        self.stream.poll_write(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.phase.unflushed.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.stream.shutdown())
    }
}
