//! What a process that ends has: its threads, its sidecars, its backends, and processes that drain.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio_util::task::TaskTracker;

use crate::gateway::handover::Stopping;
use crate::gateway::slot::Slot;
use crate::proxy::{Backend, Workers};

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
    pub fn backends(&self) -> impl Iterator<Item = &Arc<Backend>> + Clone {
        self.slots
            .iter()
            .map(|slot| slot.backend())
            .chain(&self.upstreams)
    }

    /// Asks clients to connect anew, perhaps elsewhere.
    pub fn announce_close(&self) {
        self.workers
            .iter()
            .for_each(|workers| workers.announce_close());
    }

    pub fn stop_accepting(&self) {
        self.workers
            .iter()
            .for_each(|workers| workers.stop_accepting());
    }

    pub fn empty_queues(&self) {
        self.workers
            .iter()
            .for_each(|workers| workers.empty_queues());
    }

    pub async fn close_connections(&self) {
        join_all(self.workers.iter().map(|one| one.close_connections())).await;
    }

    pub async fn stop_sidecars(&self, limit: Duration) {
        join_all(self.slots.iter().map(|slot| slot.stop(limit))).await;
        self.ending.wait().await;
    }
}
