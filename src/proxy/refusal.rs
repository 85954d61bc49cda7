//! Why no request is let in for now, and when a client should try again.

use std::time::{Duration, Instant};

/// Why the gateway cannot serve, for longer than a restart takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as a sentence.
    pub why: String,
    /// When sidecars are started or tried again.
    pub until: Instant,
}

impl Refusal {
    /// Retry-After, in whole seconds (RFC 9110, 10.2.3): at least one, and never less than the time
    /// that is left.
    pub fn retry_after(&self, now: Instant) -> u64 {
        let left = self.until.saturating_duration_since(now);
        left.as_secs() + u64::from(left > Duration::from_secs(left.as_secs()) || left.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_never_too_early() {
        let now = Instant::now();
        for (millis, told) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (120_000, 120)] {
            let refusal = Refusal {
                why: String::new(),
                until: now + Duration::from_millis(millis),
            };
            assert_eq!(refusal.retry_after(now), told, "{millis}");
        }
        let past = Refusal {
            why: String::new(),
            until: now,
        };
        assert_eq!(past.retry_after(now + Duration::from_secs(9)), 1);
    }
}
