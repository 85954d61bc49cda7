//! A process in front of others, or behind another: what it passes on, and by which pid it is known.

use super::predecessors::PredecessorEnd;
use super::successor_side::SuccessorSide;
use super::waiter::{Waiter, WaiterEvent};
use crate::gateway::option_future::or_never;
use crate::gateway::outbox::Outbox;
use crate::gateway::signals::SignalRequest;
use crate::os::process::PidFd;

impl SuccessorSide {
    /// `ended` hears when the waiter in front of this process has ended. It ends last where nobody
    /// kills it.
    pub fn watch_front(&self, ended: Outbox<Option<PredecessorEnd>>) {
        let Some(link) = &self.link else {
            return;
        };
        let waiter = link.waiter().and_then(|pid| {
            let process = PidFd::open(pid).ok()?;
            // The number still was the waiter's when the descriptor was there.
            (link.waiter() == Some(pid)).then_some((pid, process))
        });
        let Some((pid, process)) = waiter else {
            ended.send(None);
            return;
        };
        tokio::spawn(async move {
            process.ended().wait().await;
            let status = process.exit_status().await;
            ended.send(Some(PredecessorEnd { pid, status }));
        });
    }

    /// Says to the waiter before us that this process serves now.
    pub fn tell_waiter(&self) {
        if let Some(link) = &self.link {
            link.current();
        }
    }

    /// The pids by which the outside knows the process that serves, where that is this one: its own
    /// and its waiter's.
    pub fn known_pids(&self) -> Vec<u32> {
        let waiter = self.link.as_ref().and_then(|link| link.waiter());
        [Some(std::process::id()), waiter]
            .into_iter()
            .flatten()
            .collect()
    }

    /// Whether another process serves behind this one.
    pub fn serves_behind(&self) -> bool {
        self.waiter.is_some() && self.has_handed_over()
    }

    /// What happens behind this process, if it is a waiter.
    pub async fn next_behind(&mut self) -> Option<WaiterEvent> {
        or_never(self.waiter.as_mut().map(Waiter::next)).await
    }

    pub fn happen_behind(&mut self, event: WaiterEvent) {
        if let Some(waiter) = &mut self.waiter {
            waiter.happen(event);
        }
    }

    /// Passes a signal on to the process that serves behind this one; false when there is none.
    pub fn forward(&self, asked: SignalRequest) -> bool {
        let waiter = self.waiter.as_ref().filter(|_| self.has_handed_over());
        waiter.inspect(|waiter| waiter.forward(asked)).is_some()
    }

    /// Whether this process stays when it has no work left: another one is behind it.
    pub fn stays_in_front(&self) -> bool {
        self.waiter.as_ref().is_some_and(Waiter::is_in_front)
    }

    /// The waiter that stays when this process has no work left; none when no process is behind it. The
    /// successor hears that this process has finished.
    pub fn into_waiter(self) -> Option<Waiter> {
        self.waiter.filter(Waiter::is_in_front)
    }
}
