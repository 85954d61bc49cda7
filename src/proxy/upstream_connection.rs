//! One HTTP/1.1 connection to an upstream.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll};
use std::time::Instant;

use http::header::{HeaderMap, TRANSFER_ENCODING};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use super::head_limits::HeadLimits;
use super::interim::Interim;
use super::other_protocol::{self, OtherProtocol};
use super::request_body::RequestBody;
use super::response_framing::ResponseFraming;
use super::socket_read::poll_read;
use super::surplus_lines::{SurplusFilter, SurplusLines};
use crate::os::mutex::lock;
use crate::os::platform;

/// How many bytes may come before the head of a response is complete, heads of status 1xx included: a
/// server could send these without end. hyper reads at most a tenth of it ahead into a body.
const HEAD_MAX: u64 = 4 * 1024 * 1024;

/// What is shorter than a packet. A server that writes a head and a body apart, as Python's http.server
/// does, sends such a second piece only when the first one is acknowledged (RFC 896), and our kernel
/// waits up to 40 ms with that, for something to send along.
const PIECE: usize = 1400;

/// A connection that takes one request at a time.
#[derive(Debug)]
pub struct UpstreamConnection {
    pub sender: SendRequest<RequestBody>,
    /// Whether it served a request before.
    pub kept: bool,
    /// When it was made.
    pub made: Instant,
    /// Whether many descriptors were left when it was made.
    pub leaves_room: bool,
    traffic: Arc<Traffic>,
}

/// What happened on a connection's socket.
#[derive(Debug, Default)]
struct Traffic {
    received: AtomicU64,
    /// The beginning of what was received.
    first: OnceLock<FirstBytes>,
    /// With this many bytes received, the connection breaks; 0 without such a limit.
    limit: AtomicU64,
    /// Of the present response: the bytes of its whole chunks.
    whole_chunks: AtomicU64,
    /// Header lines of the present response that hyper was not given.
    surplus: Mutex<SurplusLines>,
    /// Where interim responses go.
    interim: Mutex<Option<Arc<Interim>>>,
    write_failed: AtomicBool,
    /// It ended before the upstream had read all that was sent.
    unread: AtomicBool,
}

/// The first bytes that a server sent.
#[derive(Debug)]
struct FirstBytes {
    bytes: [u8; other_protocol::SHOWN],
    length: usize,
}

impl FirstBytes {
    fn of(received: &[u8]) -> Self {
        let mut bytes = [0; other_protocol::SHOWN];
        let length = received.len().min(bytes.len());
        bytes[..length].copy_from_slice(&received[..length]);
        Self { bytes, length }
    }

    fn get(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// What came of the chunks of one response.
#[derive(Debug)]
pub struct ReceivedChunks {
    /// Whether the response is chunked.
    pub chunked: bool,
    traffic: Arc<Traffic>,
}

impl ReceivedChunks {
    /// The bytes of all chunks that came whole.
    pub fn border(&self) -> u64 {
        self.traffic.whole_chunks.load(Ordering::Acquire)
    }
}

impl UpstreamConnection {
    /// Connects to `stream`'s peer with HTTP/1.1; `cut` ends the connection. `leaves_room` as in the
    /// field.
    ///
    /// # Errors
    /// When the socket cannot be set up.
    pub async fn new(
        stream: TcpStream,
        cut: CancellationToken,
        heads: HeadLimits,
        leaves_room: bool,
    ) -> io::Result<Self> {
        let traffic = Arc::new(Traffic::default());
        let io = TokioIo::new(UpstreamIo {
            stream,
            traffic: Arc::clone(&traffic),
            framing: ResponseFraming::default(),
            framed: 0,
            heads,
            filter: SurplusFilter::default(),
        });
        let (sender, driver) = http1::Builder::new()
            .max_headers(heads.parsed())
            .max_buf_size(heads.size)
            // As most clients write them.
            .preserve_header_case(heads.keep_case)
            .title_case_headers(true)
            .handshake(io)
            .await
            .map_err(io::Error::other)?;
        // The driver ends with its connection; its error reaches the request that it was for.
        tokio::spawn(cut.run_until_cancelled_owned(driver.with_upgrades()));
        Ok(Self {
            sender,
            kept: false,
            made: Instant::now(),
            leaves_room,
            traffic,
        })
    }

    /// Bytes received on this connection so far.
    pub fn received(&self) -> u64 {
        self.traffic.received.load(Ordering::Relaxed)
    }

    /// What the server speaks, where it began with something that is not HTTP/1.
    pub fn other_protocol(&self) -> Option<OtherProtocol> {
        const HTTP1: &[u8] = b"HTTP/1.";
        let first = self.traffic.first.get()?.get();
        let seen = first.len().min(HTTP1.len());
        (first[..seen] != HTTP1[..seen]).then(|| OtherProtocol::of(first))
    }

    /// What comes of the chunks of the present response, which has these `headers`.
    pub fn chunks(&self, headers: &HeaderMap) -> ReceivedChunks {
        ReceivedChunks {
            chunked: headers.contains_key(TRANSFER_ENCODING),
            traffic: Arc::clone(&self.traffic),
        }
    }

    /// The header lines of the present response that its message lacks yet.
    pub fn take_surplus(&self) -> SurplusLines {
        std::mem::take(&mut lock(&self.traffic.surplus))
    }

    /// From here on, a head of a response is waited for. Interim responses before it go to this client,
    /// if it takes any.
    pub fn begin_wait(&self, client: Option<Arc<Interim>>) {
        *lock(&self.traffic.interim) = client;
        let limit = self.received() + HEAD_MAX;
        self.traffic.limit.store(limit, Ordering::Relaxed);
    }

    /// A head is not waited for any more.
    pub fn end_wait(&self) {
        *lock(&self.traffic.interim) = None;
        self.traffic.limit.store(0, Ordering::Relaxed);
    }

    /// Whether the upstream stopped reading: nothing more can be sent here.
    pub fn broken(&self) -> bool {
        self.traffic.write_failed.load(Ordering::Relaxed)
    }

    /// Whether the upstream did not read all of a request without a body: it closed the connection
    /// before the request came, or died without having read it.
    pub fn unread(&self) -> bool {
        self.broken() || self.traffic.unread.load(Ordering::Relaxed)
    }
}

/// A socket whose write errors are ignored: an upstream may respond before it has read the whole body
/// and close, and then the read side decides. hyper would give up at the failed write and lose the
/// response.
struct UpstreamIo {
    stream: TcpStream,
    traffic: Arc<Traffic>,
    /// Of the present response.
    framing: ResponseFraming,
    /// The limit that was set for the head of that response.
    framed: u64,
    heads: HeadLimits,
    filter: SurplusFilter,
}

impl UpstreamIo {
    fn ignore_error(&self, result: Poll<io::Result<usize>>, len: usize) -> Poll<io::Result<usize>> {
        match result {
            Poll::Ready(Err(_)) => {
                self.traffic.write_failed.store(true, Ordering::Relaxed);
                Poll::Ready(Ok(len))
            }
            other => other,
        }
    }
}

impl UpstreamIo {
    /// These bytes were read.
    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        let traffic = &self.traffic;
        let limit = traffic.limit.load(Ordering::Relaxed);
        if limit != 0 && limit != self.framed {
            (self.framed, self.framing) = (limit, ResponseFraming::default());
        }
        let length = bytes.len() as u64;
        let earlier = traffic.received.fetch_add(length, Ordering::Relaxed);
        if earlier == 0 {
            traffic.first.get_or_init(|| FirstBytes::of(bytes));
        }
        if limit != 0 && earlier + length > limit {
            let why = format!("{HEAD_MAX} bytes came before a response");
            return Err(io::Error::new(io::ErrorKind::InvalidData, why));
        }
        Ok(())
    }

    /// Follows the response in what was read, and takes surplus header lines out of it.
    fn follow(&mut self, buf: &mut ReadBuf<'_>, before: usize) -> io::Result<()> {
        let bytes = &buf.filled()[before..];
        let bytes_read = bytes.len();
        let left = match self.filter.in_line() {
            true => bytes.len(),
            false => self.framing.advance(bytes, self.heads.plain()),
        };
        if left > 0 {
            let plain = buf.filled().len() - left;
            let surplus = &mut lock(&self.traffic.surplus);
            let left = &buf.filled()[plain..];
            (self.filter).add(left, &mut self.framing, surplus, self.heads)?;
            buf.set_filled(plain);
            self.filter.give(buf);
        }
        if bytes_read < PIECE && self.framing.is_cut() {
            platform::acknowledge(&self.stream);
        }
        if let Some(heads) = self.framing.take_interim()
            && let Some(client) = &*lock(&self.traffic.interim)
        {
            client.add(&heads, self.heads.lines);
        }
        let border = self.framing.border();
        self.traffic.whole_chunks.store(border, Ordering::Release);
        Ok(())
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.filter.give(buf) {
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        loop {
            let result = poll_read(&self.stream, cx, buf);
            if buf.filled().len() == before {
                if result.is_ready() {
                    // Who has read all acknowledges it with the end of the connection, at the latest, and
                    // a connection that is closed with something unread is reset.
                    let unread = matches!(&result, Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset)
                        || platform::unacknowledged(&self.stream);
                    self.traffic.unread.store(unread, Ordering::Relaxed);
                }
                return result;
            }
            self.count(&buf.filled()[before..])?;
            self.follow(buf, before)?;
            // To hyper, a read of nothing is the end of the connection.
            if buf.filled().len() > before {
                return result;
            }
        }
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.ignore_error(result, buf.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.ignore_error(result, bufs.iter().map(|buf| buf.len()).sum())
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
