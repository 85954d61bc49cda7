//! Whether a gateway is healthy: it is asked itself, several times, before anybody calls it stale.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::Listen;
use crate::control::client::Client;
use crate::control::protocol::Method;
use crate::control::server;
use crate::port;

/// A status and `/healthz` need no work.
const PROBE: Duration = Duration::from_secs(1);

/// So many questions in a row without an answer tell one that hangs: a busy machine may delay one.
const PROBES: u32 = 3;

/// Whether gateway `pid` answers in [`PROBES`] questions of [`PROBE`] each, at its control socket or, at one of `doors` that lead to
/// nobody else, with any answer at all.
pub async fn answers(pid: u32, doors: &[Listen]) -> bool {
    let controls = controls_of(pid);
    for _ in 0..PROBES {
        let next = Instant::now() + PROBE;
        let asked = async {
            tokio::select! {
                true = by_control(pid, &controls) => true,
                true = by_doors(doors) => true,
                else => false,
            }
        };
        if timeout(PROBE, asked).await.unwrap_or(false) {
            return true;
        }
        sleep_until(next).await;
    }
    false
}

/// The control sockets that a process listens at, each by every name that it may have now.
fn controls_of(pid: u32) -> Vec<PathBuf> {
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let held = port::sockets_of(pid).unwrap_or_default();
    let path = |listen: Listen| match listen {
        Listen::Unix(path) => Some(path),
        Listen::Tcp(_) => None,
    };
    let found = port::unix().unwrap_or_default().into_iter().filter(|socket| held.contains(&socket.inode));
    found.filter_map(|socket| path(socket.listen)).flat_map(|bound| server::names(&folder.join(bound))).collect()
}

async fn by_control(pid: u32, controls: &[PathBuf]) -> bool {
    for control in controls {
        if asked(control).await == Some(pid) {
            return true;
        }
    }
    false
}

/// All that counts of a status: a gateway of another version may have left out the rest, or named it otherwise.
#[derive(serde::Deserialize)]
struct Who {
    pid: u32,
}

async fn asked(control: &Path) -> Option<u32> {
    let who: Who = Client::connect(control).await.ok()?.call(&Method::Status, |_| ()).await.ok()?;
    Some(who.pid)
}

async fn by_doors(doors: &[Listen]) -> bool {
    for door in doors {
        let answered = match door {
            Listen::Tcp(address) => match TcpStream::connect(address).await {
                Ok(stream) => speaks(stream).await,
                Err(_) => false,
            },
            Listen::Unix(path) => match UnixStream::connect(path).await {
                Ok(stream) => speaks(stream).await,
                Err(_) => false,
            },
        };
        if answered {
            return true;
        }
    }
    false
}

/// Whether there is somebody who speaks HTTP. With `health_paths = false` the answer is the application's, and may be any.
async fn speaks(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let mut begin = [0_u8; 5];
    let asked = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    asked.is_ok() && stream.read_exact(&mut begin).await.is_ok() && begin == *b"HTTP/"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_control_socket_is_found_by_the_name_that_it_has_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let _listener = server::bind(&path).unwrap();
        let found = controls_of(std::process::id());
        assert!(found.contains(&path), "{found:?}");
    }

    #[tokio::test]
    async fn an_answer_counts_and_silence_takes_three_questions() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = [Listen::Tcp(listener.local_addr().unwrap())];
        let me = std::process::id();
        let (answered, ()) = tokio::join!(answers(me, &door), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
        });
        assert!(answered);
        let begun = Instant::now();
        // Connections wait in the queue; nobody takes them.
        assert!(!answers(me, &door).await);
        assert!(begun.elapsed() >= PROBE * PROBES);
    }
}
