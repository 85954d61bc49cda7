//! What a predecessor still has under way at the sidecars of this process: requests and tunnels of
//! clients that could not be passed on. A sidecar ends only when all of it is finished, though no
//! door of this process counts it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// How long a predecessor may take to say that it has the new addresses, and that older processes
/// have them, too. One that is stopped holds up nobody.
const HEARD_WITHIN: Duration = Duration::from_secs(2);

/// What is lent to the predecessor.
#[derive(Debug, Default)]
pub struct Lending {
    /// How often the addresses of the sidecars were sent to it.
    sent: Arc<AtomicU64>,
    /// None when there is no predecessor.
    seen: watch::Sender<Option<BorrowedNow>>,
}

/// What it reported last.
#[derive(Clone, Copy, Debug, Default)]
struct BorrowedNow {
    /// How many of the addresses that were sent it has received, and older processes with it.
    heard: u64,
    /// How much it had under way.
    borrowed: u64,
}

impl Lending {
    pub fn begin() -> Self {
        Self {
            sent: Arc::default(),
            seen: watch::Sender::new(Some(BorrowedNow::default())),
        }
    }

    /// The addresses of the sidecars are being sent to it. They are looked at after this call, so that
    /// a door that is closed meanwhile is among them or in the next ones.
    pub fn count_sent(&self) {
        self.sent.fetch_add(1, Ordering::SeqCst);
    }

    /// It reports how much it has under way.
    pub fn report(&self, heard: u64, borrowed: u64) {
        self.seen
            .send_replace(Some(BorrowedNow { heard, borrowed }));
    }

    pub fn over(&self) {
        self.seen.send_replace(None);
    }

    /// How much is under way, as far as it is known.
    pub fn borrowed(&self) -> u64 {
        self.seen.borrow().map_or(0, |seen| seen.borrowed)
    }

    /// How many of the addresses that were sent it has not received yet.
    pub fn unheard(&self) -> u64 {
        let sent = self.sent.load(Ordering::SeqCst);
        (self.seen.borrow()).map_or(0, |seen| sent.saturating_sub(seen.heard))
    }

    /// What it may have at the sidecars that the last addresses replaced.
    pub fn claim(&self) -> Lent {
        Lent {
            claimed: self.sent.load(Ordering::SeqCst),
            sent: Arc::clone(&self.sent),
            seen: self.seen.subscribe(),
        }
    }
}

/// What a drain waits for.
#[derive(Clone, Debug)]
pub struct Lent {
    /// How often addresses had been sent when it was claimed.
    claimed: u64,
    sent: Arc<AtomicU64>,
    seen: watch::Receiver<Option<BorrowedNow>>,
}

impl Lent {
    /// Returns when nothing is under way there any more. What the predecessor reported before it had
    /// the new addresses does not count.
    pub async fn returned(&self) {
        self.returned_since(self.claimed).await;
    }

    /// The same for a sidecar whose door has just been closed: the addresses that are sent from now
    /// on say so. A predecessor that does not hear them in time is not waited for.
    pub async fn returned_from_now(&self) {
        let next = self.sent.load(Ordering::SeqCst) + 1;
        let heard = |seen: &Option<BorrowedNow>| seen.is_none_or(|seen| seen.heard >= next);
        let mut seen = self.seen.clone();
        if timeout(HEARD_WITHIN, seen.wait_for(heard)).await.is_ok() {
            self.returned_since(next).await;
        }
    }

    async fn returned_since(&self, sent: u64) {
        let back = |seen: &Option<BorrowedNow>| {
            seen.is_none_or(|seen| seen.heard >= sent && seen.borrowed == 0)
        };
        // When the loop is gone, nothing is waited for.
        let _ = self.seen.clone().wait_for(back).await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_lent_is_back_only_when_the_borrower_knows_the_new_place_and_has_nothing_left()
    {
        let nobody = Lending::default();
        nobody.claim().returned().await;
        let lending = Lending::begin();
        lending.count_sent();
        let lent = lending.claim();
        lending.report(0, 0);
        assert!(
            lent.returned().now_or_never().is_none(),
            "it may borrow yet"
        );
        lending.report(1, 2);
        assert!(lent.returned().now_or_never().is_none());
        assert_eq!(lending.borrowed(), 2);
        lending.report(1, 0);
        lent.returned().await;
        lending.report(1, 1);
        lending.over();
        lent.returned().await;
    }
    #[tokio::test(start_paused = true)]
    async fn a_closed_door_is_waited_for_until_the_borrower_knows_of_it() {
        Lending::default().claim().returned_from_now().await;
        let lending = Lending::begin();
        let lent = lending.claim();
        lending.count_sent();
        lending.report(1, 0);
        let mut back = std::pin::pin!(lent.returned_from_now());
        assert!(
            back.as_mut().now_or_never().is_none(),
            "it has the addresses of before"
        );
        lending.count_sent();
        assert_eq!(lending.unheard(), 1);
        lending.report(2, 1);
        assert_eq!(lending.unheard(), 0);
        assert!(back.as_mut().now_or_never().is_none(), "one is under way");
        lending.report(2, 0);
        back.await;
        // One that does not answer.
        let begun = tokio::time::Instant::now();
        lent.returned_from_now().await;
        assert_eq!(begun.elapsed(), HEARD_WITHIN);
    }
}
