//! A small server to stand behind a gateway: a second process of this program.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

/// The clients send less.
const HEAD_MAX: usize = 8 * 1024;

/// How fast it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct ServerPace {
    /// Until it listens.
    pub loads: Duration,
    /// For each answer.
    pub works: Duration,
}

/// Serves until a signal ends this process.
///
/// # Errors
/// When it cannot listen on the port.
pub async fn serve(port: u16, pace: ServerPace) -> io::Result<()> {
    sleep(pace.loads).await;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        // A client that leaves is no failure.
        tokio::spawn(async move { drop(answer(stream, pace.works).await) });
    }
}

/// Answers the requests of a connection, which have no body.
async fn answer(mut stream: TcpStream, works: Duration) -> io::Result<()> {
    let mut head = Vec::new();
    loop {
        let Some(end) = head.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            if head.len() > HEAD_MAX || stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let is_head = head.starts_with(b"HEAD ");
        head.drain(..end + 4);
        sleep(works).await;
        let body = format!("pid {}\n", std::process::id());
        let mut response = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if !is_head {
            response.push_str(&body);
        }
        stream.write_all(response.as_bytes()).await?;
    }
}
