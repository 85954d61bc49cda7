//! After the hand-over, the clients of the old process: nobody new is accepted, silent connections
//! go to the successor, and the rest finishes within the budget.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::budget::{Cut, DrainTime, cut, within};
use super::clients::ClientExit;
use crate::gateway::handover::migrate;
use crate::gateway::lease::Claim;
use crate::gateway::outbox::Outbox;
use crate::os::task::{TaskEnd, caught};
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Workers, close_tunnels};

/// The drain of the clients of a process that has handed over.
#[derive(Debug)]
pub struct DrainAfterHandover {
    /// Work that is no request.
    pub leases: Claim,
    /// Where the successor takes over silent clients.
    pub takeover: PathBuf,
    pub workers: Arc<Workers>,
    /// To the successor's sidecars, and plain upstreams.
    pub backends: Vec<Arc<Backend>>,
    pub time: DrainTime,
}

impl DrainAfterHandover {
    /// Runs it in a task; `gone` hears what was cut when the last client is gone,
    /// unless `hurry` comes before.
    pub fn start(self, hurry: CancellationToken, gone: Outbox<TaskEnd<Cut>>) {
        let clients = ClientExit::new(|clients| migrate::send(self.takeover.clone(), clients));
        tokio::spawn(async move {
            let end = hurry
                .run_until_cancelled_owned(caught(self.run(clients)))
                .await;
            end.is_some_and(|end| gone.send(end))
        });
    }

    async fn run(self, clients: ClientExit) -> Cut {
        let begun = Instant::now();
        let workers = [self.workers];
        let tunnels_end = begun + self.time.tunnels;
        // Longer than this only a handshake without an answer takes, which is cut with the rest.
        let tunnels = || close_tunnels(self.backends.iter(), tunnels_end, CLOSE_HANDSHAKE);
        let work = async {
            let sent = clients.send_all(&workers);
            tokio::join!(sent, tunnels(), self.leases.released());
            // The last of the clients may have become a tunnel when the others had ended already.
            tunnels().await;
        };
        let mut left = Cut::new();
        if !within(begun, self.time.requests, work).await {
            left = cut("time to finish", self.backends.iter(), Some(&self.leases));
            let _ = tokio::time::timeout(CLOSE_HANDSHAKE, workers[0].close_connections()).await;
        }
        clients.close(&workers).await;
        left
    }
}
