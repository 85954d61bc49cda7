//! How long to wait before a dead sidecar is started again.

use std::time::Duration;

/// The first delay after a start that never became ready; doubled each time.
const FIRST: Duration = Duration::from_millis(200);

/// No delay is longer.
const LONGEST: Duration = Duration::from_secs(30);

/// A run that was ready for longer than this was a good one: its end starts the count afresh.
const STABLE: Duration = Duration::from_secs(10);

/// A run that was ready for at least this long is started again at once: requests wait for it. (s6
/// asks the same: was it ever ready?)
const WAS_READY: Duration = Duration::from_secs(1);

/// Counts failures in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay before the next start, after a run that was ready for `ready` (zero when it never
    /// was).
    pub fn after(&mut self, ready: Duration) -> Duration {
        self.next(ready, jitter())
    }

    fn next(&mut self, ready: Duration, jitter: f64) -> Duration {
        if ready >= STABLE {
            self.failures = 0;
        }
        self.failures += 1;
        if self.failures == 1 && ready >= WAS_READY {
            return Duration::ZERO;
        }
        let doubled = FIRST
            .saturating_mul(1 << (self.failures - 1).min(16))
            .min(LONGEST);
        doubled.mul_f64(jitter)
    }
}

/// Between 0.75 and 1, so that several gateways do not start everything in step.
fn jitter() -> f64 {
    0.75 + (crate::os::random() % 1024) as f64 / 4096.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_run_is_restarted_at_once_and_bad_ones_ever_later() {
        let mut backoff = Backoff::default();
        assert_eq!(backoff.next(Duration::from_secs(60), 1.0), Duration::ZERO);
        assert_eq!(backoff.next(Duration::from_secs(60), 1.0), Duration::ZERO);
        let delays: Vec<_> = (0..10)
            .map(|_| backoff.next(Duration::ZERO, 1.0).as_millis())
            .collect();
        assert_eq!(
            delays,
            [
                400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000, 30000
            ]
        );
        assert_eq!(Backoff::default().next(Duration::ZERO, 1.0), FIRST);
        assert!((0.75..=1.0).contains(&jitter()));
    }
}
