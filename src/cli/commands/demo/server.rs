//! The server of the demo: it takes a second to start, and a little time for each answer.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use crate::cli::{CliError, Exit};

/// As a server that loads its code and opens its database: a client would see that as a gap.
const LOADS: Duration = Duration::from_secs(1);

/// As a server that does something: a restart finds requests under way.
const WORKS: Duration = Duration::from_millis(20);

/// The clients of the demo send less.
const HEAD_MAX: usize = 8 * 1024;

/// Serves until a signal ends this process.
///
/// # Errors
/// [`Exit::Failed`] when it cannot listen on the port.
pub async fn serve(port: u16) -> Result<Exit, CliError> {
    sleep(LOADS).await;
    let failed = |error: io::Error| Exit::Failed.error(format!("127.0.0.1:{port}: {error}"));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .await
        .map_err(failed)?;
    loop {
        let (stream, _) = listener.accept().await.map_err(failed)?;
        // A client that leaves is no failure.
        tokio::spawn(async move { drop(answer(stream).await) });
    }
}

/// Answers the requests of a connection, which have no body.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
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
        sleep(WORKS).await;
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
