//! A client that says exactly what became of a request, and tries nothing again.

use std::error::Error as _;
use std::fmt;
use std::io;

use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinHandle;

use crate::config::Listen;

/// Why a request has no whole answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lost {
    /// Nobody listens.
    Refused,
    /// The connection was reset.
    Reset,
    /// It was closed before the answer began.
    Cut,
    /// It was closed in the middle of the answer.
    Truncated,
    /// There was no answer in time.
    TimedOut,
    /// The answer is not HTTP.
    NotHttp,
    /// Another error of the connection.
    Other(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Cut => "cut",
            Self::Truncated => "truncated",
            Self::TimedOut => "timed out",
            Self::NotHttp => "not HTTP",
            Self::Other(error) => error,
        })
    }
}

impl Lost {
    fn of_io(error: &io::Error) -> Self {
        use io::ErrorKind as Kind;
        match error.kind() {
            Kind::ConnectionRefused | Kind::NotFound => Self::Refused,
            Kind::ConnectionReset | Kind::BrokenPipe | Kind::ConnectionAborted => Self::Reset,
            Kind::TimedOut => Self::TimedOut,
            _ => Self::Other(error.to_string()),
        }
    }

    /// `cut` is what it is called when the other side just closed.
    fn of_hyper(error: &hyper::Error, cut: Self) -> Self {
        let io = error
            .source()
            .and_then(|source| source.downcast_ref::<io::Error>());
        match io {
            Some(error) if error.kind() == io::ErrorKind::UnexpectedEof => cut,
            Some(error) => Self::of_io(error),
            None if error.is_parse() => Self::NotHttp,
            // It was closed, noticed before or after the request was written.
            None if error.is_incomplete_message() || error.is_canceled() || error.is_closed() => {
                cut
            }
            None => Self::Other(error.to_string()),
        }
    }
}

/// A whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WholeAnswer {
    pub status: u16,
    /// Whether the server keeps the connection.
    pub keeps: bool,
}

/// A connection of a client.
#[derive(Debug)]
pub struct ClientConnection {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl ClientConnection {
    /// # Errors
    /// What became of the attempt.
    pub async fn open(to: &Listen) -> Result<Self, Lost> {
        let failed = |error: io::Error| Lost::of_io(&error);
        match to {
            Listen::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(failed)?;
                // An option that fails leaves a connection that works.
                let _ = stream.set_nodelay(true);
                Self::over(stream).await
            }
            Listen::Unix(path) => {
                Self::over(UnixStream::connect(path).await.map_err(failed)?).await
            }
        }
    }

    async fn over(
        stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> Result<Self, Lost> {
        let made = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = made.map_err(|error| Lost::of_hyper(&error, Lost::Cut))?;
        // The request under way gets the error.
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender, driver })
    }

    /// Whether the other side has closed it, as far as it is known.
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// One request, to the last byte of its answer.
    ///
    /// # Errors
    /// What became of it.
    pub async fn get(&mut self, path: &str, keep: bool) -> Result<WholeAnswer, Lost> {
        let built = Request::get(path)
            .header(HOST, "localhost")
            .header(USER_AGENT, "gatewayctl")
            .header(CONNECTION, if keep { "keep-alive" } else { "close" })
            .body(Empty::new());
        let request = built.map_err(|error| Lost::Other(error.to_string()))?;
        let sent = self.sender.send_request(request).await;
        let answer = sent.map_err(|error| Lost::of_hyper(&error, Lost::Cut))?;
        let (head, body) = answer.into_parts();
        read_to_end(body).await?;
        let closes = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"close");
        Ok(WholeAnswer {
            status: head.status.as_u16(),
            keeps: keep
                && head.version == Version::HTTP_11
                && !head.headers.get_all(CONNECTION).iter().any(closes),
        })
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

async fn read_to_end(mut body: Incoming) -> Result<(), Lost> {
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| Lost::of_hyper(&error, Lost::Truncated))?;
    }
    Ok(())
}

/// The status that a path answers on a connection of its own.
///
/// # Errors
/// What became of the request.
pub async fn ask(to: &Listen, path: &str) -> Result<u16, Lost> {
    let mut connection = ClientConnection::open(to).await?;
    connection
        .get(path, false)
        .await
        .map(|answer| answer.status)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that says `answer` to each connection and then closes, or resets it.
    async fn server(answer: &'static str, reset: bool) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                if reset {
                    stream.set_zero_linger().unwrap();
                    let _ = stream.read_u8().await;
                    continue;
                }
                let mut head = [0; 512];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        address
    }

    #[tokio::test]
    async fn each_loss_has_its_name() {
        for (answer, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", Ok(200)),
            ("HTTP/1.1 503 No\r\n\r\nuntil the end", Ok(503)),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
                Err(Lost::Truncated),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
                Err(Lost::Truncated),
            ),
            ("HTTP/1.1 200 OK\r\nContent-Le", Err(Lost::Cut)),
            ("", Err(Lost::Cut)),
            ("SSH-2.0-x\r\n\r\n", Err(Lost::NotHttp)),
        ] {
            let to = Listen::Tcp(server(answer, false).await);
            assert_eq!(ask(&to, "/").await, expected, "{answer:?}");
        }
        let to = Listen::Tcp(server("", true).await);
        assert_eq!(ask(&to, "/").await, Err(Lost::Reset));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = Listen::Tcp(listener.local_addr().unwrap());
        drop(listener);
        assert_eq!(ask(&to, "/").await, Err(Lost::Refused));
        let gone = Listen::Unix("/nonexistent/socket".into());
        assert_eq!(ask(&gone, "/").await, Err(Lost::Refused));
    }
}
