//! Clients between two requests leave a process that drains: each is sent to another process, or to
//! the fd store.

use std::sync::Arc;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::proxy::{MovedClient, Workers};

#[derive(Debug)]
pub struct ClientExit {
    to: mpsc::UnboundedSender<MovedClient>,
    /// Ends when every client that was sent has arrived.
    carrying: JoinHandle<()>,
}

impl ClientExit {
    /// `carry` takes the clients that come out of the receiver to where they go.
    pub fn new<F>(carry: impl FnOnce(mpsc::UnboundedReceiver<MovedClient>) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (to, clients) = mpsc::unbounded_channel();
        Self {
            to,
            carrying: tokio::spawn(carry(clients)),
        }
    }

    /// Sends each client as soon as it is between two requests; returns when none is left here.
    pub async fn send_all(&self, workers: &[Arc<Workers>]) {
        join_all(workers.iter().map(|one| one.migrate_to(self.to.clone()))).await;
    }

    /// Sends no more; returns when those on their way have arrived.
    pub async fn close(self, workers: &[Arc<Workers>]) {
        workers.iter().for_each(|workers| workers.end_migration());
        drop(self.to);
        // A carrier that failed has said so itself.
        let _ = self.carrying.await;
    }
}
