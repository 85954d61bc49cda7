//! How long a client has read nothing of what is sent to it.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use super::lazy_timer::LazyTimer;
use crate::os::send_queue;

/// How often within the limit to look whether the client has read: room for a write comes only when
/// it has read much of what is queued.
const LOOKS: u32 = 4;

/// The wait for room in a client's socket.
#[derive(Debug, Default)]
pub struct SendWait {
    /// The limit counts from here; none while there is room.
    since: Option<Instant>,
    /// When to look at the queue next.
    look: Option<Instant>,
    /// What the last look found in the queue.
    queued: Option<usize>,
    timer: LazyTimer,
}

impl SendWait {
    /// There is room.
    pub fn over(&mut self) {
        (self.since, self.look, self.queued) = (None, None, None);
    }

    /// Ready when the client has read nothing for `limit`.
    pub fn poll_over(
        &mut self,
        stream: &TcpStream,
        limit: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let now = Instant::now();
            let since = *self.since.get_or_insert(now);
            let look = *self.look.get_or_insert(since + limit / LOOKS);
            ready!(self.timer.poll_at(look, cx));
            let now = Instant::now();
            if self.has_read(send_queue::length(stream)) {
                self.since = Some(now);
            } else if now >= since + limit {
                return Poll::Ready(());
            }
            self.look = Some(now + limit / LOOKS);
        }
    }

    /// Whether the queue is shorter than at the last look.
    fn has_read(&mut self, queued: Option<usize>) -> bool {
        let before = std::mem::replace(&mut self.queued, queued);
        matches!((before, queued), (Some(before), Some(now)) if now < before)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_shrinks_was_read() {
        let mut wait = SendWait::default();
        assert!(!wait.has_read(Some(9)), "nothing is known yet");
        assert!(wait.has_read(Some(8)));
        assert!(!wait.has_read(Some(8)) && !wait.has_read(None));
        wait.over();
        assert!(!wait.has_read(Some(1)));
    }
}
