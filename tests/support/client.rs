//! An HTTP/1.1 client that hides nothing: what was lost is told apart by how it was lost.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

/// Where a front door is.
#[derive(Clone, Debug)]
pub enum Target {
    /// An address.
    Tcp(SocketAddr),
    /// A socket's path.
    Unix(PathBuf),
}

impl From<SocketAddr> for Target {
    fn from(addr: SocketAddr) -> Self {
        Self::Tcp(addr)
    }
}

/// How an exchange was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// It ended before the first byte of an answer.
    Eof,
    /// It ended inside an answer.
    Truncated,
    /// Nothing within the time allowed.
    Timeout,
    /// It is not HTTP.
    Garbage(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Garbage(text) => write!(f, "garbage: {text}"),
            other => write!(f, "{}", format!("{other:?}").to_lowercase()),
        }
    }
}

impl std::error::Error for Fault {}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => Self::Refused,
            ErrorKind::UnexpectedEof => Self::Eof,
            ErrorKind::TimedOut => Self::Timeout,
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
                Self::Reset
            }
            _ => Self::Garbage(error.to_string()),
        }
    }
}

/// A byte stream of either kind.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// The head of a message.
#[derive(Clone, Debug)]
pub struct Head {
    /// The first line.
    pub first: String,
    /// Names as sent, and values.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The status of an answer, 0 for a request.
    pub fn status(&self) -> u16 {
        if !self.first.starts_with("HTTP/") {
            return 0;
        }
        self.first
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0)
    }

    /// The first header of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Every header of this name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers
            .iter()
            .filter(move |(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// Whether a comma-separated header holds this token.
    pub fn has_token(&self, name: &str, token: &str) -> bool {
        self.all(name)
            .flat_map(|value| value.split(','))
            .any(|part| part.trim().eq_ignore_ascii_case(token))
    }

    /// Whether the sender lets the connection be used again.
    pub fn keeps(&self) -> bool {
        if self.has_token("connection", "close") {
            return false;
        }
        !self.first.contains("HTTP/1.0") || self.has_token("connection", "keep-alive")
    }

    /// How the body ends. `to_head`: this answers a HEAD request.
    pub fn framing(&self, to_head: bool) -> Framing {
        let status = self.status();
        if to_head || matches!(status, 100..=199 | 204 | 304) {
            return Framing::Length(0);
        }
        if self.has_token("transfer-encoding", "chunked") {
            return Framing::Chunked;
        }
        match self
            .get("content-length")
            .and_then(|text| text.trim().parse().ok())
        {
            Some(length) => Framing::Length(length),
            None if status == 0 => Framing::Length(0),
            None => Framing::Close,
        }
    }

    fn parse(text: &[u8]) -> Result<Self, Fault> {
        let text = std::str::from_utf8(text)
            .map_err(|_| Fault::Garbage("a head that is not text".into()))?;
        let mut lines = text.split("\r\n");
        let first = lines.next().unwrap_or_default().to_owned();
        let mut headers = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line
                .split_once(':')
                .ok_or_else(|| Fault::Garbage(line.to_owned()))?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Ok(Self { first, headers })
    }
}

/// How a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With its last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status line and headers.
    pub head: Head,
    /// The body.
    pub body: Bytes,
    /// What came after the last chunk.
    pub trailers: Vec<(String, String)>,
}

impl Response {
    /// The status.
    pub fn status(&self) -> u16 {
        self.head.status()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// One connection, for either side of an exchange.
pub struct Conn {
    io: Box<dyn Io>,
    buf: BytesMut,
}

impl Conn {
    /// Connects.
    pub async fn open(target: &Target) -> Result<Self, Fault> {
        Ok(match target {
            Target::Tcp(addr) => {
                let stream = TcpStream::connect(addr).await?;
                stream.set_nodelay(true)?;
                Self::over(stream)
            }
            Target::Unix(path) => Self::over(UnixStream::connect(path).await?),
        })
    }

    /// Connects with a small receive buffer, so that a client that reads slowly is felt at the
    /// other end.
    pub async fn open_narrow(target: &Target) -> Result<Self, Fault> {
        const NARROW: u32 = 32 * 1024;
        let Target::Tcp(addr) = target else {
            return Self::open(target).await;
        };
        let socket = if addr.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        socket.set_recv_buffer_size(NARROW)?;
        Ok(Self::over(socket.connect(*addr).await?))
    }

    /// A connection over a stream that is open already.
    pub fn over(io: impl Io + 'static) -> Self {
        Self {
            io: Box::new(io),
            buf: BytesMut::new(),
        }
    }

    /// Writes bytes as they are.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Fault> {
        self.io.write_all(bytes.as_ref()).await?;
        Ok(self.io.flush().await?)
    }

    /// Ends our direction only.
    pub async fn finish(&mut self) -> Result<(), Fault> {
        Ok(self.io.shutdown().await?)
    }

    /// Reads a head: the answer's status line or a request's line, and the headers.
    pub async fn head(&mut self) -> Result<Head, Fault> {
        loop {
            if let Some(end) = find(&self.buf, b"\r\n\r\n") {
                let head = self.buf.split_to(end + 4);
                return Head::parse(&head[..end]);
            }
            if self.fill().await? == 0 {
                return Err(if self.buf.is_empty() {
                    Fault::Eof
                } else {
                    Fault::Truncated
                });
            }
        }
    }

    /// Reads a body to its end, giving each piece to `sink`; trailers are returned.
    pub async fn body_into(
        &mut self,
        framing: Framing,
        mut sink: impl FnMut(&[u8]),
    ) -> Result<Vec<(String, String)>, Fault> {
        match framing {
            Framing::Length(length) => self.exactly(length, &mut sink).await.map(|()| Vec::new()),
            Framing::Close => loop {
                sink(&self.buf.split());
                match self.fill().await {
                    Ok(0) => return Ok(Vec::new()),
                    Ok(_) => {}
                    Err(fault) => return Err(fault),
                }
            },
            Framing::Chunked => loop {
                let line = self.line().await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = u64::from_str_radix(size, 16)
                    .map_err(|_| Fault::Garbage(format!("chunk size `{line}`")))?;
                if size > 0 {
                    self.exactly(size, &mut sink).await?;
                    if !self.line().await?.is_empty() {
                        return Err(Fault::Garbage("a chunk without its end".into()));
                    }
                    continue;
                }
                let mut trailers = Vec::new();
                loop {
                    let line = self.line().await?;
                    let Some((name, value)) = line.split_once(':') else {
                        return Ok(trailers);
                    };
                    trailers.push((name.to_owned(), value.trim().to_owned()));
                }
            },
        }
    }

    /// Reads a body whole.
    pub async fn body(
        &mut self,
        framing: Framing,
    ) -> Result<(Bytes, Vec<(String, String)>), Fault> {
        let mut body = BytesMut::new();
        let trailers = self
            .body_into(framing, |piece| body.extend_from_slice(piece))
            .await?;
        Ok((body.freeze(), trailers))
    }

    /// Reads the answer to a request; answers 1xx are skipped, but for 101.
    pub async fn response(&mut self, to_head: bool) -> Result<Response, Fault> {
        loop {
            let head = self.head().await?;
            if matches!(head.status(), 100 | 102..=199) {
                continue;
            }
            let framing = if head.status() == 101 {
                Framing::Length(0)
            } else {
                head.framing(to_head)
            };
            let (body, trailers) = self.body(framing).await.map_err(inside)?;
            return Ok(Response {
                head,
                body,
                trailers,
            });
        }
    }

    /// Sends a request as it is and reads the answer.
    pub async fn exchange(&mut self, request: impl AsRef<[u8]>) -> Result<Response, Fault> {
        let to_head = request.as_ref().starts_with(b"HEAD ");
        self.send(request).await?;
        self.response(to_head).await
    }

    /// Some bytes as they come; empty at the end of the stream.
    pub async fn some(&mut self) -> Result<Bytes, Fault> {
        if self.buf.is_empty() {
            self.fill().await?;
        }
        Ok(self.buf.split().freeze())
    }

    /// At most `most` bytes as they come; empty at the end of the stream.
    pub async fn some_at_most(&mut self, most: usize) -> Result<Bytes, Fault> {
        if self.buf.is_empty() {
            self.fill().await?;
        }
        let most = most.min(self.buf.len());
        Ok(self.buf.split_to(most).freeze())
    }

    /// Exactly `length` bytes.
    pub async fn take(&mut self, length: usize) -> Result<Bytes, Fault> {
        while self.buf.len() < length {
            if self.fill().await? == 0 {
                return Err(Fault::Truncated);
            }
        }
        Ok(self.buf.split_to(length).freeze())
    }

    /// What was read and not used yet.
    pub fn buffered(&mut self) -> &mut BytesMut {
        &mut self.buf
    }

    /// Reads on; 0 at the end of the stream. May be dropped and called again.
    pub async fn more(&mut self) -> Result<usize, Fault> {
        self.fill().await
    }

    /// Returns when the other side ends an idle connection, or sends what nobody asked for.
    pub async fn ended(&mut self) -> Fault {
        match self.fill().await {
            Ok(0) => Fault::Eof,
            Ok(_) => Fault::Garbage(format!(
                "unasked bytes: {:?}",
                String::from_utf8_lossy(&self.buf)
            )),
            Err(fault) => fault,
        }
    }

    /// Reads until the end of the stream, however it ends.
    pub async fn drain(&mut self) -> (Bytes, Fault) {
        let mut all = self.buf.split();
        loop {
            match self.fill().await {
                Ok(0) => return (all.freeze(), Fault::Eof),
                Ok(_) => all.unsplit(self.buf.split()),
                Err(fault) => return (all.freeze(), fault),
            }
        }
    }

    /// The stream, and what was read of it too far.
    pub fn into_inner(self) -> (Box<dyn Io>, Bytes) {
        (self.io, self.buf.freeze())
    }

    /// Reads one line, without its end.
    pub async fn line(&mut self) -> Result<String, Fault> {
        loop {
            if let Some(end) = find(&self.buf, b"\r\n") {
                let line = self.buf.split_to(end + 2);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.fill().await? == 0 {
                return Err(Fault::Truncated);
            }
        }
    }

    async fn exactly(&mut self, length: u64, sink: &mut impl FnMut(&[u8])) -> Result<(), Fault> {
        let mut left = length;
        while left > 0 {
            if self.buf.is_empty() && self.fill().await? == 0 {
                return Err(Fault::Truncated);
            }
            let now = self
                .buf
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            sink(&self.buf[..now]);
            self.buf.advance(now);
            left -= now as u64;
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<usize, Fault> {
        const PIECE: usize = 64 * 1024;
        self.buf.reserve(PIECE);
        Ok(self.io.read_buf(&mut self.buf).await?)
    }
}

/// An end inside an answer is a truncation, whatever the answer was missing.
fn inside(fault: Fault) -> Fault {
    if fault == Fault::Eof {
        Fault::Truncated
    } else {
        fault
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack
        .windows(needle.len())
        .position(|window| window == needle)
}

/// `GET path` on a connection of its own.
pub async fn get(target: &Target, path: &str) -> Result<Response, Fault> {
    request(
        target,
        &format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"),
    )
    .await
}

/// One request, written as it is, on a connection of its own.
pub async fn request(target: &Target, text: &str) -> Result<Response, Fault> {
    within(super::wait::DEADLINE, async {
        Conn::open(target).await?.exchange(text).await
    })
    .await
}

/// Limits an exchange in time.
pub async fn within<T>(
    limit: Duration,
    exchange: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    tokio::time::timeout(limit, exchange)
        .await
        .unwrap_or(Err(Fault::Timeout))
}

/// Runs a future on a runtime of this thread, for tests that are otherwise not asynchronous.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}
