//! Whether a gateway is alive: it is asked several questions before it counts as hung.

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::control_sockets::ControlSockets;
use crate::config::Listen;
use crate::control::client::Client;
use crate::control::protocol::Method;

/// How long a question waits for its answer: a status and `/healthz` need no work.
const PROBE: Duration = Duration::from_secs(1);

/// How many questions without an answer mean that a gateway hangs: a busy machine, or one busy
/// thread of the gateway, may delay one.
const PROBES: u32 = 3;

/// How long all questions at once wait for an answer before a process is judged: a busy machine may
/// take more than a second.
pub const SURVEY: Duration = Duration::from_secs(2);

/// The same right before the end of a process that gave no answer.
pub const AGAIN: Duration = Duration::from_secs(1);

/// What a gateway says about itself: the part of a status that counts here. Everything else is left
/// out, because a gateway of another version may name it differently.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct SelfReport {
    pub pid: u32,
    #[serde(default)]
    pub instance: Option<String>,
    /// Predecessors that still finish their work.
    #[serde(default)]
    pub drainers: Vec<ReportedDrainer>,
}

/// A predecessor in a status.
#[derive(Clone, Debug, Default, serde::Deserialize)]
pub struct ReportedDrainer {
    /// 0 for work within the process that answers.
    #[serde(default)]
    pub pid: u32,
}

impl SelfReport {
    /// Whether it shows that a process, which has these pids, is alive: that process answered
    /// itself, or its successor answered and knows that it still finishes its work.
    fn speaks_for(&self, pids: &[u32]) -> bool {
        let drains = |drainer: &ReportedDrainer| pids.contains(&drainer.pid);
        pids.contains(&self.pid) || self.drainers.iter().any(drains)
    }
}

/// What came of asking a gateway.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// None when nothing answered.
    pub report: Option<SelfReport>,
    /// As [`ControlSockets::out_of_reach`].
    pub out_of_reach: bool,
}

/// Asks gateway `pid` [`PROBES`] questions at once, at its control socket and at `doors`, the
/// addresses that lead to no other program; there, any HTTP answer counts. There is no report when
/// nothing answers within `limit`. `known` are control sockets where it may answer, too.
pub async fn ask(pid: u32, doors: &[Listen], known: &[PathBuf], limit: Duration) -> Answer {
    let mut controls = ControlSockets::of(pid);
    controls.paths.extend_from_slice(known);
    let questions: FuturesUnordered<_> = (0..PROBES)
        .map(|_| ask_once(pid, doors, &controls, limit))
        .collect();
    Answer {
        report: questions.filter_map(std::future::ready).next().await,
        out_of_reach: controls.out_of_reach,
    }
}

async fn ask_once(
    pid: u32,
    doors: &[Listen],
    controls: &ControlSockets,
    limit: Duration,
) -> Option<SelfReport> {
    // Both at once: a report tells more than an open door.
    let (report, opened) = tokio::join!(
        timeout(limit, first_report(controls)),
        timeout(limit, any_answers(doors))
    );
    let by_door = opened.unwrap_or(false).then(|| SelfReport {
        pid,
        ..SelfReport::default()
    });
    report.unwrap_or_default().or(by_door)
}

/// Returns when gateway `pid` has left [`PROBES`] questions in a row unanswered at `control`.
pub async fn until_silent(pid: u32, control: &Path) {
    let mut unanswered = 0;
    while unanswered < PROBES {
        let next = Instant::now() + PROBE;
        let report = timeout(PROBE, report_of(control)).await.unwrap_or_default();
        unanswered = match report {
            Some(report) if report.speaks_for(&[pid]) => 0,
            _ => unanswered + 1,
        };
        sleep_until(next).await;
    }
}

/// The first report that speaks for a process. Its socket may have its successor's name by now, and
/// then the successor answers.
async fn first_report(controls: &ControlSockets) -> Option<SelfReport> {
    let asked: FuturesUnordered<_> = controls.paths.iter().map(|path| report_of(path)).collect();
    let reports = asked.filter_map(std::future::ready);
    let speaking = reports.filter(|report| std::future::ready(report.speaks_for(&controls.pids)));
    std::pin::pin!(speaking).next().await
}

async fn report_of(control: &Path) -> Option<SelfReport> {
    Client::connect(control)
        .await
        .ok()?
        .call(&Method::Status, |_| ())
        .await
        .ok()
}

/// Whether a door is answered. All are asked at once: one of a hung gateway takes the whole time.
async fn any_answers(doors: &[Listen]) -> bool {
    let asked: FuturesUnordered<_> = doors.iter().map(is_answered).collect();
    asked.any(std::future::ready).await
}

async fn is_answered(door: &Listen) -> bool {
    match door {
        Listen::Tcp(address) => match TcpStream::connect(address).await {
            Ok(stream) => speaks_http(stream).await,
            Err(_) => false,
        },
        Listen::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) => speaks_http(stream).await,
            Err(_) => false,
        },
    }
}

/// Whether the other side speaks HTTP. With `health_paths = false` the application answers, and the
/// answer may be any.
async fn speaks_http(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
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
    async fn an_answer_counts_and_so_does_silence_for_the_whole_time() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let door = [Listen::Tcp(listener.local_addr().unwrap())];
        let me = std::process::id();
        let (answered, ()) = tokio::join!(ask(me, &door, &[], SURVEY), async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream
                .write_all(b"HTTP/1.1 404 Not Found\r\n\r\n")
                .await
                .unwrap();
        });
        assert!(answered.report.is_some());
        let begun = Instant::now();
        // Connections wait in the queue; nobody takes them.
        assert!(ask(me, &door, &[], AGAIN).await.report.is_none());
        assert!(begun.elapsed() >= AGAIN);
    }
}
