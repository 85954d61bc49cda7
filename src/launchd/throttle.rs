//! When launchd starts a job again.
//!
//! A job that ran for its ThrottleInterval is started again at once, a younger one when the interval since
//! its start is over, whatever its exit code (core.c of 2014; prints of newer systems agree). launchd counts
//! whole seconds from its own start of the job, a moment before ours. So a gateway that is about to exit
//! serves until the interval is over, and a second longer.

use std::time::Duration;

/// ThrottleInterval where the property list has none (launchd.plist(5)).
pub const THROTTLE_DEFAULT: Duration = Duration::from_secs(10);

/// What a whole second may hide.
const WHOLE_SECOND: Duration = Duration::from_secs(1);

/// How long to serve before an exit that launchd shall answer with a new start at once: `configured`
/// (`[restart] launchd_exit_delay`), and no less than the rest of the throttle interval. For restarts that we
/// begin ourselves; a SIGTERM and `--force` do not wait.
pub fn exit_delay(uptime: Duration, throttle_interval: Duration, configured: Duration) -> Duration {
    let over = throttle_interval.saturating_add(WHOLE_SECOND);
    configured.max(over.saturating_sub(uptime))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_throttle_counts_from_the_start() {
        let secs = Duration::from_secs;
        let configured = Duration::from_millis(1500);
        for (uptime, interval, delay) in [
            (secs(0), secs(10), secs(11)),
            (secs(4), secs(10), secs(7)),
            (secs(10), secs(10), configured),
            (secs(86_400), secs(10), configured),
            (secs(2), secs(60), secs(59)),
            // What print shows of a job that crashed often.
            (secs(2), secs(1200), secs(1199)),
            (secs(2), Duration::ZERO, configured),
        ] {
            let found = exit_delay(uptime, interval, configured);
            assert_eq!(found, delay, "{uptime:?} {interval:?}");
        }
        assert_eq!(exit_delay(secs(99), secs(10), secs(0)), secs(0));
    }
}
