//! Clients between two requests outlive an end without a successor in the service manager's fd
//! store: the next life takes them up, and what they ask meanwhile waits in their sockets.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::systemd::{Notifier, PassedFd};

/// Names in the fd store.
const PREFIX: &str = "client-";

/// How long the manager may take to take them; a message of a process that is gone counts for
/// nothing.
const TAKEN: Duration = Duration::from_secs(2);

/// The part of the fd store that is free for clients.
#[derive(Clone, Copy, Debug)]
pub struct ClientStore {
    pub notifier: Notifier,
    /// How many clients the manager takes: what is beyond, it closes without a word.
    pub room: usize,
}

impl ClientStore {
    /// Stores the clients that come, until nobody sends any more. Those that find no room are
    /// closed, as any server may close a silent connection.
    pub async fn keep(self, mut clients: mpsc::UnboundedReceiver<OwnedFd>) {
        let (mut count, mut closed) = (0, 0);
        while let Some(client) = clients.recv().await {
            if count < self.room {
                let name = format!("{PREFIX}{count}");
                self.notifier.store(&name, client.as_fd());
                count += 1;
            } else {
                closed += 1;
            }
        }
        if count > 0 {
            let taken = self.notifier.barrier(TAKEN).await;
            let doubt = if taken {
                ""
            } else {
                ", if the manager took them"
            };
            info!("[gateway] {count} silent clients wait for the next start{doubt}");
        }
        if closed > 0 {
            warn!(
                "[gateway] {closed} silent clients are closed: the fd store has no room for them (FileDescriptorStoreMax=)"
            );
        }
    }
}

/// Sorts out what a life before has kept. The manager forgets them: each is taken up once.
pub fn kept(passed: Vec<PassedFd>, notifier: Notifier) -> (Vec<OwnedFd>, Vec<PassedFd>) {
    let (clients, others): (Vec<_>, Vec<_>) = passed
        .into_iter()
        .partition(|passed| passed.name.starts_with(PREFIX));
    let taken = clients.into_iter().map(|client| {
        notifier.remove(&client.name);
        client.fd
    });
    (taken.collect(), others)
}
