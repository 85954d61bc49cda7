//! What a predecessor still has under way at the sidecars of this process: requests and tunnels of
//! clients that could not be passed on. A sidecar ends only when all of it is finished, though no
//! door of this process counts it.

use tokio::sync::watch;

/// What is lent to the predecessor.
#[derive(Debug, Default)]
pub struct Lending {
    /// How often the addresses of the sidecars were sent to it.
    sent: u64,
    /// None when there is no predecessor.
    seen: watch::Sender<Option<BorrowedNow>>,
}

/// What it reported last.
#[derive(Clone, Copy, Debug, Default)]
struct BorrowedNow {
    /// How often it had received the addresses of the sidecars.
    heard: u64,
    /// How much it had under way.
    borrowed: u64,
}

impl Lending {
    pub fn begin() -> Self {
        Self {
            sent: 0,
            seen: watch::Sender::new(Some(BorrowedNow::default())),
        }
    }

    /// The addresses of the sidecars are being sent to it.
    pub fn count_sent(&mut self) {
        self.sent += 1;
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

    /// What it may have at the sidecars that the last addresses replaced.
    pub fn claim(&self) -> Lent {
        Lent {
            sent: self.sent,
            seen: self.seen.subscribe(),
        }
    }
}

/// What a drain waits for.
#[derive(Debug)]
pub struct Lent {
    sent: u64,
    seen: watch::Receiver<Option<BorrowedNow>>,
}

impl Lent {
    /// Returns when nothing is under way there any more. What the predecessor reported before it had
    /// the new addresses does not count.
    pub async fn returned(&self) {
        let back = |seen: &Option<BorrowedNow>| {
            seen.is_none_or(|seen| seen.heard >= self.sent && seen.borrowed == 0)
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
        let mut lending = Lending::begin();
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
}
