//! When launchd starts a job again.
//!
//! A job that ran longer than its ThrottleInterval is started again at once, a younger one when the
//! interval since its start is over, whatever its exit code. So a gateway that is about to exit
//! serves until the interval is over.

use std::time::Duration;

/// ThrottleInterval where the plist has none, or 0, which launchd ignores (launchd.plist(5); core.c
/// of 2013).
pub const THROTTLE_DEFAULT: Duration = Duration::from_secs(10);

/// The interval that launchd uses for a plist's ThrottleInterval.
pub fn throttle_interval(plist: Option<Duration>) -> Duration {
    plist
        .filter(|interval| !interval.is_zero())
        .unwrap_or(THROTTLE_DEFAULT)
}

/// How long nothing runs after an exit at this age.
pub fn gap_after_exit(uptime: Duration, throttle_interval: Duration) -> Duration {
    throttle_interval.saturating_sub(uptime)
}

/// How long to serve before an exit that launchd shall answer with a new start: `configured`
/// (`[restart] launchd_exit_delay`), and no less than the rest of the throttle interval. For
/// restarts that we begin ourselves; a SIGTERM and `--force` do not wait.
pub fn exit_delay(uptime: Duration, throttle_interval: Duration, configured: Duration) -> Duration {
    configured.max(gap_after_exit(uptime, throttle_interval))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_counts_from_the_start() {
        let secs = Duration::from_secs;
        let configured = Duration::from_millis(1500);
        for (uptime, interval, gap, delay) in [
            (secs(0), secs(10), secs(10), secs(10)),
            (secs(4), secs(10), secs(6), secs(6)),
            (secs(9), secs(10), secs(1), configured),
            (secs(10), secs(10), secs(0), configured),
            (secs(86_400), secs(10), secs(0), configured),
            (secs(2), secs(60), secs(58), secs(58)),
        ] {
            let found = (
                gap_after_exit(uptime, interval),
                exit_delay(uptime, interval, configured),
            );
            assert_eq!(found, (gap, delay), "{uptime:?} {interval:?}");
        }
        assert_eq!(exit_delay(secs(99), secs(10), secs(0)), secs(0));
    }

    #[test]
    fn no_interval_and_zero_are_ten_seconds() {
        assert_eq!(throttle_interval(None), THROTTLE_DEFAULT);
        assert_eq!(throttle_interval(Some(Duration::ZERO)), THROTTLE_DEFAULT);
        assert_eq!(
            throttle_interval(Some(Duration::from_secs(5))),
            Duration::from_secs(5)
        );
    }
}
