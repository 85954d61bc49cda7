//! The connection pool of one upstream: idle connections kept between requests, for each worker
//! thread its own.

use std::cell::Cell;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::upstream_connection::UpstreamConnection;
use crate::os::mutex::lock;

/// A request that must not be sent twice takes a kept connection only if it was idle for less than
/// this: at the edge of the upstream's own idle timeout 45 of 302 POSTs failed (measured with
/// Node).
const RISKY_IDLE: Duration = Duration::from_secs(1);

/// Idle connections kept for each worker, whether or not they are needed.
const IDLE_ANYHOW: usize = 64;

/// The most idle connections for each worker: with fewer than requests under way, each request makes a
/// connection. With 64, a request of 8,000 clients took 5.5 times as long as with 2,048.
const IDLE_MAX: usize = 2048;

/// How often half of those goes that nobody has needed since the last time: haproxy's
/// pool-purge-delay.
pub const PURGE_EVERY: Duration = Duration::from_secs(5);

/// An idle connection older than this is closed rather than tried: below the usual upstream default
/// of 60 to 75 s.
const IDLE_KEEP: Duration = Duration::from_secs(55);

/// After so long without an answer on a fresh connection, idle ones make room for it: longer than most
/// answers take.
const STARVED: Duration = Duration::from_millis(250);

/// The same again after this part of the time that the request waits already: most likely it is its answer
/// that takes long.
const STARVED_PART: u32 = 8;

thread_local! {
    static WORKER: Cell<usize> = const { Cell::new(0) };
}

/// Makes this thread the worker with this index.
pub fn set_worker(index: usize) {
    WORKER.set(index);
}

#[derive(Debug)]
pub struct IdlePool {
    /// The idle connections of each worker.
    idle: Box<[Mutex<IdleList<UpstreamConnection>>]>,
    /// Half of the idle timeout that the upstream announced, in milliseconds; 0 when it announced
    /// none.
    half_announced: AtomicU64,
}

/// Idle connections, the oldest first.
#[derive(Debug)]
struct IdleList<C> {
    idle: VecDeque<(C, Instant)>,
    /// The fewest since the last purge: so many were not needed.
    fewest: usize,
    /// Whether [`IdlePool::purge`] is called from time to time.
    purged: bool,
}

impl<C> Default for IdleList<C> {
    fn default() -> Self {
        Self {
            idle: VecDeque::new(),
            fewest: 0,
            purged: false,
        }
    }
}

impl<C> IdleList<C> {
    /// Takes the youngest out: it is the likeliest to be alive. None where it was idle for `risk`.
    fn take(&mut self, now: Instant, risk: Option<Duration>) -> Option<C> {
        drop(self.take_older(now, IDLE_KEEP));
        let (_, since) = self.idle.back()?;
        if risk.is_some_and(|risk| now.duration_since(*since) >= risk) {
            return None;
        }
        let youngest = self.idle.pop_back();
        self.fewest = self.fewest.min(self.idle.len());
        youngest.map(|(connection, _)| connection)
    }

    /// Takes out what is idle for longer.
    fn take_older(&mut self, now: Instant, than: Duration) -> Vec<(C, Instant)> {
        let is_older = |since: &Instant| now.saturating_duration_since(*since) > than;
        let older = self
            .idle
            .iter()
            .take_while(|(_, since)| is_older(since))
            .count();
        self.take_oldest(older)
    }

    fn take_oldest(&mut self, count: usize) -> Vec<(C, Instant)> {
        let oldest = self.idle.drain(..count).collect();
        self.fewest = self.fewest.min(self.idle.len());
        oldest
    }

    /// Takes out half of those beyond [`IDLE_ANYHOW`] that nobody has needed since the last purge.
    fn take_unneeded(&mut self) -> Vec<(C, Instant)> {
        let beyond = self.idle.len().saturating_sub(IDLE_ANYHOW);
        let unneeded = self.take_oldest(self.fewest.div_ceil(2).min(beyond));
        self.fewest = self.idle.len();
        self.purged = self.idle.len() > IDLE_ANYHOW;
        unneeded
    }
}

impl IdlePool {
    pub fn new(workers: usize) -> Self {
        Self {
            idle: (0..workers.max(1)).map(|_| Mutex::default()).collect(),
            half_announced: AtomicU64::new(0),
        }
    }

    /// An idle connection for a request, if one is fit for it. A request that must not be sent twice,
    /// because it is not `repeatable`, takes only one that is surely within the idle timeout.
    pub fn take(&self, repeatable: bool) -> Option<UpstreamConnection> {
        let risk = (!repeatable).then(|| self.risky_idle());
        lock(self.of_this_worker()).take(Instant::now(), risk)
    }

    /// Keeps a connection for the next request, from `since` on. Returns whether
    /// [`purge`](Self::purge) is to be called from now on.
    pub fn keep(&self, mut connection: UpstreamConnection, since: Instant) -> bool {
        if connection.sender.is_closed() {
            return false;
        }
        connection.kept = true;
        let mut list = lock(self.of_this_worker());
        let most = match connection.leaves_room {
            true => IDLE_MAX,
            false => IDLE_ANYHOW,
        };
        if list.idle.len() < most {
            list.idle.push_back((connection, since));
        }
        list.idle.len() > IDLE_ANYHOW && !std::mem::replace(&mut list.purged, true)
    }

    /// Closes half of the idle connections of this worker that nobody has needed since the last time.
    /// Returns whether it is to be called again.
    pub fn purge(&self) -> bool {
        let mut list = lock(self.of_this_worker());
        let unneeded = list.take_unneeded();
        let goes_on = list.purged;
        drop(list);
        drop(unneeded);
        goes_on
    }

    /// Waits for the answer to a request. One on a `fresh` connection that waits for long may wait for a
    /// place: many servers have one process or thread for each connection, and idle ones take these up.
    /// So those are closed meanwhile that are idle for as long as [`STARVED`].
    pub async fn making_room<T>(
        &self,
        fresh: bool,
        mut sending: Pin<&mut impl Future<Output = T>>,
    ) -> T {
        if !fresh {
            return sending.await;
        }
        let sent = Instant::now();
        loop {
            let pause = STARVED.max(sent.elapsed() / STARVED_PART);
            if let Ok(answer) = tokio::time::timeout(pause, &mut sending).await {
                return answer;
            }
            for list in &self.idle {
                let older = lock(list).take_older(Instant::now(), STARVED);
                drop(older);
            }
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

    fn of_this_worker(&self) -> &Mutex<IdleList<UpstreamConnection>> {
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

    #[test]
    fn what_nobody_needs_goes_by_halves_and_what_was_needed_stays() {
        let now = Instant::now();
        let mut list = IdleList::default();
        (0..1000).for_each(|one| list.idle.push_back((one, now)));
        let mut left = Vec::new();
        for _ in 0..6 {
            list.take_unneeded();
            left.push(list.idle.len());
        }
        // The first purge knows of nothing yet.
        assert_eq!(left, [1000, 500, 250, 125, 64, 64]);
        assert!(!list.purged);
        assert_eq!(list.take(now, None), Some(999), "the youngest");

        (0..900).for_each(|one| list.idle.push_back((one, now)));
        list.take_unneeded();
        let used: Vec<_> = (0..800).filter_map(|_| list.take(now, None)).collect();
        used.into_iter()
            .for_each(|one| list.idle.push_back((one, now)));
        let before = list.idle.len();
        list.take_unneeded();
        assert_eq!(before - list.idle.len(), (before - 800).div_ceil(2));
    }

    #[test]
    fn a_connection_that_was_idle_for_long_is_not_used() {
        let begin = Instant::now();
        let mut list = IdleList::default();
        list.idle.push_back(("old", begin));
        list.idle.push_back(("young", begin + IDLE_KEEP));
        let late = begin + IDLE_KEEP + RISKY_IDLE;
        assert_eq!(list.take(late, Some(RISKY_IDLE)), None);
        assert_eq!(list.take(late, Some(RISKY_IDLE * 2)), Some("young"));
        assert_eq!(list.take(late, None), None);
    }
}
