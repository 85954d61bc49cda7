//! Waiting for what may not be there, and for what comes again and again.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Interval, MissedTickBehavior};

/// What a future gives; never anything where there is none.
pub async fn or_never<F: Future>(future: Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => pending().await,
    }
}

/// Ticks at this period, at once for the first time. A tick that is late is not made up for: after a
/// long time without any there would be thousands at once.
pub fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
