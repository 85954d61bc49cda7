//! Probes: small requests at a steady pace, each on a connection of its own, whatever became of those
//! before; and what they saw of a restart.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::http::{self, Lost};
use super::stats::tenths;
use crate::config::Listen;

/// The pace of the probes of a benchmark: an outage is known to so much.
const EVERY: Duration = Duration::from_millis(25);

/// No answer for so long is an outage.
const TIMEOUT: Duration = Duration::from_millis(100);

const GOOD: u16 = 200;

/// One probe and how it ended.
#[derive(Debug)]
pub struct ProbeAnswer {
    pub sent: Instant,
    pub ended: Instant,
    pub answer: Result<u16, Lost>,
}

/// What is probed, and how.
#[derive(Clone, Debug)]
pub struct Probing {
    pub listen: Listen,
    pub path: Arc<str>,
    pub timeout: Duration,
    /// The time to the next probe, where nothing good was answered for so long.
    pub pause: fn(Duration) -> Duration,
}

impl Probing {
    /// Probes until `stop`, and tells each probe in the order in which they were sent; `tell` says
    /// whether it was good.
    pub async fn run(
        &self,
        stop: impl Future<Output = ()>,
        mut tell: impl FnMut(ProbeAnswer) -> bool,
    ) {
        let mut stop = std::pin::pin!(stop);
        let (mut under_way, mut sent) = (FuturesOrdered::new(), VecDeque::new());
        let (mut next, mut down_since) = (Instant::now(), None);
        let mut told = |probe: ProbeAnswer, down_since: &mut Option<Instant>| {
            let at = probe.sent;
            match tell(probe) {
                true => *down_since = None,
                false => drop(down_since.get_or_insert(at)),
            }
        };
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = sleep_until(next) => {
                    let now = Instant::now();
                    sent.push_back(now);
                    under_way.push_back(tokio::spawn(probe(self.clone())));
                    let outage = down_since.or(sent.front().copied());
                    next = now + (self.pause)(outage.map_or(Duration::ZERO, |since| now - since));
                }
                Some(done) = under_way.next() => {
                    sent.pop_front();
                    if let Ok(done) = done {
                        told(done, &mut down_since);
                    }
                }
            }
        }
        while let Some(done) = under_way.next().await {
            if let Ok(done) = done {
                told(done, &mut down_since);
            }
        }
    }
}

async fn probe(what: Probing) -> ProbeAnswer {
    let sent = Instant::now();
    let answer = timeout(what.timeout, http::ask(&what.listen, &what.path)).await;
    ProbeAnswer {
        sent,
        ended: Instant::now(),
        answer: answer.unwrap_or(Err(Lost::TimedOut)),
    }
}

/// What the answers changed to.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeTransition {
    /// When, in milliseconds since the request to restart.
    pub ms: f64,
    /// The status; null without an answer.
    pub status: Option<u16>,
    /// Why it was not good: `refused`, `reset`, `cut`, `truncated`, `timed out`, `http-503`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_kind: Option<String>,
}

/// What the probes of one path saw, in milliseconds since the request to restart, or since the start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProbeResult {
    /// How long it was away in all: from each first bad probe, when it was sent, to the next good
    /// answer. Null where no probe was bad.
    pub downtime_ms: Option<f64>,
    /// Why the first bad probe was bad.
    pub first_error_kind: Option<String>,
    /// The first good answer after a bad one.
    pub first_recovery_ms: Option<f64>,
    /// The good answer from which on all were good; where none was bad, the first to a probe that was
    /// sent when it had said that it is ready. Null where the last one was bad.
    pub ms: Option<f64>,
    /// The last status; null without an answer.
    pub status: Option<u16>,
    /// Each change of the answers, the first one included.
    pub transitions: Vec<ProbeTransition>,
    /// When the first bad probe was sent.
    pub unavailable_ms: Option<f64>,
}

/// Counts what the probes of one path see.
#[derive(Debug)]
struct ProbeTally {
    began: Instant,
    seen: ProbeResult,
    down_since: Option<Instant>,
}

impl ProbeTally {
    fn new(began: Instant) -> Self {
        Self {
            began,
            seen: ProbeResult::default(),
            down_since: None,
        }
    }

    fn ms(&self, at: Instant) -> f64 {
        tenths(at.saturating_duration_since(self.began).as_secs_f64() * 1000.0)
    }

    /// Counts a probe, and says whether it was good; `ready` is when the gateway said that it is.
    fn add(&mut self, probe: &ProbeAnswer, ready: Option<Instant>) -> bool {
        let (sent, ended) = (self.ms(probe.sent), self.ms(probe.ended));
        let status = probe.answer.as_ref().ok().copied();
        let error_kind = match &probe.answer {
            Ok(GOOD) => None,
            Ok(status) => Some(format!("http-{status}")),
            Err(lost) => Some(lost.to_string()),
        };
        let good = error_kind.is_none();
        let seen = &mut self.seen;
        let last = seen.transitions.last();
        if last.is_none_or(|last| last.status != status || last.error_kind != error_kind) {
            seen.transitions.push(ProbeTransition {
                ms: ended,
                status,
                error_kind: error_kind.clone(),
            });
        }
        seen.status = status;
        if !good {
            self.down_since.get_or_insert(probe.sent);
            seen.first_error_kind = seen.first_error_kind.take().or(error_kind);
            seen.unavailable_ms = seen.unavailable_ms.or(Some(sent));
            seen.ms = None;
        } else if let Some(since) = self.down_since.take() {
            let away = tenths(probe.ended.saturating_duration_since(since).as_secs_f64() * 1000.0);
            seen.downtime_ms = Some(tenths(seen.downtime_ms.unwrap_or(0.0) + away));
            seen.first_recovery_ms = seen.first_recovery_ms.or(Some(ended));
            seen.ms = Some(ended);
        } else if seen.ms.is_none() && ready.is_some_and(|ready| probe.sent >= ready) {
            seen.ms = Some(ended);
        }
        good
    }

    /// What was seen, when `now` nothing more comes.
    fn finish(mut self, now: Instant) -> ProbeResult {
        if let Some(since) = self.down_since.take() {
            let away = now.saturating_duration_since(since).as_secs_f64() * 1000.0;
            let before = self.seen.downtime_ms.unwrap_or(0.0);
            self.seen.downtime_ms = Some(tenths(before + away));
        }
        self.seen
    }
}

/// Probes a path until it has a good answer to a probe that was sent at `ready` or later, and `quiet` after that
/// and after the last bad probe; or until `stop`.
pub async fn until_back(
    listen: &Listen,
    path: &str,
    quiet: Duration,
    began: Instant,
    ready: watch::Receiver<Option<Instant>>,
    stop: CancellationToken,
) -> ProbeResult {
    let probing = Probing {
        listen: listen.clone(),
        path: path.into(),
        timeout: TIMEOUT,
        pause: |_| EVERY,
    };
    let (done, mut tally) = (CancellationToken::new(), ProbeTally::new(began));
    let mut last_bad = None;
    let end = async {
        tokio::select! {
            () = stop.cancelled() => {}
            () = done.cancelled() => {}
        }
    };
    let tell = |probe: ProbeAnswer| {
        let ready = *ready.borrow();
        let good = tally.add(&probe, ready);
        if !good {
            last_bad = last_bad.max(Some(probe.ended));
        } else if let Some(ready) = ready
            && probe.sent >= last_bad.unwrap_or(ready).max(ready) + quiet
        {
            done.cancel();
        }
        good
    };
    probing.run(end, tell).await;
    tally.finish(Instant::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(probes: &[(u64, u64, Result<u16, Lost>)], ready: Option<u64>, end: u64) -> ProbeResult {
        let began = Instant::now();
        let at = |ms| began + Duration::from_millis(ms);
        let mut tally = ProbeTally::new(began);
        for (sent, ended, answer) in probes {
            let (sent, ended) = (at(*sent), at(*ended));
            let ready = ready.map(at).filter(|ready| *ready <= ended);
            let answer = answer.clone();
            tally.add(
                &ProbeAnswer {
                    sent,
                    ended,
                    answer,
                },
                ready,
            );
        }
        tally.finish(at(end))
    }

    #[test]
    fn an_outage_after_the_first_recovery_is_counted() {
        let seen = seen(
            &[
                (0, 1, Ok(200)),
                (25, 125, Err(Lost::TimedOut)),
                (50, 130, Ok(200)),
                (150, 151, Err(Lost::Refused)),
                (5150, 5151, Err(Lost::Refused)),
                (5175, 5176, Ok(503)),
                (5200, 5202, Ok(200)),
                (5225, 5226, Ok(200)),
            ],
            Some(5190),
            5230,
        );
        let transitions: Vec<_> = (seen.transitions.iter())
            .map(|at| (at.ms, at.status, at.error_kind.as_deref()))
            .collect();
        let expected = [
            (1.0, Some(200), None),
            (125.0, None, Some("timed out")),
            (130.0, Some(200), None),
            (151.0, None, Some("refused")),
            (5176.0, Some(503), Some("http-503")),
            (5202.0, Some(200), None),
        ];
        assert_eq!(transitions, expected);
        assert_eq!(seen.downtime_ms, Some(105.0 + 5052.0));
        assert_eq!(seen.first_error_kind.as_deref(), Some("timed out"));
        assert_eq!(seen.unavailable_ms, Some(25.0));
        assert_eq!(seen.first_recovery_ms, Some(130.0));
        assert_eq!((seen.ms, seen.status), (Some(5202.0), Some(200)));
    }

    #[test]
    fn who_was_never_away_is_back_when_it_has_said_so() {
        let up = seen(
            &[(0, 1, Ok(200)), (25, 26, Ok(200)), (50, 51, Ok(200))],
            Some(30),
            60,
        );
        assert_eq!(
            (up.ms, up.downtime_ms, up.unavailable_ms),
            (Some(51.0), None, None)
        );
        let silent = seen(&[(0, 1, Ok(200))], None, 60);
        assert_eq!(silent.ms, None);
        let away = seen(&[(0, 1, Err(Lost::Reset))], None, 60);
        assert_eq!((away.ms, away.downtime_ms), (None, Some(60.0)));
    }
}
