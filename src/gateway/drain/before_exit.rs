//! Leaving, for a next generation that the service manager starts: fade, then accept nobody more,
//! finish, end. Those who connect meanwhile wait in the queue of a socket that the manager holds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;

use crate::config::TUNNEL_DRAIN_ALONE;
use crate::gateway::budget::EXTEND_BY;
use crate::gateway::fdstore_clients;
use crate::gateway::handover::Stopping;
use crate::gateway::lifecycle::Budget;
use crate::gateway::loop_event::{LoopEvent, LoopEvents};
use crate::gateway::run_loop::Gateway;
use crate::gateway::slot::Slot;
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Workers, close_tunnels};
use crate::systemd::Notifier;

impl Gateway {
    /// Finishes what is under way, new requests of the beginning included, then says that all is
    /// quiet.
    pub fn leave(&mut self, budget: Budget) {
        info!("[gateway] leaving: the service manager starts the next generation");
        self.wanted("a restart by the service manager");
        self.refresh();
        let restart = &self.loaded.config.restart;
        let end = self.leave_budget(budget, self.asked_to_leave);
        self.extending = end.extend;
        if end.extend {
            self.notifier.extend(EXTEND_BY);
        }
        let requests = end.drain;
        let tunnels = restart
            .tunnel_drain
            .map_or(TUNNEL_DRAIN_ALONE, |time| time.0);
        let leaving = Leaving {
            steps: self.happened.clone(),
            workers: std::iter::once(&self.workers)
                .chain(&self.retired)
                .cloned()
                .collect(),
            slots: self.slots(),
            upstreams: self
                .context
                .front
                .table()
                .routes
                .backends()
                .cloned()
                .collect(),
            requests,
            tunnels: requests.map_or(tunnels, |requests| tunnels.min(requests)),
            predecessors: self.predecessors.watched(),
            ending: std::mem::take(&mut self.ending),
            at_least: self.launchd_delay(budget),
            store: Some(self.notifier)
                .filter(|notifier| notifier.active() && self.manager_ends_us()),
        };
        let (happened, hurry) = (self.happened.clone(), self.hurry.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = leaving.run() => {}
                // A stop that comes meanwhile has less time.
                () = hurry.cancelled() => return,
            }
            let _ = happened.send(LoopEvent::Quiet);
        });
    }
}

struct Leaving {
    /// Where each step is told.
    steps: LoopEvents,
    workers: Vec<Arc<Workers>>,
    slots: Vec<Arc<Slot>>,
    upstreams: Vec<Arc<Backend>>,
    requests: Option<Duration>,
    tunnels: Duration,
    predecessors: Stopping,
    /// Ends of others that are under way.
    ending: Vec<JoinHandle<()>>,
    /// How long it serves on in any case.
    at_least: Duration,
    /// Where silent clients can wait for the next life.
    store: Option<Notifier>,
}

impl Leaving {
    async fn run(mut self) {
        let begun = Instant::now();
        let backends = || {
            self.slots
                .iter()
                .map(|unit| unit.backend())
                .chain(&self.upstreams)
        };
        let tunnels = || close_tunnels(backends(), begun + self.tunnels, CLOSE_HANDSHAKE);
        let work = async {
            // Fade: those who come now are still served, until the work of this moment is done.
            backends().for_each(|backend| backend.begin_epoch());
            let clients = async {
                // Those who can wait for the next life need not come again.
                if self.store.is_none() {
                    join_all(self.workers.iter().map(|workers| workers.drain())).await;
                }
            };
            let done = join_all(backends().map(|backend| backend.wait_before()));
            let before =
                async { tokio::join!(done, tunnels(), self.predecessors.ended(), clients) };
            let fade = async {
                match self.requests {
                    Some(time) => drop(tokio::time::timeout(time / 2, before).await),
                    None => drop(before.await),
                }
            };
            tokio::join!(fade, tokio::time::sleep(self.at_least));
            self.done("restart.drain");
            self.workers
                .iter()
                .for_each(|workers| workers.stop_accepting(true));
            self.predecessors.hurry();
            let quiet = async {
                match self.store {
                    Some(notifier) => self.keep(notifier).await,
                    None => drop(
                        join_all(
                            self.workers
                                .iter()
                                .map(|workers| workers.close_connections()),
                        )
                        .await,
                    ),
                }
            };
            tokio::join!(quiet, self.predecessors.ended());
            // The last of the clients may have become a tunnel when the others had ended already.
            tunnels().await;
        };
        match self.requests {
            Some(time) => {
                if tokio::time::timeout_at(begun + time.max(self.at_least), work)
                    .await
                    .is_err()
                {
                    self.workers
                        .iter()
                        .for_each(|workers| workers.stop_accepting(true));
                    backends().for_each(|backend| backend.cut());
                }
            }
            None => work.await,
        }
        // Their requests, too, go to the sidecars that end now.
        self.done("restart.close.clients");
        self.predecessors.kill();
        self.predecessors.ended().await;
        join_all(
            self.slots
                .iter()
                .map(|unit| unit.stop(unit.spec().stop_timeout.0)),
        )
        .await;
        join_all(std::mem::take(&mut self.ending)).await;
        self.done("restart.close.sidecars");
    }

    fn done(&self, step: &'static str) {
        // When the loop is gone, nobody follows.
        let _ = self.steps.send(LoopEvent::Step(step));
    }

    /// Puts every client that is between two requests where the next life finds it; returns when
    /// none is left here.
    async fn keep(&self, notifier: Notifier) {
        let (elsewhere, clients) = mpsc::unbounded_channel();
        let keeping = tokio::spawn(fdstore_clients::keep(notifier, clients));
        join_all(
            self.workers
                .iter()
                .map(|workers| workers.migrate_to(elsewhere.clone())),
        )
        .await;
        self.workers
            .iter()
            .for_each(|workers| workers.end_migration());
        drop(elsewhere);
        // Those that are on their way.
        let _ = keeping.await;
    }
}
