//! The end of a process: a stop, or the exit after which the service manager starts the next one.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::budget::{DrainTime, cut, give_up_leases, within};
use super::clients::ClientExit;
use crate::config::{RestartSection, TUNNEL_DRAIN_ALONE};
use crate::control::protocol::DrainCause;
use crate::gateway::fdstore_clients::ClientStore;
use crate::gateway::handover::{Predecessor, Stopping, ToPredecessor};
use crate::gateway::lease::Claim;
use crate::gateway::outbox::Outbox;
use crate::gateway::slot::Slot;
use crate::os::task::{TaskEnd, caught};
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Door, Workers, close_tunnels};

/// Kept back from the forced exit, so that a stop whose sidecars had to be killed still ends by
/// itself.
const MARGIN: Duration = Duration::from_secs(1);

/// Sidecars have at least this long to end, even when work used up the time.
const SIDECARS: Duration = Duration::from_secs(4);

/// What a process that ends has.
#[derive(Debug)]
pub struct EndingProcess {
    pub workers: Vec<Arc<Workers>>,
    /// Every sidecar of every generation.
    pub slots: Vec<Arc<Slot>>,
    /// Plain upstreams, which have tunnels, too.
    pub upstreams: Vec<Arc<Backend>>,
    /// Processes that drain after a hand-over to this one.
    pub predecessors: Stopping,
    /// Ends of unused successors that are under way.
    pub ending: TaskTracker,
}

impl EndingProcess {
    fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> + Clone {
        self.slots
            .iter()
            .map(|slot| slot.backend())
            .chain(&self.upstreams)
    }

    fn stop_accepting(&self) {
        self.workers
            .iter()
            .for_each(|workers| workers.stop_accepting(true));
    }

    async fn close_connections(&self) {
        join_all(self.workers.iter().map(|one| one.close_connections())).await;
    }

    async fn stop_sidecars(&self, limit: Duration) {
        join_all(self.slots.iter().map(|slot| slot.stop(limit))).await;
        self.ending.wait().await;
    }
}

/// A stop: nobody new is accepted, what is under way finishes within its time, the sidecars end.
#[derive(Debug)]
pub struct Shutdown {
    pub process: EndingProcess,
    pub restart: RestartSection,
    /// Do not wait for work.
    pub at_once: bool,
    /// How long all of it may take.
    pub limit: Duration,
    /// Work besides requests that was there when it began.
    pub leases: Claim,
    /// Is told when only the ends of the predecessors are left to wait for.
    pub predecessor: Option<Predecessor>,
}

impl Shutdown {
    /// Runs it in a task; `quiet` hears when it is done.
    pub fn start(self, quiet: Outbox<TaskEnd>) {
        tokio::spawn(async move { quiet.send(caught(self.run()).await) });
    }

    async fn run(self) {
        let begun = Instant::now();
        for slot in &self.process.slots {
            if !matches!(
                *slot.backend().watch().borrow(),
                Door::Open(_) | Door::RequestsOnly(_)
            ) {
                // No sidecar will come for the requests that wait here.
                slot.backend().set(Door::Gone);
            }
        }
        self.drain(begun).await;
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
    }

    async fn drain(&self, begun: Instant) {
        let longest = self
            .limit
            .saturating_sub(MARGIN + SIDECARS)
            .max(self.limit / 2);
        let drain = if self.at_once {
            Duration::ZERO
        } else {
            self.restart.stop_drain.0.min(longest)
        };
        // Time for the close handshakes is kept back.
        let tunnels = self
            .restart
            .tunnel_drain
            .map_or(TUNNEL_DRAIN_ALONE, |time| time.0)
            .min(drain.saturating_sub(CLOSE_HANDSHAKE));
        let process = &self.process;
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
        if !within(begun, Some(drain), work).await {
            give_up_leases("time to stop", &self.leases);
        }
        cut(process.backends());
    }
}

/// The drain before an exit that the service manager answers with the next process: new requests
/// are served until the work of the beginning is done, then nobody is accepted any more. Clients
/// that connect after that wait in the queue of a socket that the manager holds.
#[derive(Debug)]
pub struct DrainBeforeExit {
    pub process: EndingProcess,
    pub time: DrainTime,
    /// How long it serves on in any case.
    pub at_least: Duration,
    /// Where silent clients can wait for the next process.
    pub store: Option<ClientStore>,
    /// Hears of each step that is done.
    pub steps: Outbox<&'static str>,
}

impl DrainBeforeExit {
    /// Runs it in a task; `quiet` hears when it is done, unless `hurry` comes before.
    pub fn start(self, hurry: CancellationToken, quiet: Outbox<TaskEnd>) {
        tokio::spawn(async move {
            // A stop that comes meanwhile has less time.
            let end = hurry.run_until_cancelled_owned(caught(self.run())).await;
            end.is_some_and(|end| quiet.send(end))
        });
    }

    async fn run(self) {
        let begun = Instant::now();
        let longest = self.time.requests.map(|time| time.max(self.at_least));
        if !within(begun, longest, self.work(begun)).await {
            self.process.stop_accepting();
            cut(self.process.backends());
        }
        // The requests of the predecessors' clients go to the sidecars that end now.
        self.steps.send("restart.close.clients");
        self.process.predecessors.kill();
        self.process.predecessors.ended().await;
        self.process.stop_sidecars(Duration::MAX).await;
        self.steps.send("restart.close.sidecars");
    }

    async fn work(&self, begun: Instant) {
        tokio::join!(self.fade(begun), tokio::time::sleep(self.at_least));
        self.steps.send("restart.drain");
        let process = &self.process;
        process.stop_accepting();
        process.predecessors.hurry();
        let quiet = async {
            match self.store {
                Some(store) => {
                    let clients = ClientExit::new(|clients| store.keep(clients));
                    clients.send_all(&process.workers).await;
                    clients.close(&process.workers).await;
                }
                None => process.close_connections().await,
            }
        };
        tokio::join!(quiet, process.predecessors.ended());
        // The last of the clients may have become a tunnel when the others had ended already.
        self.tunnels(begun).await;
    }

    /// Serves everybody until the work of the beginning is done, or half the time is used.
    async fn fade(&self, begun: Instant) {
        let process = &self.process;
        process
            .backends()
            .for_each(|backend| backend.tickets.begin_epoch());
        let clients = async {
            // Those who can wait for the next process keep their connection.
            if self.store.is_none() {
                join_all(process.workers.iter().map(|workers| workers.drain())).await;
            }
        };
        let before = async {
            tokio::join!(
                join_all(
                    process
                        .backends()
                        .map(|backend| backend.tickets.wait_before())
                ),
                self.tunnels(begun),
                process.predecessors.ended(),
                clients
            )
        };
        within(begun, self.time.requests.map(|time| time / 2), before).await;
    }

    async fn tunnels(&self, begun: Instant) {
        let at = begun + self.time.tunnels;
        close_tunnels(self.process.backends(), at, CLOSE_HANDSHAKE).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            time: DrainTime::new(None, Duration::ZERO),
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
            restart: RestartSection::default(),
            at_once: false,
            limit: Duration::from_secs(25),
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
