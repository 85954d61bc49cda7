//! What a predecessor still has under way at the sidecars of this process: requests and tunnels of
//! clients that could not be passed on. A sidecar ends only when all of it is finished, though no
//! door of this process counts it.

use tokio::sync::watch;

/// What is lent to the predecessor.
#[derive(Debug, Default)]
pub struct Lending {
    /// How often it was told where the sidecars are.
    told: u64,
    /// None when nobody borrows.
    seen: watch::Sender<Option<BorrowedNow>>,
}

/// What it said last.
#[derive(Clone, Copy, Debug, Default)]
struct BorrowedNow {
    /// How often it had heard where the sidecars are.
    heard: u64,
    /// How much it had under way.
    borrowed: u64,
}

impl Lending {
    pub fn begin() -> Self {
        Self {
            told: 0,
            seen: watch::Sender::new(Some(BorrowedNow::default())),
        }
    }

    /// It is being told where the sidecars are from now on.
    pub fn tell(&mut self) {
        self.told += 1;
    }

    /// It said how much it has under way.
    pub fn said(&self, heard: u64, borrowed: u64) {
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

    /// What it may have at the sidecars of before the last [`tell`](Self::tell).
    pub fn claim(&self) -> Lent {
        Lent {
            told: self.told,
            seen: self.seen.subscribe(),
        }
    }
}

/// What a drain waits for.
#[derive(Debug)]
pub struct Lent {
    told: u64,
    seen: watch::Receiver<Option<BorrowedNow>>,
}

impl Lent {
    /// Returns when nothing is under way there any more. What was said before the predecessor knew
    /// the new place does not count.
    pub async fn returned(&self) {
        let back = |seen: &Option<BorrowedNow>| {
            seen.is_none_or(|seen| seen.heard >= self.told && seen.borrowed == 0)
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
        lending.tell();
        let lent = lending.claim();
        lending.said(0, 0);
        assert!(
            lent.returned().now_or_never().is_none(),
            "it may borrow yet"
        );
        lending.said(1, 2);
        assert!(lent.returned().now_or_never().is_none());
        assert_eq!(lending.borrowed(), 2);
        lending.said(1, 0);
        lent.returned().await;
        lending.said(1, 1);
        lending.over();
        lent.returned().await;
    }
}
