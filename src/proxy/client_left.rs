//! Notices a client that leaves while it waits for its answer.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use super::progress::ConnectionProgress;

/// How often to look where no event tells it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Waits until a client that waits for an answer, or for its rest, is gone: it has closed its
/// connection or, unless `half_close`, only its sending side, or the connection is reset. The kernel
/// tells no difference between the first two.
///
/// Polled after the connection in the same task. Between two requests hyper itself reads the end of
/// the connection.
pub async fn left(stream: &TcpStream, progress: &ConnectionProgress, half_close: bool) {
    read_closed(stream).await;
    if half_close {
        closed(stream).await;
    }
    poll_fn(|_| match progress.answering() {
        true => Poll::Ready(()),
        false => Poll::Pending,
    })
    .await;
}

/// Waits until the client has closed its sending side, whether or not all that it sent was read.
#[cfg(target_os = "linux")]
async fn read_closed(stream: &TcpStream) {
    // No priority data is asked for: this waits for EPOLLRDHUP alone. An error means that the runtime
    // ends.
    drop(stream.ready(Interest::PRIORITY).await);
}

/// Waits until the client has closed its sending side.
#[cfg(not(target_os = "linux"))]
async fn read_closed(stream: &TcpStream) {
    // What was not read yet is told by the same event.
    while let Ok(ready) = stream.ready(Interest::READABLE).await
        && !ready.is_read_closed()
    {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Waits until both directions are closed: by a reset, or at the other end of a unix socket.
async fn closed(stream: &TcpStream) {
    while let Ok(ready) = stream.ready(Interest::WRITABLE).await
        && !ready.is_write_closed()
    {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
