//! A stop: nobody new is accepted, what is under way finishes within its time, the sidecars end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::budget::{cut, give_up_leases, within};
use crate::config::{RestartSection, TUNNEL_DRAIN_ALONE};
use crate::control::protocol::DrainCause;
use crate::gateway::handover::{Predecessor, Stopping, ToPredecessor};
use crate::gateway::lease::Claim;
use crate::gateway::outbox::Outbox;
use crate::gateway::slot::Slot;
use crate::proxy::{Backend, CLOSE_HANDSHAKE, Door, Workers, close_tunnels};

/// Kept back from the forced exit, so that a stop whose sidecars had to be killed still ends by
/// itself.
const MARGIN: Duration = Duration::from_secs(1);

/// Sidecars have at least this long to end, even when work used up the time.
const SIDECARS: Duration = Duration::from_secs(4);

/// A stop of everything there is.
#[derive(Debug)]
pub struct Shutdown {
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
    /// Processes that drain after a hand-over to this one.
    pub predecessors: Stopping,
    /// Is told when only the ends of those are left to wait for.
    pub predecessor: Option<Predecessor>,
    /// Ends of unused successors that are under way.
    pub ending: Vec<JoinHandle<()>>,
}

impl Shutdown {
    /// Runs it in a task; `quiet` hears when it is done.
    pub fn start(self, quiet: Outbox<()>) {
        tokio::spawn(async move {
            self.run().await;
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
        for slot in &self.slots {
            if !matches!(
                *slot.backend().watch().borrow(),
                Door::Open(_) | Door::RequestsOnly(_)
            ) {
                // Requests that wait here would wait in vain.
                slot.backend().set(Door::Gone);
            }
        }
        self.drain(begun).await;
        let left = self
            .limit
            .saturating_sub(MARGIN)
            .saturating_sub(begun.elapsed());
        join_all(self.slots.iter().map(|slot| slot.stop(left))).await;
        join_all(std::mem::take(&mut self.ending)).await;
        if let Some(predecessor) = &self.predecessor {
            predecessor.say(&ToPredecessor::Finished);
        }
        // They stop within the same time as this process, and began just after it.
        let last = Some(self.limit.saturating_sub(MARGIN / 2));
        if self.at_once || !within(begun, last, self.predecessors.ended()).await {
            self.predecessors.kill();
            self.predecessors.ended().await;
        }
    }

    async fn drain(&self, begun: Instant) {
        let longest = self
            .limit
            .saturating_sub(MARGIN + SIDECARS)
            .max(self.limit / 2);
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
        // The last of them are cut with the rest.
        let end_tunnels = close_tunnels(self.backends(), begun + tunnels, drain);
        self.leases.tell_drain(DrainCause::Stop, Some(drain));
        let told = join_all(self.slots.iter().map(|slot| slot.tell_drain(Some(drain))));
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
        if !within(begun, Some(drain), work).await {
            give_up_leases("time to stop", &self.leases);
        }
        cut(self.backends());
    }
}
