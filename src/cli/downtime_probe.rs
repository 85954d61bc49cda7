//! What a client sees during a restart: a new connection to the front door every 25 ms, less often during
//! an outage.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::bench::http;
use crate::bench::probe::{ProbeAnswer, Probing};
use crate::config::Listen;
use crate::control::protocol::{SidecarStateName, Status};
use crate::text::absent;
use crate::text::human::{count, span};

/// Short enough to see an outage of a few milliseconds in a handful of restarts, long enough to
/// cost a busy gateway nothing.
const EVERY: Duration = Duration::from_millis(25);

/// During an outage, so much of its length passes between two probes: its end is known to a twentieth.
/// Whoever is probed does not answer meanwhile, and has all these connections to accept afterwards,
/// before those of clients.
const OF_OUTAGE: u32 = 20;

/// How long the first probe may take; a front door that is slower is not probed.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// A request without an answer for this long is one that a person notices.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What is asked for.
const PATH: &str = "/healthz";

/// What a probe of the front door saw, every 25 ms and less often during an outage.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Downtime {
    /// Where it looked.
    pub address: String,
    /// Requests sent.
    pub sent: u64,
    /// Requests refused, reset, timed out or answered wrongly.
    pub failed: u64,
    /// Milliseconds in which requests that were sent failed: from the first failed one to the next
    /// good one.
    pub downtime_ms: u64,
    /// The slowest good answer, in milliseconds.
    pub slowest_ms: u64,
    /// How often each failure came.
    pub failures: BTreeMap<String, u64>,
    /// The sidecars that were down when it began. The front door answers the probe itself, so it says
    /// nothing of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub down_before: Vec<String>,
    /// How long new requests had to wait while a sidecar was replaced, in milliseconds.
    #[serde(skip_serializing_if = "absent::zero")]
    pub held_ms: u64,
}

impl Downtime {
    /// One sentence for people.
    pub fn sentence(&self) -> String {
        let (probes, slowest) = (count(self.sent, "probe"), self.slowest_ms);
        let saw = if self.failed == 0 {
            format!("{probes}, none failed, slowest answer {slowest} ms")
        } else {
            let failures = self.failures.iter();
            let failures = failures.map(|(what, times)| format!("{times} {what}"));
            let failures = failures.collect::<Vec<_>>().join(", ");
            format!("{} of {probes} failed ({failures})", self.failed)
        };
        let downtime = format!("downtime {} ms", self.downtime_ms);
        match (&self.down_before[..], self.held_ms) {
            ([], 0) => format!("{downtime}: {saw}"),
            ([], held) => format!(
                "{downtime}, new requests waited up to {}: {saw}",
                span(held)
            ),
            (down, _) => format!(
                "{} did not serve before, so no downtime is counted; the front door answered: {saw}",
                down.join(" and ")
            ),
        }
    }
}

/// A probe at work.
#[derive(Debug)]
pub struct DowntimeProbe {
    down_before: Vec<String>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Downtime>,
}

impl DowntimeProbe {
    /// Starts probing `/healthz` of a gateway's first listener; none when that does not answer now,
    /// because failures would say nothing then.
    ///
    /// The first answer counts as the good one: with `health_paths = false` the application answers,
    /// perhaps with 404.
    pub async fn start(status: &Status) -> Option<Self> {
        let listen = reachable(status.listeners.first()?.parse().ok()?);
        let good = timeout(START_TIMEOUT, http::ask(&listen, PATH))
            .await
            .ok()?
            .ok()?;
        if good >= 500 {
            return None;
        }
        let (stop, stopped) = oneshot::channel();
        Some(Self {
            down_before: not_serving(status),
            stop,
            task: tokio::spawn(run(listen, good, stopped)),
        })
    }

    /// Waits for the requests under way and returns what was seen.
    pub async fn finish(self) -> Downtime {
        drop(self.stop);
        let seen = self.task.await.unwrap_or_default();
        Downtime {
            down_before: self.down_before,
            ..seen
        }
    }
}

/// The sidecars that are not ready.
pub fn not_serving(status: &Status) -> Vec<String> {
    let sidecars = status.sidecars.iter();
    let down = sidecars.filter(|sidecar| sidecar.state != SidecarStateName::Ready);
    down.map(|sidecar| sidecar.name.clone()).collect()
}

async fn run(listen: Listen, good: u16, stopped: oneshot::Receiver<()>) -> Downtime {
    let mut tally = Tally::default();
    tally.seen.address = listen.to_string();
    let probing = Probing {
        listen,
        path: PATH.into(),
        timeout: TIMEOUT,
        pause,
    };
    // Its sender is dropped at the end.
    let stop = async { drop(stopped.await) };
    probing.run(stop, |probe| tally.add(&probe, good)).await;
    tally.finish(Instant::now())
}

/// The time to the next probe, where nothing was answered for so long.
fn pause(outage: Duration) -> Duration {
    EVERY.max(outage / OF_OUTAGE)
}

#[derive(Default)]
struct Tally {
    seen: Downtime,
    down_since: Option<Instant>,
}

impl Tally {
    /// Counts a probe, and says whether it was good.
    fn add(&mut self, probe: &ProbeAnswer, good: u16) -> bool {
        self.seen.sent += 1;
        let failure = match &probe.answer {
            Ok(status) if *status == good => None,
            Ok(status) => Some(format!("status {status}")),
            Err(lost) => Some(lost.to_string()),
        };
        let is_good = failure.is_none();
        match failure {
            Some(failure) => {
                self.seen.failed += 1;
                *self.seen.failures.entry(failure).or_default() += 1;
                self.down_since.get_or_insert(probe.sent);
            }
            None => {
                let took = probe.ended.saturating_duration_since(probe.sent);
                self.seen.slowest_ms = self.seen.slowest_ms.max(took.as_millis() as u64);
                self.up_at(probe.sent);
            }
        }
        is_good
    }

    fn up_at(&mut self, at: Instant) {
        if let Some(since) = self.down_since.take() {
            self.seen.downtime_ms += at.saturating_duration_since(since).as_millis() as u64;
        }
    }

    fn finish(mut self, now: Instant) -> Downtime {
        self.up_at(now);
        self.seen
    }
}

/// A wildcard is where a server listens, not where a client goes.
fn reachable(mut listen: Listen) -> Listen {
    if let Listen::Tcp(addr) = &mut listen
        && addr.ip().is_unspecified()
    {
        addr.set_ip(if addr.is_ipv4() {
            Ipv4Addr::LOCALHOST.into()
        } else {
            Ipv6Addr::LOCALHOST.into()
        });
    }
    listen
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::bench::http::Lost;
    use crate::control::fake_gateway;

    #[test]
    fn downtime_is_counted_from_the_first_failed_probe_to_the_next_good_one() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut tally = Tally::default();
        for (sent, ended, answer) in [
            (0, 2, Ok(200)),
            (25, 26, Err(Lost::Refused)),
            (50, 51, Err(Lost::Refused)),
            (75, 85, Ok(200)),
            (100, 101, Err(Lost::Reset)),
        ] {
            let probe = ProbeAnswer {
                sent: at(sent),
                ended: at(ended),
                answer,
            };
            tally.add(&probe, 200);
        }
        let seen = tally.finish(at(110));
        assert_eq!(
            (seen.sent, seen.failed, seen.downtime_ms, seen.slowest_ms),
            (5, 3, 60, 10)
        );
        assert_eq!(
            seen.sentence(),
            "downtime 60 ms: 3 of 5 probes failed (2 refused, 1 reset)"
        );
        let held = Downtime {
            held_ms: 1250,
            ..seen.clone()
        };
        assert_eq!(
            held.sentence(),
            "downtime 60 ms, new requests waited up to 1.2 s: 3 of 5 probes failed (2 refused, 1 reset)"
        );
        let down = Downtime {
            down_before: vec!["main".into()],
            ..seen
        };
        assert!(
            down.sentence()
                .starts_with("main did not serve before, so no downtime is counted;"),
            "{}",
            down.sentence()
        );
    }

    #[test]
    fn a_long_outage_is_not_a_flood_of_probes() {
        let after = |since: &Duration| Some(*since + pause(*since));
        let probes = std::iter::successors(Some(Duration::ZERO), after);
        let within = |outage: Duration| {
            let probes = probes.clone();
            probes.take_while(|since| *since < outage).count()
        };
        assert_eq!(within(Duration::from_millis(500)), 20);
        assert!(within(Duration::from_secs(30)) < 120);
    }

    /// A gateway whose front door answers `answer` to every connection until it is aborted.
    async fn server(answer: &'static str) -> (Status, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let status = Status {
            listeners: vec![listener.local_addr().unwrap().to_string()],
            ..fake_gateway::status()
        };
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = [0; 512];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        (status, task)
    }

    #[tokio::test]
    async fn a_server_that_goes_away_is_seen() {
        let (status, task) =
            server("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
        let probe = DowntimeProbe::start(&status).await.unwrap();
        tokio::time::sleep(Duration::from_millis(80)).await;
        task.abort();
        let _ = task.await;
        tokio::time::sleep(Duration::from_millis(80)).await;
        let seen = probe.finish().await;
        assert!(
            seen.sent > seen.failed
                && seen.failures.contains_key("refused")
                && seen.downtime_ms > 0,
            "{seen:?}"
        );
    }

    #[tokio::test]
    async fn a_server_that_does_not_answer_is_not_probed() {
        let (status, task) = server("HTTP/1.1 503 No\r\nConnection: close\r\n\r\n").await;
        assert!(DowntimeProbe::start(&status).await.is_none());
        task.abort();
        let _ = task.await;
        assert!(DowntimeProbe::start(&status).await.is_none());
        let (status, _task) = server("HTTP/1.1 404 Not Found\r\nConnection: close\r\n\r\n").await;
        let probe = DowntimeProbe::start(&status).await.unwrap();
        let failed = probe.finish().await.failed;
        assert_eq!(failed, 0, "the application's own 404 is an answer");
    }

    #[test]
    fn wildcards_are_reached_over_loopback() {
        for (listen, reached) in [
            ("0.0.0.0:1", "127.0.0.1:1"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:1", "10.0.0.1:1"),
            ("unix:/x", "unix:/x"),
        ] {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), reached);
        }
    }
}
