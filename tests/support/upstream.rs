//! An upstream made by the test, on a thread of its own, so that a test that waits does not stop
//! it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use bytes::Bytes;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::client::{Conn, Fault, Head};

/// Serves every connection with one function until dropped.
pub struct Upstream {
    addr: SocketAddr,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Upstream {
    /// Listens on a port of its own; `serve` gets each connection.
    pub fn serve<F, R>(serve: F) -> Self
    where
        F: Fn(Conn) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::serve_raw(move |stream| serve(Conn::over(stream)))
    }

    /// The same with the bare stream, for what only a socket can do, as a reset.
    pub fn serve_raw<F, R>(serve: F) -> Self
    where
        F: Fn(TcpStream) -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let token = stop.clone();
        let thread = std::thread::spawn(move || {
            super::client::block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        () = token.cancelled() => return,
                    };
                    let (stream, _) = accepted.unwrap();
                    stream.set_nodelay(true).unwrap();
                    // Ends with the runtime, like everything else here.
                    drop(tokio::spawn(serve(stream)));
                }
            });
        });
        Self {
            addr,
            stop,
            thread: Some(thread),
        }
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A request as it came to an upstream.
#[derive(Clone, Debug)]
pub struct Received {
    /// Request line and headers.
    pub head: Head,
    /// The body, without its framing.
    pub body: Bytes,
    /// What came after the last chunk.
    pub trailers: Vec<(String, String)>,
}

impl Received {
    /// The path and query as sent.
    pub fn target(&self) -> &str {
        self.head.first.split(' ').nth(1).unwrap_or_default()
    }
}

/// An upstream that remembers whole requests and answers each with bytes of the test's choice.
pub struct Recorder {
    seen: Arc<Mutex<Vec<Received>>>,
    upstream: Upstream,
}

impl Recorder {
    /// Answers with the bytes that `answer` makes of a request; after an empty answer, or one that
    /// says `connection: close`, the connection is closed.
    pub fn answering(answer: impl Fn(&Received) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (ours, answer) = (Arc::clone(&seen), Arc::new(answer));
        let upstream = Upstream::serve(move |mut conn| {
            let (seen, answer) = (Arc::clone(&ours), Arc::clone(&answer));
            async move {
                while let Ok(received) = receive(&mut conn).await {
                    let bytes = answer(&received);
                    seen.lock().unwrap().push(received);
                    let closes = bytes.is_empty()
                        || String::from_utf8_lossy(&bytes)
                            .to_ascii_lowercase()
                            .contains("connection: close");
                    if conn.send(&bytes).await.is_err() || closes {
                        return;
                    }
                }
            }
        });
        Self { seen, upstream }
    }

    /// Answers everything with 200 and `ok`.
    pub fn ok() -> Self {
        Self::answering(|_| b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n".to_vec())
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.upstream.addr()
    }

    /// What came so far.
    pub fn seen(&self) -> Vec<Received> {
        self.seen.lock().unwrap().clone()
    }

    /// The only request that came.
    pub fn only(&self) -> Received {
        let seen = self.seen();
        assert_eq!(seen.len(), 1, "{seen:#?}");
        seen.into_iter().next().unwrap()
    }
}

/// Reads one whole request.
pub async fn receive(conn: &mut Conn) -> Result<Received, Fault> {
    let head = conn.head().await?;
    let (body, trailers) = conn.body(head.framing(false)).await?;
    Ok(Received {
        head,
        body,
        trailers,
    })
}
