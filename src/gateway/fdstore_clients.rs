//! Clients between two requests outlive an end without a successor in the service manager's fd
//! store: the next life takes them up, and what they ask meanwhile waits in their sockets.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;

use crate::systemd::{Notifier, PassedFd};

/// Names in the fd store.
const PREFIX: &str = "client-";

/// How many are kept. Our units allow 64 descriptors (FileDescriptorStoreMax=), listeners among
/// them, and what is beyond that the manager closes.
const MOST: usize = 48;

/// How long the manager may take to take them; a message of a process that is gone counts for
/// nothing.
const TAKEN: Duration = Duration::from_secs(2);

/// Stores the clients that come, until nobody sends any more. Those beyond the limit are closed, as
/// any server may close a silent connection.
pub async fn keep(notifier: Notifier, mut clients: mpsc::UnboundedReceiver<OwnedFd>) {
    let mut count = 0;
    while let Some(client) = clients.recv().await {
        if count < MOST {
            notifier.store(&format!("{PREFIX}{count}"), client.as_fd());
            count += 1;
        }
    }
    if count > 0 {
        let taken = notifier.barrier(TAKEN).await;
        let doubt = if taken {
            ""
        } else {
            ", if the manager took them"
        };
        info!("[gateway] {count} silent clients wait for the next start{doubt}");
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
