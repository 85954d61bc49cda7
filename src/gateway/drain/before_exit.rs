//! The drain before an exit that the service manager answers with the next process.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::{Cut, DrainTime, cut, within};
use super::clients::ClientExit;
use super::process_end::EndingProcess;
use crate::control::protocol::DrainCause;
use crate::gateway::fdstore_clients::ClientStore;
use crate::gateway::lease::Claim;
use crate::gateway::outbox::Outbox;
use crate::os::task::{TaskEnd, caught};
use crate::proxy::{CLOSE_HANDSHAKE, close_tunnels};

/// The drain before an exit that the service manager answers with the next process: new requests
/// are served until the work of the beginning is done, then nobody is accepted any more. Clients
/// that connect after that wait in the queue of a socket that the manager holds.
#[derive(Debug)]
pub struct DrainBeforeExit {
    pub process: EndingProcess,
    pub time: DrainTime,
    /// Work besides requests that was there when it began.
    pub leases: Claim,
    /// How long it serves on in any case.
    pub at_least: Duration,
    /// Where silent clients can wait for the next process.
    pub store: Option<ClientStore>,
    /// Hears of each step that is done.
    pub steps: Outbox<&'static str>,
}

impl DrainBeforeExit {
    /// Runs it in a task; `quiet` hears what was cut when it is done, unless `hurry` comes before.
    pub fn start(self, hurry: CancellationToken, quiet: Outbox<TaskEnd<Cut>>) {
        tokio::spawn(async move {
            // A stop that comes meanwhile has less time.
            let end = hurry.run_until_cancelled_owned(caught(self.run())).await;
            end.is_some_and(|end| quiet.send(end))
        });
    }

    async fn run(self) -> Cut {
        let begun = Instant::now();
        self.leases
            .tell_drain(DrainCause::Restart, self.time.requests);
        let longest = self.time.requests.map(|time| time.max(self.at_least));
        let served = async { tokio::join!(self.fade(begun), tokio::time::sleep(self.at_least)) };
        within(begun, longest, served).await;
        self.steps.send("restart.drain");
        self.process.stop_accepting();
        let queued = Instant::now();
        let left = longest.map(|longest| longest.saturating_sub(begun.elapsed()));
        let limit = left.map_or(self.time.held, |left| left.min(self.time.held));
        let cut = match within(queued, Some(limit), self.close(begun, queued)).await {
            true => Cut::new(),
            false => cut(
                "time to finish",
                self.process.backends(),
                Some(&self.leases),
            ),
        };
        // The requests of the predecessors' clients go to the sidecars that end now.
        self.steps.send("restart.close.clients");
        self.process.predecessors.kill();
        self.process.predecessors.ended().await;
        self.process.stop_sidecars(Duration::MAX).await;
        self.steps.send("restart.close.sidecars");
        cut
    }

    /// Finishes what is there; who connects now waits in the queue, since `queued`.
    async fn close(&self, begun: Instant, queued: Instant) {
        let process = &self.process;
        process.predecessors.hurry(true);
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
        let all =
            async { tokio::join!(quiet, process.predecessors.ended(), self.leases.released()) };
        let streams = async {
            tokio::time::sleep_until(queued + self.time.tunnels).await;
            let streams = process.backends();
            join_all(streams.map(|backend| backend.end_streams(CLOSE_HANDSHAKE))).await;
            std::future::pending().await
        };
        tokio::select! {
            _ = all => {}
            () = streams => {}
        }
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
                self.leases.released(),
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
