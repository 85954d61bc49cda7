//! Clients between two requests outlive an end without a successor in the service manager's fd
//! store: the next life takes them up, and what they ask meanwhile waits in their sockets.

use std::os::fd::AsFd;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::proxy::{Announcement, MovedClient};
use crate::systemd::{Notifier, PassedFd};

/// Names in the fd store: a number follows, and for a client that a proxy announced, `-` and the address.
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
    pub async fn keep(self, mut clients: mpsc::UnboundedReceiver<MovedClient>) {
        let (mut count, mut closed) = (0, 0);
        while let Some(client) = clients.recv().await {
            if count < self.room {
                let name = name(count, client.announced);
                self.notifier.store(&name, client.socket.as_fd());
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

fn name(number: usize, announced: Announcement) -> String {
    match announced.to_text() {
        text if text.is_empty() => format!("{PREFIX}{number}"),
        text => format!("{PREFIX}{number}-{text}"),
    }
}

fn announced(name: &str) -> Announcement {
    let number = name.strip_prefix(PREFIX).unwrap_or_default();
    let text = number.split_once('-').map_or("", |(_, text)| text);
    Announcement::from_text(text)
}

/// Sorts out what a life before has kept. The manager forgets them: each is taken up once.
pub fn kept(passed: Vec<PassedFd>, notifier: Notifier) -> (Vec<MovedClient>, Vec<PassedFd>) {
    let (clients, others): (Vec<_>, Vec<_>) = passed
        .into_iter()
        .partition(|passed| passed.name.starts_with(PREFIX));
    let taken = clients.into_iter().map(|client| {
        notifier.remove(&client.name);
        MovedClient {
            announced: announced(&client.name),
            socket: client.fd,
        }
    });
    (taken.collect(), others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fd_store_keeps_what_a_proxy_announced() {
        let client = Announcement::Client(Some("2001:db8::7".parse().unwrap()));
        for (announcement, expected) in [
            (Announcement::None, "client-3"),
            (client, "client-3-20010db8000000000000000000000007"),
        ] {
            let name = name(3, announcement);
            assert_eq!(name, expected);
            assert_eq!(announced(&name), announcement);
        }
    }
}
