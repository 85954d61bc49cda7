//! A stop. The front door answers to the last moment: new requests are served while what is under
//! way ends, and get 503 while the sidecars end; then the listen queues are emptied and closed.
//! Where somebody else holds the listeners after this process, they are left to that one instead.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout, timeout_at};

use super::budget::{Cut, cut, within};
use super::process_end::EndingProcess;
use crate::config::{RestartSection, TUNNEL_DRAIN_ALONE};
use crate::control::protocol::DrainCause;
use crate::gateway::handover::{Predecessor, ToPredecessor};
use crate::gateway::lease::Claim;
use crate::gateway::outbox::Outbox;
use crate::gateway::slot::Slot;
use crate::os::task::{TaskEnd, caught};
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Door, Front, ListenSocket, close_tunnels};
use crate::sidecar::SidecarState;
use crate::systemd::unit::facts_of;

/// Kept back from the forced exit, so that a stop whose sidecars had to be killed still ends by
/// itself.
const MARGIN: Duration = Duration::from_secs(1);

/// Sidecars have at least this long to end, even when work used up the time.
const SIDECARS: Duration = Duration::from_secs(4);

/// The end of the drain in which nobody new is served, so that what came during the stop is
/// finished, too; a quarter of a drain that is shorter than four times this.
const LATECOMERS: Duration = Duration::from_secs(5);

/// How long the clients in the listen queues may take to send a request and to get their 503.
const LAST_ANSWERS: Duration = Duration::from_secs(3);

/// Who holds the listeners when this process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heir {
    Nobody,
    /// Another process, or whoever passed them to this one.
    Another,
    /// systemd, in its fd store, unless this is the stop of the unit.
    ServiceManager,
}

impl Heir {
    async fn holds(self) -> bool {
        match self {
            Self::Nobody => false,
            Self::Another => true,
            Self::ServiceManager => facts_of(std::process::id())
                .await
                .is_none_or(|unit| unit.holds_after_end()),
        }
    }
}

/// What a stop has to do and how long it may take.
#[derive(Debug)]
pub struct Shutdown {
    pub process: EndingProcess,
    pub front: Arc<Front>,
    pub restart: RestartSection,
    /// Do not wait for work.
    pub at_once: bool,
    /// How long all of it may take.
    pub limit: Duration,
    pub heir: Heir,
    /// Sockets whose clients this process has left in the listen queues so far.
    pub unaccepted: Option<Vec<ListenSocket>>,
    /// Work besides requests that was there when it began.
    pub leases: Claim,
    /// Is told when only the ends of the predecessors are left to wait for.
    pub predecessor: Option<Predecessor>,
}

impl Shutdown {
    /// Runs it in a task; `quiet` hears what was cut when it is done.
    pub fn start(self, quiet: Outbox<TaskEnd<Cut>>) {
        tokio::spawn(async move { quiet.send(caught(self.run()).await) });
    }

    async fn run(mut self) -> Cut {
        let begun = Instant::now();
        let heir = tokio::spawn(self.heir.holds());
        let delay = self.delay();
        if !delay.is_zero() {
            self.process.announce_close();
            tokio::time::sleep(delay).await;
        }
        let (front, slots) = (Arc::clone(&self.front), self.process.slots.clone());
        let held = tokio::spawn(async move {
            // A task that only asks does not panic; if it did, the queue would be left alone.
            let held = heir.await.unwrap_or(true);
            turn_away(&front, &slots, held);
            held
        });
        let held = async { held.await.unwrap_or(true) };
        let (cut, held) = self.drain(begun + delay, held).await;
        let limit = self.limit.saturating_sub(MARGIN);
        let left = limit.saturating_sub(begun.elapsed());
        self.process.stop_sidecars(left).await;
        if let Some(predecessor) = &self.predecessor {
            predecessor.send(ToPredecessor::Finished);
        }
        // They stop within the same time as this process, and began just after it.
        let last = Some(self.limit.saturating_sub(MARGIN / 2));
        let predecessors = &self.process.predecessors;
        if self.at_once || !within(begun, last, predecessors.ended()).await {
            predecessors.kill();
            predecessors.ended().await;
        }
        if !held {
            if let (Some(sockets), Some(workers)) =
                (self.unaccepted.take(), self.process.workers.first())
            {
                workers.listen(sockets);
            }
            self.process.empty_queues();
            let answered = self.process.close_connections();
            let left = self.limit.saturating_sub(begun.elapsed());
            let _ = timeout(LAST_ANSWERS.min(left / 2), answered).await;
        }
        cut
    }

    /// How long everybody is served as before: never more than half of a stop.
    fn delay(&self) -> Duration {
        if self.at_once {
            Duration::ZERO
        } else {
            self.restart.stop_delay.0.min(self.limit / 2)
        }
    }

    /// How long the work under way may go on after that.
    fn drain_time(&self) -> Duration {
        let limit = self.limit.saturating_sub(self.delay());
        let longest = limit.saturating_sub(MARGIN + SIDECARS).max(limit / 2);
        if self.at_once {
            Duration::ZERO
        } else {
            self.restart.stop_drain.0.min(longest)
        }
    }

    /// Finishes what is under way; what is left at its end is cut. Tells, too, whether the
    /// listeners are held after this process.
    async fn drain(&self, begun: Instant, held: impl Future<Output = bool>) -> (Cut, bool) {
        let (process, drain) = (&self.process, self.drain_time());
        // Time for the close handshakes is kept back.
        let tunnels = self
            .restart
            .tunnel_drain
            .map_or(TUNNEL_DRAIN_ALONE, |time| time.0)
            .min(drain.saturating_sub(CLOSE_HANDSHAKE));
        process.backends().for_each(no_new_tunnels);
        // The last of them are cut with the rest.
        let end_tunnels = close_tunnels(process.backends(), begun + tunnels, drain);
        self.leases.tell_drain(DrainCause::Stop, Some(drain));
        let notices = process
            .slots
            .iter()
            .map(|slot| slot.tell_drain(Some(drain)));
        let work = async {
            tokio::join!(
                join_all(notices),
                process.close_connections(),
                end_tunnels,
                self.leases.released(),
                // Their clients' requests go to the sidecars of this process.
                process.predecessors.worked()
            )
        };
        tokio::pin!(work);
        let serving = begun + drain.saturating_sub(LATECOMERS.min(drain / 4));
        let early = timeout_at(serving, &mut work).await.is_ok();
        let held = held.await;
        if held {
            process.stop_accepting();
        } else {
            process
                .backends()
                .for_each(|backend| backend.set(Door::Gone));
        }
        let rest = async {
            if !early {
                work.await;
            }
            // Those that came meanwhile.
            process.close_connections().await;
        };
        let cut = if within(begun, Some(drain), rest).await {
            Cut::new()
        } else {
            cut("time to stop", process.backends(), Some(&self.leases))
        };
        (cut, held)
    }
}

/// Answers 503 to requests that wait for a server in vain. Where the next process serves the same
/// clients, they should not see the stop, so those wait on whose server is being started again.
fn turn_away(front: &Front, slots: &[Arc<Slot>], held: bool) {
    // Before the first generation serves, no server comes: its build has ended with this stop. A
    // request that was read cannot go back to the queue, so 503 with Retry-After sends its client to
    // whoever listens next at once; to hold it until this process ends would only cost it that time.
    if !held || front.table().generation == 0 {
        front.set_closing();
    }
    for slot in slots.iter().filter(|slot| !comes(slot)) {
        let waits = matches!(&*slot.backend().watch().borrow(), Door::Held(_));
        if waits {
            slot.backend().set(Door::Gone);
        }
    }
}

/// Whether the server behind a door is there or is about to be.
fn comes(slot: &Slot) -> bool {
    let sidecar = slot.sidecar();
    match sidecar.state() {
        SidecarState::Starting { .. } | SidecarState::Ready { .. } => true,
        SidecarState::Backoff { .. } => sidecar.failing().is_none(),
        SidecarState::Stopping { .. } | SidecarState::Stopped { .. } => false,
    }
}

/// A tunnel that begins during a stop would be ended at once: its client learns so before.
fn no_new_tunnels(backend: &Arc<Backend>) {
    let door = backend.watch().borrow().clone();
    if let Door::Open(upstream) = door {
        backend.set(Door::RequestsOnly(upstream));
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::config::{Config, Hold};
    use crate::gateway::drain::before_exit::DrainBeforeExit;
    use crate::gateway::drain::budget::DrainTime;
    use crate::gateway::handover::Stopping;

    #[tokio::test]
    async fn a_stop_during_an_exit_waits_for_what_the_exit_waited_for() {
        let ending = TaskTracker::new();
        ending.close();
        let process = || EndingProcess {
            workers: Vec::new(),
            slots: Vec::new(),
            upstreams: Vec::new(),
            predecessors: Stopping::default(),
            ending: ending.clone(),
        };
        let (steps, _) = Outbox::channel();
        let exit = DrainBeforeExit {
            process: process(),
            time: DrainTime::new(None, Duration::ZERO, &Hold::default()),
            leases: Claim::default(),
            at_least: Duration::ZERO,
            store: None,
            steps,
        };
        let (gone, successor_gone) = tokio::sync::oneshot::channel();
        ending.spawn(successor_gone);
        let (quiet, mut is_quiet) = Outbox::channel();
        let hurry = CancellationToken::new();
        exit.start(hurry.clone(), quiet.clone());
        tokio::task::yield_now().await;
        hurry.cancel();
        let stop = Shutdown {
            process: process(),
            front: Front::new("a", &Config::default()),
            restart: RestartSection::default(),
            at_once: false,
            limit: Duration::from_secs(25),
            heir: Heir::Another,
            unaccepted: None,
            leases: Claim::default(),
            predecessor: None,
        };
        stop.start(quiet);
        let early = tokio::time::timeout(Duration::from_millis(100), is_quiet.recv());
        assert!(early.await.is_err(), "an unused successor still ends");
        gone.send(()).unwrap();
        is_quiet.recv().await.unwrap().unwrap();
    }
}
