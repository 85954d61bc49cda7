//! The state in which a set of workers leaves service, and every transition of it: stop accepting,
//! drain kept connections, migrate them to another process, close them, abort.
//!
//! The threads, the accept loops and the client connections all watch one [`WorkerState`]. Its three
//! parts are independent of each other, and none of them goes back: a part only moves down the list
//! of its variants, so a late or repeated call never undoes an earlier one.
//!
//! | event | transitions |
//! |---|---|
//! | hand-over to a successor | `Stopped`, `Migration::To`; `Closing` when the time is over |
//! | restart by the service manager, with its fd store | `Stopped`, `Migration::To`, `Migration::Over` |
//! | restart by the service manager, without an fd store | `Draining`, `Stopped`, `Closing` |
//! | stop | `Draining` with `stop_delay`, `Closing`, at the end `QueueOnly`; `Stopped` where others hold the queue |
//! | end of the process, after each of these | `Aborted` |

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::moved_client::MovedClient;

/// What a set of workers does with new clients, with kept connections, and with idle ones.
#[derive(Clone, Debug, Default)]
pub struct WorkerState {
    pub accepting: Accepting,
    pub keep_alive: KeepAlive,
    pub migration: Migration,
}

/// Which new clients are accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Accepting {
    /// Every client.
    #[default]
    Open,
    /// Those that wait in the listen queues; a queue that was found empty is not looked at again.
    QueueOnly,
    /// None. The queues are left to another process that holds the same listeners.
    Stopped,
    /// None, and the threads end; what is not finished is cut.
    Aborted,
}

/// What becomes of a client connection after the response under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeepAlive {
    /// It is kept for the next request.
    #[default]
    Kept,
    /// The response says `Connection: close`; a connection that stays silent for long is closed.
    Draining { since: Instant },
    /// It is closed. An idle connection is closed at once.
    Closing,
}

/// Whether idle client connections move to another process.
#[derive(Clone, Debug, Default)]
pub enum Migration {
    /// They stay.
    #[default]
    Off,
    /// Their sockets go here as soon as no request is under way. The clients do not notice.
    To(mpsc::UnboundedSender<MovedClient>),
    /// The other process takes no more: a connection that becomes idle now is closed.
    Over,
}

impl WorkerState {
    /// Restricts which new clients are accepted. Like every transition, returns whether it changed
    /// anything.
    pub fn restrict(&mut self, accepting: Accepting) -> bool {
        let changed = self.accepting < accepting;
        self.accepting = self.accepting.max(accepting);
        changed
    }

    /// Asks clients to connect anew, each with its next response.
    pub fn drain(&mut self, now: Instant) -> bool {
        let changed = self.keep_alive == KeepAlive::Kept;
        if changed {
            self.keep_alive = KeepAlive::Draining { since: now };
        }
        changed
    }

    /// Closes idle connections now and the others after their response.
    pub fn close_connections(&mut self) -> bool {
        let before = std::mem::replace(&mut self.keep_alive, KeepAlive::Closing);
        before != KeepAlive::Closing
    }

    /// Sends the sockets of idle connections to `destination`.
    pub fn migrate_to(&mut self, destination: mpsc::UnboundedSender<MovedClient>) -> bool {
        self.migration = Migration::To(destination);
        true
    }

    /// Sends no sockets to the destination any more.
    pub fn end_migration(&mut self) -> bool {
        let changed = matches!(self.migration, Migration::To(_));
        if changed {
            self.migration = Migration::Over;
        }
        changed
    }

    /// Whether a connection leaves this process as soon as it is idle.
    pub fn migrates(&self) -> bool {
        !matches!(self.migration, Migration::Off)
    }

    /// Whether a response tells the client that its connection will be closed.
    pub fn announces_close(&self) -> bool {
        self.keep_alive != KeepAlive::Kept
    }
}

/// Waits until accepting is restricted to this degree, or further.
pub async fn restricted_to(state: &mut watch::Receiver<WorkerState>, accepting: Accepting) {
    // The sender lives as long as anything that waits for it.
    let _ = state.wait_for(|state| state.accepting >= accepting).await;
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn accepting_is_only_ever_restricted_further() {
        let mut state = WorkerState::default();
        assert_eq!(state.accepting, Accepting::Open);
        assert!(state.restrict(Accepting::QueueOnly));
        assert_eq!(state.accepting, Accepting::QueueOnly);
        assert!(
            state.restrict(Accepting::Stopped),
            "a successor has the queue now"
        );
        assert_eq!(state.accepting, Accepting::Stopped);
        assert!(!state.restrict(Accepting::QueueOnly));
        assert_eq!(state.accepting, Accepting::Stopped);
        assert!(state.restrict(Accepting::Aborted));
        assert!(!state.restrict(Accepting::Stopped) && !state.restrict(Accepting::Aborted));
        assert_eq!(state.accepting, Accepting::Aborted);
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_begins_once_and_closing_is_final() {
        let mut state = WorkerState::default();
        assert!(!state.announces_close());
        let since = Instant::now();
        assert!(state.drain(since));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert!(!state.drain(Instant::now()));
        assert_eq!(state.keep_alive, KeepAlive::Draining { since });
        assert!(state.announces_close());
        assert!(state.close_connections());
        assert!(!state.close_connections() && !state.drain(Instant::now()));
        assert_eq!(state.keep_alive, KeepAlive::Closing);
        assert!(state.announces_close());
    }

    #[test]
    fn a_migration_that_did_not_begin_does_not_end() {
        let mut state = WorkerState::default();
        assert!(!state.end_migration() && !state.migrates());
        let (destination, _sockets) = mpsc::unbounded_channel();
        assert!(state.migrate_to(destination));
        assert!(state.migrates());
        assert!(state.close_connections(), "closing does not end it");
        assert!(matches!(state.migration, Migration::To(_)));
        assert!(state.end_migration() && !state.end_migration());
        assert!(state.migrates(), "idle connections still leave");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_is_told_once_accepting_is_restricted_far_enough() {
        let state = watch::Sender::new(WorkerState::default());
        let mut receiver = state.subscribe();
        state.send_if_modified(|state| state.restrict(Accepting::QueueOnly));
        restricted_to(&mut receiver, Accepting::QueueOnly).await;
        let stopped = restricted_to(&mut receiver, Accepting::Stopped);
        tokio::pin!(stopped);
        assert!(stopped.as_mut().now_or_never().is_none());
        state.send_if_modified(|state| state.restrict(Accepting::Aborted));
        stopped.await;
    }
}
