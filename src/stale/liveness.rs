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
use crate::os::port;

/// A status and `/healthz` need no work.
const PROBE: Duration = Duration::from_secs(1);

/// So many questions in a row without an answer tell one that hangs: a busy machine may delay one.
pub const PROBES: u32 = 3;

/// What gateway `pid` says of itself in at most `questions` of [`PROBE`] each, at its control
/// socket or, at one of `doors` that lead to nobody else, with any answer at all; none when it
/// answered nothing.
pub async fn answers(pid: u32, doors: &[Listen], questions: u32) -> Option<SelfReport> {
    for _ in 0..questions {
        let next = Instant::now() + PROBE;
        // Looked for each time: a successor opens its own when it takes over.
        let controls = controls_of(pid);
        // Both, for what it says of itself tells more than an open door.
        let (told, opened) = tokio::join!(
            timeout(PROBE, by_control(pid, &controls)),
            timeout(PROBE, by_doors(doors))
        );
        if let Ok(Some(who)) = told {
            return Some(who);
        }
        if opened.unwrap_or(false) {
            return Some(SelfReport {
                pid,
                ..SelfReport::default()
            });
        }
        sleep_until(next).await;
    }
    None
}

/// The control sockets that a process listens at, each by every name that it may have now.
fn controls_of(pid: u32) -> Vec<PathBuf> {
    let folder = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let held = port::sockets_of(pid).unwrap_or_default();
    let path = |listen: Listen| match listen {
        Listen::Unix(path) => Some(path),
        Listen::Tcp(_) => None,
    };
    let found = port::unix()
        .unwrap_or_default()
        .into_iter()
        .filter(|socket| held.contains(&socket.inode));
    found
        .filter_map(|socket| path(socket.listen))
        .flat_map(|bound| server::names(&folder.join(bound)))
        .collect()
}

async fn by_control(pid: u32, controls: &[PathBuf]) -> Option<SelfReport> {
    for control in controls {
        let told = asked(control).await;
        // Its own socket has the successor's name by now: that one knows who still finishes work.
        if let Some(who) = told
            .filter(|who| who.pid == pid || who.drainers.iter().any(|drainer| drainer.pid == pid))
        {
            return Some(who);
        }
    }
    None
}

/// All that counts of a status: a gateway of another version may have left out the rest, or named
/// it otherwise.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct SelfReport {
    pub pid: u32,
    #[serde(default)]
    pub instance: Option<String>,
    /// Its predecessors that still finish their work.
    #[serde(default)]
    pub drainers: Vec<ReportedDrainer>,
}

/// A predecessor in a status.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct ReportedDrainer {
    /// Its process; 0 for work within the process itself.
    #[serde(default)]
    pub pid: u32,
}

async fn asked(control: &Path) -> Option<SelfReport> {
    Client::connect(control)
        .await
        .ok()?
        .call(&Method::Status, |_| ())
        .await
        .ok()
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

/// Whether there is somebody who speaks HTTP. With `health_paths = false` the answer is the
/// application's, and may be any.
async fn speaks(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let mut begin = [0_u8; 5];
    let asked = stream
        .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
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
        let (answered, ()) = tokio::join!(answers(me, &door, PROBES), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\n\r\n")
                .await
                .unwrap();
        });
        assert!(answered.is_some());
        let begun = Instant::now();
        // Connections wait in the queue; nobody takes them.
        assert!(answers(me, &door, PROBES).await.is_none());
        assert!(begun.elapsed() >= PROBE * PROBES);
    }
}
