//! Memory after a wave of clients: what their buffers took goes back to the system.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::os::heap;

/// So many KiB fewer than at the peak are the end of a wave.
const EBB: usize = 4 * 1024;

/// About what a client takes, in KiB, and what its parser and buffers take besides, without what
/// waits in them.
pub const CLIENT: usize = 4;
pub const BUFFERS: usize = 20;

/// How long after the end of a wave the memory is given back: the rest of it ends meanwhile.
const SETTLE: Duration = Duration::from_secs(2);

/// About how much memory clients take, in KiB.
#[derive(Debug, Default)]
pub struct Wave {
    now: AtomicUsize,
    /// The most there were since memory was given back.
    peak: AtomicUsize,
    ebb: Notify,
}

/// Memory of a client, until dropped.
#[derive(Debug)]
pub struct Held<'a> {
    wave: &'a Wave,
    kib: usize,
}

impl Wave {
    /// A client takes this much.
    pub fn holds(&self, kib: usize) -> Held<'_> {
        let now = self.now.fetch_add(kib, Ordering::Relaxed) + kib;
        if now > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(now, Ordering::Relaxed);
        }
        Held { wave: self, kib }
    }

    /// Gives memory back after each wave, on a thread that serves no client.
    pub async fn give_back(self: Arc<Self>) {
        loop {
            self.ebb.notified().await;
            tokio::time::sleep(SETTLE).await;
            if self.is_over(self.now.load(Ordering::Relaxed)) {
                // A thread that cannot be started leaves the memory for the next wave.
                let _ = tokio::task::spawn_blocking(heap::trim).await;
                let now = self.now.load(Ordering::Relaxed);
                self.peak.store(now, Ordering::Relaxed);
            }
        }
    }

    fn is_over(&self, now: usize) -> bool {
        now + EBB <= self.peak.load(Ordering::Relaxed)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let now = self.wave.now.fetch_sub(self.kib, Ordering::Relaxed) - self.kib;
        if self.wave.is_over(now) {
            self.wave.ebb.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_wave_is_over_when_many_have_gone() {
        let wave = Wave::default();
        let first = wave.holds(CLIENT);
        let mut open: Vec<_> = (0..EBB).map(|_| wave.holds(1)).collect();
        open.pop();
        assert!(wave.ebb.notified().now_or_never().is_none());
        open.clear();
        assert!(wave.ebb.notified().now_or_never().is_some());
        assert!(wave.is_over(CLIENT) && !wave.is_over(CLIENT + 1));
        drop(first);
    }
}
