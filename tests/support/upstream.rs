//! An upstream made by the test, on a thread of its own, so that a test that waits does not stop it.

use std::future::Future;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::client::Conn;

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
        Self { addr, stop, thread: Some(thread) }
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
