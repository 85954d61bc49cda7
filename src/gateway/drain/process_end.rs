//! What a process that ends has: its threads, its sidecars, its backends, and processes that drain.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
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

    /// Stops each sidecar when those have ended that started after it, which may use half of the time.
    pub async fn stop_sidecars(&self, limit: Duration) {
        let begun = Instant::now();
        let stop = async |slot: &Arc<Slot>| {
            let name = slot.name();
            let needs_it = |other: &&Arc<Slot>| other.spec().after.iter().any(|one| one == name);
            let others = self.slots.iter().filter(needs_it);
            let ended = join_all(others.map(|other| other.has_ended()));
            // Those that take longer than that do without it.
            let _ = timeout(limit / 2, ended).await;
            slot.stop(limit.saturating_sub(begun.elapsed())).await;
        };
        join_all(self.slots.iter().map(stop)).await;
        self.ending.wait().await;
    }
}
