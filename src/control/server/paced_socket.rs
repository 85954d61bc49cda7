//! The socket below a WebSocket. What comes through it is counted by frames and bytes, not by messages: a
//! message may come in pieces without end, and a client may send nothing but pings.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::frame_count::FrameCount;
use crate::os::mutex::lock;

/// Frames of one client that are read in a second, for as long as they come; and how many at once before
/// that. A person or a program that shows the gateway needs a few.
pub const FRAMES_PER_SECOND: u32 = 50;
pub const FRAMES_AT_ONCE: u32 = 200;

/// So many bytes count as another frame: 3 megabytes a second, and 12 at once.
const BYTES_OF_A_FRAME: u64 = 64 * 1024;

/// What is read at once. It may hold some hundred frames more than are due, which are waited for afterwards.
pub const READ_MAX: usize = 4 * 1024;

/// When a client was heard last, whatever it said.
#[derive(Clone, Debug)]
pub struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    pub fn at(&self) -> Instant {
        *lock(&self.0)
    }
}

/// A socket that is read no faster than at its pace.
#[derive(Debug)]
pub struct PacedSocket<S> {
    socket: S,
    /// What was read before.
    early: io::Cursor<Vec<u8>>,
    frames: FrameCount,
    /// Bytes since the last ones that counted as a frame.
    bytes: u64,
    pace: Pace,
    heard: Heard,
}

/// Lets so many frames through.
#[derive(Debug)]
struct Pace {
    /// When the frames so far are worked off.
    until: Instant,
    waits: Option<Pin<Box<Sleep>>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            until: Instant::now(),
            waits: None,
        }
    }
}

impl Pace {
    const EACH: Duration = Duration::from_millis(1000 / FRAMES_PER_SECOND as u64);

    /// So many came.
    fn came(&mut self, frames: u32) {
        let now = Instant::now();
        self.until = self.until.max(now) + Self::EACH * frames;
    }

    /// Waits until more may be read.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.until - Self::EACH * FRAMES_AT_ONCE;
        if due <= Instant::now() {
            self.waits = None;
            return Poll::Ready(());
        }
        // Nothing comes while it waits, so `due` stays.
        let waits = (self.waits).get_or_insert_with(|| Box::pin(sleep_until(due)));
        waits.as_mut().poll(cx).map(|()| self.waits = None)
    }
}

impl<S> PacedSocket<S> {
    /// A socket of which `early` was read already.
    pub fn new(socket: S, early: Vec<u8>) -> Self {
        Self {
            socket,
            early: io::Cursor::new(early),
            frames: FrameCount::default(),
            bytes: 0,
            pace: Pace::default(),
            heard: Heard(Arc::new(Mutex::new(Instant::now()))),
        }
    }

    pub fn heard(&self) -> Heard {
        self.heard.clone()
    }

    fn came(&mut self, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        *lock(&self.heard.0) = Instant::now();
        self.bytes += bytes.len() as u64;
        let as_frames = u32::try_from(self.bytes / BYTES_OF_A_FRAME).unwrap_or(u32::MAX);
        self.bytes %= BYTES_OF_A_FRAME;
        self.pace.came(self.frames.add(bytes) + as_frames);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedSocket<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.pace.poll_next(cx));
        let mut part = [0; READ_MAX];
        let room = buf.remaining().min(READ_MAX);
        let mut part = ReadBuf::new(&mut part[..room]);
        ready!(Pin::new(&mut this.early).poll_read(cx, &mut part))?;
        if part.filled().is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, &mut part))?;
        }
        this.came(part.filled());
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedSocket<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
