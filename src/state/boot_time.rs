//! Time since the machine was started, sleep included. It measures the intervals between lives:
//! nobody can set it.

use std::time::Duration;

use nix::time::ClockId;
use serde::{Deserialize, Serialize};

/// Milliseconds since this boot. Times of two boots cannot be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BootTime(u64);

/// The clock that goes on while the machine sleeps; macOS has it under the other name
/// (clock_gettime(3)).
#[cfg(not(target_os = "macos"))]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(target_os = "macos")]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

impl BootTime {
    /// Zero if the clock cannot be read, which does not happen.
    pub fn now() -> Self {
        CLOCK
            .now()
            .map(|now| Self::from(Duration::from(now)))
            .unwrap_or_default()
    }

    /// How long ago `earlier` was; none when it is in the future, as a time of another boot may be.
    pub fn since(self, earlier: Self) -> Option<Duration> {
        self.0.checked_sub(earlier.0).map(Duration::from_millis)
    }
}

impl From<Duration> for BootTime {
    fn from(since_boot: Duration) -> Self {
        Self(u64::try_from(since_boot.as_millis()).unwrap_or(u64::MAX))
    }
}

impl std::ops::Add<Duration> for BootTime {
    type Output = Self;

    fn add(self, later: Duration) -> Self {
        Self(self.0.saturating_add(Self::from(later).0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_runs_and_knows_what_lies_ahead() {
        let then = BootTime::now();
        assert!(then > BootTime::default());
        assert!(BootTime::now().since(then).is_some());
        assert_eq!(then.since(then + Duration::from_secs(1)), None);
        assert_eq!(
            (then + Duration::from_secs(1)).since(then),
            Some(Duration::from_secs(1))
        );
    }
}
