//! Before an exit that the service manager answers with the next process: new requests are served
//! until the work of the beginning is done, then nobody is accepted any more. Clients that connect
//! after that wait in the queue of a socket that the manager holds.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::{DrainTime, cut, within};
use super::clients::ClientExit;
use crate::gateway::fdstore_clients;
use crate::gateway::handover::Stopping;
use crate::gateway::outbox::Outbox;
use crate::gateway::slot::Slot;
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Workers, close_tunnels};
use crate::systemd::Notifier;

/// The drain of everything before an exit.
#[derive(Debug)]
pub struct DrainBeforeExit {
    pub workers: Vec<Arc<Workers>>,
    pub slots: Vec<Arc<Slot>>,
    /// Plain upstreams, which have tunnels, too.
    pub upstreams: Vec<Arc<Backend>>,
    pub time: DrainTime,
    pub predecessors: Stopping,
    /// Ends of unused successors that are under way.
    pub ending: Vec<JoinHandle<()>>,
    /// How long it serves on in any case.
    pub at_least: Duration,
    /// Where silent clients can wait for the next process.
    pub store: Option<Notifier>,
    /// Hears of each step that is done.
    pub steps: Outbox<&'static str>,
}

impl DrainBeforeExit {
    /// Runs it in a task; `quiet` hears when it is done, unless `hurry` comes before.
    pub fn start(self, hurry: CancellationToken, quiet: Outbox<()>) {
        tokio::spawn(async move {
            tokio::select! {
                () = self.run() => {}
                // A stop that comes meanwhile has less time.
                () = hurry.cancelled() => return,
            }
            quiet.send(());
        });
    }

    fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> + Clone {
        self.slots
            .iter()
            .map(|slot| slot.backend())
            .chain(&self.upstreams)
    }

    async fn run(mut self) {
        let begun = Instant::now();
        let longest = self.time.requests.map(|time| time.max(self.at_least));
        if !within(begun, longest, self.work(begun)).await {
            self.workers
                .iter()
                .for_each(|workers| workers.stop_accepting(true));
            cut(self.backends());
        }
        // Their requests, too, go to the sidecars that end now.
        self.steps.send("restart.close.clients");
        self.predecessors.kill();
        self.predecessors.ended().await;
        join_all(
            self.slots
                .iter()
                .map(|slot| slot.stop(slot.spec().stop_timeout.0)),
        )
        .await;
        join_all(std::mem::take(&mut self.ending)).await;
        self.steps.send("restart.close.sidecars");
    }

    async fn work(&self, begun: Instant) {
        tokio::join!(self.fade(begun), tokio::time::sleep(self.at_least));
        self.steps.send("restart.drain");
        self.workers
            .iter()
            .for_each(|workers| workers.stop_accepting(true));
        self.predecessors.hurry();
        let quiet = async {
            match self.store {
                Some(notifier) => {
                    let clients =
                        ClientExit::new(|clients| fdstore_clients::keep(notifier, clients));
                    clients.send_all(&self.workers).await;
                    clients.close(&self.workers).await;
                }
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
        self.tunnels(begun).await;
    }

    /// Serves everybody until the work of the beginning is done, or half the time is used.
    async fn fade(&self, begun: Instant) {
        self.backends().for_each(|backend| backend.begin_epoch());
        let clients = async {
            // Those who can wait for the next process keep their connection.
            if self.store.is_none() {
                join_all(self.workers.iter().map(|workers| workers.drain())).await;
            }
        };
        let done = join_all(self.backends().map(|backend| backend.wait_before()));
        let before = async {
            tokio::join!(
                done,
                self.tunnels(begun),
                self.predecessors.ended(),
                clients
            )
        };
        within(begun, self.time.requests.map(|time| time / 2), before).await;
    }

    async fn tunnels(&self, begun: Instant) {
        close_tunnels(self.backends(), begun + self.time.tunnels, CLOSE_HANDSHAKE).await;
    }
}
