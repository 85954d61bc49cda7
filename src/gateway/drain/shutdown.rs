//! A stop: nobody new is accepted, what is under way finishes within its time, the sidecars end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::warn;

use crate::config::{RestartSection, TUNNEL_DRAIN_ALONE};
use crate::gateway::handover::{Predecessor, Stopping, ToPredecessor};
use crate::gateway::lease::{Claim, DrainCause};
use crate::gateway::slot::Slot;
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Door, Workers, close_tunnels};

/// Kept back from the forced exit, so that a stop whose sidecars had to be killed still ends by
/// itself.
const MARGIN: Duration = Duration::from_secs(1);

/// Sidecars have at least this long to end, even when work used up the time.
const SIDECARS: Duration = Duration::from_secs(4);

/// A stop of everything there is.
#[derive(Debug)]
pub struct Wind {
    pub workers: Vec<Arc<Workers>>,
    /// Every sidecar of every generation.
    pub slots: Vec<Arc<Slot>>,
    /// Plain upstreams, which have tunnels, too.
    pub upstreams: Vec<Arc<Backend>>,
    pub restart: RestartSection,
    /// Do not wait for work.
    pub at_once: bool,
    /// How long all of it may take.
    pub limit: Duration,
    /// Work besides requests that was there when it began.
    pub leases: Claim,
    /// Processes that came before.
    pub predecessors: Stopping,
    /// To be told when nothing is left but to wait for those.
    pub predecessor: Option<Predecessor>,
    /// Ends of others that are under way.
    pub ending: Vec<JoinHandle<()>>,
}

impl Wind {
    pub async fn run(self) {
        let begun = Instant::now();
        let limit = self.limit;
        let longest = limit.saturating_sub(MARGIN + SIDECARS).max(limit / 2);
        let drain = if self.at_once {
            Duration::ZERO
        } else {
            self.restart.stop_drain.0.min(longest)
        };
        // Time for their goodbye is kept back.
        let tunnels = self
            .restart
            .tunnel_drain
            .map_or(TUNNEL_DRAIN_ALONE, |time| time.0)
            .min(drain.saturating_sub(CLOSE_HANDSHAKE));
        for unit in &self.slots {
            if !matches!(
                *unit.backend().watch().borrow(),
                Door::Open(_) | Door::RequestsOnly(_)
            ) {
                // Whoever waits here would wait in vain.
                unit.backend().set(Door::Gone);
            }
        }
        let backends = || {
            self.slots
                .iter()
                .map(|unit| unit.backend())
                .chain(&self.upstreams)
        };
        // The last of them are cut with the rest.
        let end_tunnels = close_tunnels(backends(), begun + tunnels, drain);
        self.leases.tell_drain(DrainCause::Stop, Some(drain));
        let told = join_all(self.slots.iter().map(|unit| unit.tell_drain(Some(drain))));
        let quiet = join_all(
            self.workers
                .iter()
                .map(|workers| workers.close_connections()),
        );
        // Their clients' requests go to the sidecars of this process.
        let predecessors = self.predecessors.worked();
        let work = async {
            tokio::join!(
                told,
                quiet,
                end_tunnels,
                self.leases.released(),
                predecessors
            )
        };
        // What is not finished by then is cut: that is what the time is for.
        if tokio::time::timeout_at(begun + drain, work).await.is_err() && self.leases.count() > 0 {
            warn!(
                "[gateway] time to stop is over; no longer waiting for {}",
                self.leases.blockers().join(", ")
            );
            self.leases.tell_deadline();
        }
        backends().for_each(|backend| backend.cut());
        let left = limit.saturating_sub(MARGIN).saturating_sub(begun.elapsed());
        join_all(self.slots.iter().map(|unit| unit.stop(left))).await;
        join_all(self.ending).await;
        if let Some(predecessor) = &self.predecessor {
            predecessor.say(&ToPredecessor::Finished);
        }
        // They stop within the same time as this process, and began just after it.
        if self.at_once
            || tokio::time::timeout_at(
                begun + limit.saturating_sub(MARGIN / 2),
                self.predecessors.ended(),
            )
            .await
            .is_err()
        {
            self.predecessors.kill();
            self.predecessors.ended().await;
        }
    }
}
