//! The one request that a sidecar answers before it gets any other: HEAD / on a connection of its
//! own. Whoever answers it with any status serves; whoever does not speak HTTP/1 shows that.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::proxy::{HTTP2_FRAME_HEAD, OtherProtocol};

/// A status line up to its status: "HTTP/1.1 200".
const STATUS_LINE: usize = 12;

/// How much is read of an answer to find its status: interim answers (1xx) may come before it.
const HEAD_MAX: usize = 16 * 1024;

/// How long the rest of an answer is read, so that the server can finish it: a connection that is
/// closed with unread data is reset, which some servers log as an error.
const REST: Duration = Duration::from_secs(2);

/// What came of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstAnswer {
    /// Any status.
    Http(u16),
    Other(OtherProtocol),
    /// The connection was closed before anything came.
    Closed,
}

/// Sends the request and waits for its answer, however long that takes. `host` is the address that
/// the server listens at.
pub async fn first_answer(mut stream: TcpStream, host: SocketAddr) -> FirstAnswer {
    let request = format!(
        "HEAD / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: gateway-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    // One that speaks first, or refuses to listen, says more by what it sends than by this error.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    loop {
        match read_answer(&answer) {
            Some(known) => {
                tokio::spawn(read_rest(stream));
                return known;
            }
            None if answer.len() >= HEAD_MAX => {
                return FirstAnswer::Other(OtherProtocol::of(&answer));
            }
            None => {}
        }
        match stream.read_buf(&mut answer).await {
            Ok(0) | Err(_) if answer.is_empty() => return FirstAnswer::Closed,
            Ok(0) | Err(_) => return FirstAnswer::Other(OtherProtocol::of(&answer)),
            Ok(_) => {}
        }
    }
}

/// What the beginning of an answer says; none while more is needed.
fn read_answer(mut bytes: &[u8]) -> Option<FirstAnswer> {
    const HTTP1: &[u8] = b"HTTP/1.";
    loop {
        let seen = bytes.len().min(HTTP1.len());
        if bytes[..seen] != HTTP1[..seen] {
            // A frame of HTTP/2 is known by its whole head.
            let more = bytes[0] == 0 && bytes.len() < HTTP2_FRAME_HEAD;
            return (!more).then(|| FirstAnswer::Other(OtherProtocol::of(bytes)));
        }
        let status = bytes.get(9..STATUS_LINE)?;
        let status = std::str::from_utf8(status).ok()?.parse().ok();
        match status {
            None => return Some(FirstAnswer::Other(OtherProtocol::of(bytes))),
            Some(100..=199) => {
                let end = memchr::memmem::find(bytes, b"\r\n\r\n")?;
                bytes = &bytes[end + 4..];
            }
            Some(status) => return Some(FirstAnswer::Http(status)),
        }
    }
}

/// Reads until the server has finished, within reason.
async fn read_rest(mut stream: TcpStream) {
    let mut nowhere = tokio::io::sink();
    let all = tokio::io::copy(&mut stream, &mut nowhere);
    // Whatever comes of it, the server has answered.
    let _ = tokio::time::timeout(REST, all).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// What comes of a server that sends these pieces and closes.
    async fn of(pieces: &'static [&'static [u8]]) -> FirstAnswer {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            let mut request = vec![0; 4096];
            let _ = stream.read(&mut request).await;
            for piece in pieces {
                stream.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let stream = TcpStream::connect(address).await.unwrap();
        let answer = first_answer(stream, address).await;
        server.await.unwrap();
        answer
    }

    #[tokio::test]
    async fn any_status_counts_and_interim_ones_are_passed_over() {
        assert_eq!(
            of(&[b"HTTP/1.1 2", b"00 OK\r\n\r\n"]).await,
            FirstAnswer::Http(200)
        );
        assert_eq!(
            of(&[b"HTTP/1.0 501 No\r\n\r\n"]).await,
            FirstAnswer::Http(501)
        );
        const EARLY: &[&[u8]] = &[
            b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n",
            b"\r\nHTTP/1.1 404 ",
        ];
        assert_eq!(of(EARLY).await, FirstAnswer::Http(404));
    }

    #[tokio::test]
    async fn what_is_not_http_is_named() {
        let said = |text: &str| FirstAnswer::Other(OtherProtocol::Said(text.into()));
        assert_eq!(of(&[b"-ERR unknown\r\n"]).await, said("-ERR unknown"));
        assert_eq!(of(&[b"HTTP/1.1 okay!"]).await, said("HTTP/1.1 okay!"));
        assert_eq!(of(&[b"\x1b[2J"]).await, said("\\x1b[2J"));
        assert_eq!(of(&[]).await, FirstAnswer::Closed);
        let http2 = FirstAnswer::Other(OtherProtocol::Http2);
        assert_eq!(of(&[b"\0\0", b"\x06\x04\0\0\0\0\0"]).await, http2);
        let tls = FirstAnswer::Other(OtherProtocol::Tls);
        assert_eq!(of(&[b"\x15\x03\x01\0\x02\x02\x46"]).await, tls);
    }
}
