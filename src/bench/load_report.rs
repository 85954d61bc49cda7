//! What an open-loop load saw.

use std::time::Duration;

use hdrhistogram::Histogram;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::http::Lost;
use super::stats::thousandths;

const GOOD: u16 = 200;

/// What clients saw of a whole sample.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadReport {
    pub length_ms: f64,
    /// The rate of each part.
    pub per_second: u32,
    /// A new connection for each request.
    pub new: LoadPart,
    /// Requests on kept connections; null without any.
    pub kept: Option<LoadPart>,
}

/// The requests of one kind. Latencies are those of good answers, from when the request was due; null
/// without any.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadPart {
    /// How many were due.
    pub sent: u64,
    /// Those that have no whole answer with status 200; each stands in one of the next fields.
    pub failed: u64,
    /// Nobody listened.
    pub refused: u64,
    /// The connection was reset.
    pub reset: u64,
    /// The connection was closed before the answer.
    pub cut: u64,
    /// The connection was closed in the middle of the answer.
    pub truncated: u64,
    /// No answer 5 s after it was due.
    pub timed_out: u64,
    /// A whole answer with another status.
    pub non_200: u64,
    /// Anything else.
    pub other: u64,
    /// Kept connections that the server closed between two requests: no request was lost.
    pub closed_idle: u64,
    pub p50_ms: Option<f64>,
    pub p90_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    /// The 99.9th percentile.
    pub p999_ms: Option<f64>,
    pub max_ms: Option<f64>,
    /// The longest time without a good answer.
    pub longest_gap_ms: f64,
    /// How late the load itself was at most: so much of a latency may be its own.
    pub late_ms: f64,
}

/// Counts the requests of one kind.
#[derive(Debug)]
pub struct LoadTally {
    part: LoadPart,
    /// In microseconds; none when there is no memory for it.
    latency: Option<Histogram<u64>>,
    last_good: Instant,
    longest_gap: Duration,
    late: Duration,
}

impl LoadTally {
    pub fn new(began: Instant) -> Self {
        Self {
            part: LoadPart::default(),
            // Three digits over the whole range; it grows as needed.
            latency: Histogram::new(3).ok(),
            last_good: began,
            longest_gap: Duration::ZERO,
            late: Duration::ZERO,
        }
    }

    /// A request begins now, which could have begun at `due`.
    pub fn begins(&mut self, due: Instant) {
        self.part.sent += 1;
        self.late = self.late.max(due.elapsed());
    }

    /// A whole answer came now to a request that was due at `due`.
    pub fn answered(&mut self, due: Instant, status: u16) {
        if status != GOOD {
            self.part.failed += 1;
            self.part.non_200 += 1;
            return;
        }
        let now = Instant::now();
        self.quiet_until(now);
        self.last_good = now;
        let micros = u64::try_from((now - due).as_micros()).unwrap_or(u64::MAX);
        if let Some(latency) = &mut self.latency {
            // It grows; what would be too long for it has timed out.
            let _ = latency.record(micros);
        }
    }

    pub fn lost(&mut self, lost: &Lost) {
        let part = &mut self.part;
        part.failed += 1;
        *match lost {
            Lost::Refused => &mut part.refused,
            Lost::Reset => &mut part.reset,
            Lost::Cut => &mut part.cut,
            Lost::Truncated => &mut part.truncated,
            Lost::TimedOut => &mut part.timed_out,
            Lost::NotHttp | Lost::Other(_) => &mut part.other,
        } += 1;
    }

    /// A kept connection was closed while nothing was asked on it.
    pub fn closed_idle(&mut self) {
        self.part.closed_idle += 1;
    }

    fn quiet_until(&mut self, now: Instant) {
        let gap = now.saturating_duration_since(self.last_good);
        self.longest_gap = self.longest_gap.max(gap);
    }

    /// What was seen by the end.
    pub fn report(&mut self, end: Instant) -> LoadPart {
        self.quiet_until(end);
        let ms = |length: Duration| thousandths(length.as_secs_f64() * 1000.0);
        let some = self.latency.as_ref().filter(|latency| !latency.is_empty());
        let at = |quantile| {
            some.map(|latency| thousandths(latency.value_at_quantile(quantile) as f64 / 1000.0))
        };
        LoadPart {
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: at(1.0),
            longest_gap_ms: ms(self.longest_gap),
            late_ms: ms(self.late),
            ..self.part.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_loss_stands_in_one_field() {
        let began = Instant::now();
        let mut tally = LoadTally::new(began);
        for lost in [
            Lost::Refused,
            Lost::Reset,
            Lost::Reset,
            Lost::Cut,
            Lost::Truncated,
            Lost::TimedOut,
            Lost::NotHttp,
        ] {
            tally.begins(began);
            tally.lost(&lost);
        }
        tally.begins(began);
        tally.answered(began, 502);
        tally.begins(began);
        tally.answered(began, 200);
        let part = tally.report(began + Duration::from_secs(3));
        assert_eq!((part.sent, part.failed), (9, 8));
        let kinds = [part.refused, part.reset, part.cut, part.truncated];
        assert_eq!(kinds, [1, 2, 1, 1]);
        assert_eq!([part.timed_out, part.non_200, part.other], [1, 1, 1]);
        // To the end, where it was the longest.
        assert!((2500.0..=3000.0).contains(&part.longest_gap_ms), "{part:?}");
        assert!(part.p999_ms.is_some() && part.p50_ms == part.max_ms);
    }
}
