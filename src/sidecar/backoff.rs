//! The deaths of a sidecar: how long to wait before it is started again, and when it is *failing*.

use std::time::{Duration, Instant};

/// The first delay; doubled with each death.
const FIRST: Duration = Duration::from_millis(200);

/// No delay is longer: what was mended is tried within two minutes by itself.
const LONGEST: Duration = Duration::from_secs(120);

/// A death counts with the one before when it is no later than this, whatever was served between
/// them: a server that eats the memory in a quarter of an hour dies like this for ever.
const TOGETHER: Duration = Duration::from_secs(30 * 60);

/// So many deaths are no accident: somebody must look.
const FAILING: u32 = 5;

/// A run that was ready for this long was a good one: the sidecar is no longer failing, and the next
/// start after it is not delayed.
pub const GOOD: Duration = Duration::from_secs(10 * 60);

/// After a first death, a run that was ready for at least this long is started again at once:
/// requests wait for it. (s6 asks the same: was it ever ready?)
const WAS_READY: Duration = Duration::from_secs(1);

/// What a death leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AfterDeath {
    /// The wait before the next start.
    pub delay: Duration,
    pub failing: BecameFailing,
}

/// Whether a death made a sidecar failing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BecameFailing {
    /// It is not, or it was before.
    No,
    /// For the first time in this series of deaths.
    First,
    /// Again, after a good run in the same series.
    Again,
}

/// Counts the deaths of one sidecar.
#[derive(Debug, Default)]
pub struct Backoff {
    /// Each soon after the one before.
    deaths: u32,
    last: Option<LastDeath>,
    failing: bool,
}

#[derive(Debug)]
struct LastDeath {
    at: Instant,
    cause: String,
}

impl Backoff {
    /// A run ended unplanned that was ready for `ready` (zero when it never was).
    pub fn died(&mut self, cause: &str, ready: Duration, now: Instant) -> AfterDeath {
        let series = self.last.as_ref();
        if series.is_none_or(|last| now.saturating_duration_since(last.at) > TOGETHER) {
            self.forget();
        }
        self.deaths += 1;
        let cause = cause.to_owned();
        self.last = Some(LastDeath { at: now, cause });
        let failing = match self.deaths >= FAILING && !self.failing {
            false => BecameFailing::No,
            true if self.deaths == FAILING => BecameFailing::First,
            true => BecameFailing::Again,
        };
        self.failing |= failing != BecameFailing::No;
        let delay = self.delay(ready).mul_f64(jitter());
        AfterDeath { delay, failing }
    }

    fn delay(&self, ready: Duration) -> Duration {
        if ready >= GOOD || (self.deaths == 1 && ready >= WAS_READY) {
            return Duration::ZERO;
        }
        FIRST
            .saturating_mul(1 << (self.deaths - 1).min(16))
            .min(LONGEST)
    }

    /// It has been ready for [`GOOD`]; true when it was failing until now.
    pub fn served_well(&mut self) -> bool {
        std::mem::take(&mut self.failing)
    }

    /// An operator wants it to be tried as if it had never died.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// How many there are in the present series.
    pub fn deaths(&self, now: Instant) -> u32 {
        let last = self.last.as_ref();
        let is_over = last.is_none_or(|last| now.saturating_duration_since(last.at) > TOGETHER);
        if is_over { 0 } else { self.deaths }
    }

    /// How it ended last, in the present series of deaths.
    pub fn last_cause(&self) -> Option<&str> {
        self.last.as_ref().map(|last| last.cause.as_str())
    }

    /// When that was.
    pub fn last_at(&self) -> Option<Instant> {
        self.last.as_ref().map(|last| last.at)
    }

    /// Why it is failing, as "it has …"; none when it is not.
    pub fn failing(&self) -> Option<String> {
        let minutes = TOGETHER.as_secs() / 60;
        let cause = self.last_cause().filter(|_| self.failing)?;
        Some(format!(
            "has died {} times, at most {minutes} min apart; the last time it {cause}",
            self.deaths
        ))
    }
}

/// Between 0.75 and 1, so that several gateways do not start everything in step.
fn jitter() -> f64 {
    0.75 + (crate::os::random() % 1024) as f64 / 4096.0
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Deaths of runs that were ready for `ready`, one after the other: the delay without jitter,
    /// and whether the sidecar became failing.
    fn loop_of(ready: Duration, count: usize) -> Vec<(u64, BecameFailing)> {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        let death = |_| {
            now += ready;
            let after = backoff.died("exited with code 1", ready, now);
            let whole = backoff.delay(ready);
            assert!(whole.mul_f64(0.75) <= after.delay && after.delay <= whole);
            now += after.delay;
            (whole.as_millis() as u64, after.failing)
        };
        (0..count).map(death).collect()
    }

    #[test]
    fn what_dies_every_ten_seconds_waits_ever_longer_and_fails_with_the_fifth_death() {
        use BecameFailing::{First, No};
        let deaths = loop_of(10 * SECOND, 14);
        let delays: Vec<u64> = deaths.iter().map(|(delay, _)| *delay).collect();
        assert_eq!(
            delays,
            [
                0, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 102_400, 120_000, 120_000,
                120_000, 120_000
            ]
        );
        for (index, (_, failing)) in deaths.iter().enumerate() {
            assert_eq!(*failing, if index == 4 { First } else { No }, "{index}");
        }
        assert_eq!(loop_of(Duration::ZERO, 1), [(200, No)]);
        assert!((0.75..=1.0).contains(&jitter()));
    }

    #[test]
    fn what_dies_every_quarter_of_an_hour_is_failing_and_started_at_once() {
        use BecameFailing::{Again, First, No};
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for expected in [No, No, No, No, First, Again, Again] {
            now += 15 * 60 * SECOND;
            let after = backoff.died("was ended by SIGKILL", 15 * 60 * SECOND, now);
            assert_eq!((after.delay, after.failing), (Duration::ZERO, expected));
            let failing = expected != No;
            let text = backoff.failing().unwrap_or_default();
            assert_eq!(text.contains("was ended by SIGKILL"), failing, "{text}");
            // Ten good minutes.
            assert_eq!(backoff.served_well(), failing);
            assert_eq!(backoff.failing(), None);
        }
    }

    #[test]
    fn rare_deaths_and_those_before_an_operators_request_are_forgotten() {
        let (mut backoff, mut now) = (Backoff::default(), Instant::now());
        for _ in 0..20 {
            now += TOGETHER + SECOND;
            let after = backoff.died("x", TOGETHER, now);
            assert_eq!(after.failing, BecameFailing::No);
        }
        for _ in 0..10 {
            backoff.died("x", Duration::ZERO, now);
        }
        assert!(backoff.failing().is_some());
        backoff.forget();
        assert_eq!((backoff.failing(), backoff.last_cause()), (None, None));
        assert!(backoff.died("x", Duration::ZERO, now).delay <= FIRST);
    }
}
