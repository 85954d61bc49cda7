//! The connection pool of one upstream: idle connections kept between requests, for each worker
//! thread its own.

use std::cell::Cell;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::upstream_connection::UpstreamConnection;
use crate::os::mutex::lock;

/// A request that must not be sent twice takes a kept connection only if it was idle for less than
/// this: at the edge of the upstream's own idle timeout 45 of 302 POSTs failed (measured with
/// Node).
const RISKY_IDLE: Duration = Duration::from_secs(1);

/// Idle connections kept for each worker; more than this many at once is a burst that need not be
/// remembered.
const IDLE_MAX: usize = 64;

/// An idle connection older than this is closed rather than tried: below the usual upstream default
/// of 60 to 75 s.
const IDLE_KEEP: Duration = Duration::from_secs(55);

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread the worker with this index.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

#[derive(Debug)]
pub struct IdlePool {
    /// The idle connections of each worker, the oldest first.
    idle: Box<[Mutex<Vec<IdleConnection>>]>,
    /// Half of the idle timeout that the upstream announced, in milliseconds; 0 when it announced
    /// none.
    half_announced: AtomicU64,
}

#[derive(Debug)]
struct IdleConnection {
    connection: UpstreamConnection,
    since: Instant,
}

impl IdlePool {
    pub fn new(workers: usize) -> Self {
        Self {
            idle: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            half_announced: AtomicU64::new(0),
        }
    }

    /// An idle connection for a request, if one is fit for it.
    pub fn take(&self, repeatable: bool) -> Option<UpstreamConnection> {
        let risk = self.risky_idle();
        let mut idle = lock(self.of_this_worker());
        let now = Instant::now();
        if let Some(oldest) = idle.first()
            && now.duration_since(oldest.since) > IDLE_KEEP
        {
            idle.retain(|one| now.duration_since(one.since) <= IDLE_KEEP);
        }
        // The youngest is the likeliest to be alive; a request that cannot be repeated takes only
        // one that is surely within the idle timeout.
        let youngest = idle.last()?;
        if !repeatable && now.duration_since(youngest.since) >= risk {
            return None;
        }
        idle.pop().map(|one| one.connection)
    }

    /// Keeps a connection for the next request, from `since` on.
    pub fn keep(&self, mut connection: UpstreamConnection, since: Instant) {
        if connection.sender.is_closed() {
            return;
        }
        connection.kept = true;
        let mut idle = lock(self.of_this_worker());
        if idle.len() < IDLE_MAX {
            idle.push(IdleConnection { connection, since });
        }
    }

    /// Remembers the `Keep-Alive: timeout=N` of a response.
    pub fn announced(&self, keep_alive: &str) {
        let timeout = keep_alive.split(',').find_map(|part| {
            part.trim()
                .strip_prefix("timeout=")?
                .trim()
                .parse::<u64>()
                .ok()
        });
        if let Some(seconds) = timeout {
            self.half_announced
                .store(seconds.saturating_mul(500).max(1), Ordering::Relaxed);
        }
    }

    fn risky_idle(&self) -> Duration {
        match self.half_announced.load(Ordering::Relaxed) {
            0 => RISKY_IDLE,
            half => RISKY_IDLE.min(Duration::from_millis(half)),
        }
    }

    fn of_this_worker(&self) -> &Mutex<Vec<IdleConnection>> {
        &self.idle[WORKER.get() % self.idle.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_an_announced_idle_timeout_is_the_limit_for_risky_requests() {
        let pool = IdlePool::new(1);
        assert_eq!(pool.risky_idle(), Duration::from_secs(1));
        pool.announced("timeout=1, max=5");
        assert_eq!(pool.risky_idle(), Duration::from_millis(500));
        pool.announced("timeout=600");
        assert_eq!(pool.risky_idle(), Duration::from_secs(1));
        pool.announced("garbage");
        assert_eq!(pool.risky_idle(), Duration::from_secs(1));
    }
}
