//! The accept queue of a server: connections that the kernel has made and the server has not accepted
//! yet. Python's http.server allows five of them, Django ten. Where the queue is full, the kernel
//! drops the client's packets, and the client tries again after a second, and then after two more.
//!
//! So many connections at once, as when a restart releases the requests that were held, begin only as
//! the queue has room. The kernel tells its length with each look at the listener.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

/// The queue of Python's http.server, the shortest among common servers: what is assumed where the
/// kernel does not tell.
const SHORTEST: u32 = 5;

/// With less room than this, connections begin one after the other, and each knows what the one
/// before it left. With more, so many threads may be wrong about it at the same time.
const SCARCE: u32 = 64;

/// The time between two looks at a full queue: no event tells that the server accepted one. At first
/// about what a short request takes, then longer, since the server is busy.
const AGAIN: Duration = Duration::from_millis(1);
const AGAIN_MOST: Duration = Duration::from_millis(10);

/// How long a listener's queue is, and how long it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptQueue {
    pub length: u32,
    pub limit: u32,
}

impl Default for AcceptQueue {
    fn default() -> Self {
        Self {
            length: 0,
            limit: SHORTEST,
        }
    }
}

impl AcceptQueue {
    /// A queue of no length takes one connection.
    fn room(self) -> u32 {
        self.limit.max(1).saturating_sub(self.length)
    }
}

/// Gives connections their turn, in the order in which they ask.
#[derive(Debug, Default)]
pub struct ConnectTurns {
    /// The room in the queue at the last look.
    room: AtomicU32,
    /// Connections that began and have not looked at the queue since.
    connecting: AtomicU32,
    one: Mutex<()>,
}

/// Leave to begin one connection.
#[derive(Debug)]
pub struct ConnectTurn<'a> {
    turns: &'a ConnectTurns,
    _one: Option<MutexGuard<'a, ()>>,
}

impl ConnectTurns {
    /// What a look at the queue showed.
    pub fn saw(&self, queue: AcceptQueue) {
        self.room.store(queue.room(), Ordering::Relaxed);
    }

    /// A turn without waiting. `look` asks the kernel; a queue that is not there makes nobody wait.
    pub fn now(&self, look: impl FnOnce() -> Option<AcceptQueue>) -> Option<ConnectTurn<'_>> {
        // Counted first: of many threads that look at the same time, the last ones see the others.
        let turn = self.turn(None);
        if self.has_room_for(SCARCE) {
            return Some(turn);
        }
        drop(turn);
        let one = self.one.try_lock().ok()?;
        if !self.has_room_for(1)
            && let Some(queue) = look()
        {
            self.saw(queue);
            if !self.has_room_for(1) {
                return None;
            }
        }
        Some(self.turn(Some(one)))
    }

    /// Waits for a turn.
    pub async fn next(&self, look: impl Fn() -> Option<AcceptQueue>) -> ConnectTurn<'_> {
        let one = self.one.lock().await;
        let mut pause = AGAIN;
        while !self.has_room_for(1) {
            let Some(queue) = look() else { break };
            self.saw(queue);
            if !self.has_room_for(1) {
                tokio::time::sleep(pause).await;
                pause = AGAIN_MOST.min(pause * 2);
            }
        }
        self.turn(Some(one))
    }

    fn has_room_for(&self, more: u32) -> bool {
        let connecting = self.connecting.load(Ordering::Relaxed);
        connecting.saturating_add(more) <= self.room.load(Ordering::Relaxed)
    }

    fn turn<'a>(&'a self, one: Option<MutexGuard<'a, ()>>) -> ConnectTurn<'a> {
        self.connecting.fetch_add(1, Ordering::Relaxed);
        ConnectTurn {
            turns: self,
            _one: one,
        }
    }
}

impl Drop for ConnectTurn<'_> {
    fn drop(&mut self) {
        self.turns.connecting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use futures_util::FutureExt;

    use super::*;

    fn queue(length: u32, limit: u32) -> AcceptQueue {
        AcceptQueue { length, limit }
    }

    #[test]
    fn a_short_queue_is_filled_one_after_the_other_and_not_beyond() {
        let turns = ConnectTurns::default();
        let waiting = Cell::new(0);
        let look = || Some(queue(waiting.get(), 2));
        for _ in 0..2 {
            let turn = turns.now(look).expect("there is room");
            assert!(turns.now(look).is_none(), "one at a time");
            drop(turn);
            waiting.set(waiting.get() + 1);
            turns.saw(look().unwrap());
        }
        assert!(turns.now(look).is_none(), "it is full");
        waiting.set(1);
        assert!(turns.now(look).is_some(), "the server accepted one");
    }

    #[tokio::test]
    async fn who_waits_is_served_when_the_server_accepts_and_in_order() {
        let turns = ConnectTurns::default();
        let waiting = Cell::new(1);
        let look = || Some(queue(waiting.get(), 1));
        let (mut first, mut second) = (Box::pin(turns.next(look)), Box::pin(turns.next(look)));
        assert!(first.as_mut().now_or_never().is_none());
        assert!(second.as_mut().now_or_never().is_none());
        waiting.set(0);
        let turn = first.await;
        assert!(second.as_mut().now_or_never().is_none(), "one at a time");
        drop(turn);
        drop(second.await);
    }

    #[test]
    fn nobody_waits_for_a_listener_that_is_gone_or_that_has_plenty_of_room() {
        let turns = ConnectTurns::default();
        assert!(turns.now(|| None).is_some());
        assert!(turns.next(|| None).now_or_never().is_some());
        turns.saw(queue(0, 4096));
        let never = || unreachable!("the last look showed enough");
        let many: Vec<_> = (0..4000).map(|_| turns.now(never).unwrap()).collect();
        assert_eq!(many.len(), 4000);
    }
}
