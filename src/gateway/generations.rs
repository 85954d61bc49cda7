//! The generation that serves, and the sidecars of others that have not ended yet.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::context::GatewayContext;
use super::drain::holds::DrainHolds;
use super::drain::old_generation::Drain;
use super::generation::{Generation, drain_time_of, named_pid};
use super::lifecycle::Budget;
use super::outbox::Outbox;
use super::progress::Reporter;
use super::slot::Slot;
use crate::control::protocol::{DrainStatus, GenerationInfo};
use crate::os::process::ProcessTable;
use crate::os::task::TaskEnd;
use crate::proxy::SidecarGauges;
use crate::sidecar::{Sidecar, SidecarState};
use crate::state::terms::ProgressStage;

#[derive(Debug, Default)]
pub struct Generations {
    current: Option<Arc<Generation>>,
    /// Follow the sidecars of the current generation.
    followers: Vec<JoinHandle<()>>,
    drains: Vec<Arc<Drain>>,
    /// What an abandoned build had started.
    abandoned: Vec<Arc<Slot>>,
}

impl Generations {
    pub fn current(&self) -> Option<&Arc<Generation>> {
        self.current.as_ref()
    }

    /// Makes `next` the current generation; the one before comes back.
    pub fn replace(&mut self, next: Generation) -> Option<Arc<Generation>> {
        self.current.replace(Arc::new(next))
    }

    /// Makes an older generation the current one, which comes back: its sidecars must have been
    /// [recalled](Self::recall).
    pub fn put_back(&mut self, before: Arc<Generation>) -> Option<Arc<Generation>> {
        self.current.replace(before)
    }

    /// Takes the sidecars of a generation back that drains; false when they are being stopped.
    pub fn recall(&mut self, generation: u64) -> bool {
        let drain = self.drains.iter().find(|one| one.generation == generation);
        let recalled = drain.is_some_and(|drain| drain.recall());
        if recalled {
            self.drained(generation);
        }
        recalled
    }

    /// A sidecar of the current generation that has died, where the one of `before` is ready.
    pub fn died_beside(&self, before: &Generation) -> Option<Arc<Slot>> {
        let died = |slot: &&Arc<Slot>| {
            let older = before.slots.get(slot.name());
            let older = older.filter(|older| !Arc::ptr_eq(older, slot));
            let ready =
                |older: &Arc<Slot>| matches!(older.sidecar().state(), SidecarState::Ready { .. });
            has_died(slot) && older.is_some_and(ready)
        };
        self.current_slots().find(died).cloned()
    }

    /// A sidecar of the current generation that has died since it became ready.
    pub fn died(&self) -> Option<Arc<Slot>> {
        self.current_slots().find(|slot| has_died(slot)).cloned()
    }

    /// The sidecars of the generation before need not run any longer than their work takes.
    pub fn let_go(&self) {
        self.drains.iter().for_each(|drain| drain.let_go());
    }

    /// The current generation's number and processes; empty before the first.
    pub fn info(&self) -> GenerationInfo {
        self.current()
            .map_or_else(Default::default, |one| one.info())
    }

    /// Which sidecars of the current generation are not ready that have to be, and why.
    pub fn troubles(&self) -> Vec<String> {
        self.current().map_or_else(Vec::new, |one| one.troubles())
    }

    /// What the metrics tell of the sidecars of the current generation.
    pub fn gauges(&self) -> Vec<SidecarGauges> {
        let gauges = |slot: &Arc<Slot>| {
            let ((name, pid), sidecar) = (named_pid(slot), slot.sidecar());
            SidecarGauges {
                name,
                pid,
                generation: slot.generation(),
                ready: slot.is_ready(),
                failing: sidecar.failing().is_some(),
                restarts: sidecar.restarts(),
            }
        };
        self.current_slots().map(gauges).collect()
    }

    /// Which of its sidecars that need not be ready are not, and why.
    pub fn optional_troubles(&self) -> Vec<String> {
        let current = self.current();
        current.map_or_else(Vec::new, |one| one.optional_troubles())
    }

    /// Which sidecars of the current generation are failing, and why.
    pub fn failing(&self) -> Vec<String> {
        self.current().map_or_else(Vec::new, |one| one.failing())
    }

    /// The sidecars of the current generation that wait for their next start, or are failing.
    pub fn to_retry(&self) -> Vec<Arc<Sidecar>> {
        let sidecars = self.current_slots().map(|slot| slot.sidecar());
        let dead = |sidecar: &Arc<Sidecar>| {
            matches!(sidecar.state(), SidecarState::Backoff { .. }) || sidecar.failing().is_some()
        };
        sidecars.filter(dead).collect()
    }

    /// Whether there is a current generation, and all of it is ready.
    pub fn is_ready(&self) -> bool {
        self.current.is_some() && self.troubles().is_empty()
    }

    fn current_slots(&self) -> impl Iterator<Item = &Arc<Slot>> {
        let current = self.current.iter();
        current.flat_map(|generation| generation.slots.values())
    }

    /// Every sidecar that runs: of the current generation, of those that drain, and what abandoned
    /// builds started.
    pub fn slots(&self) -> Vec<Arc<Slot>> {
        self.current_slots()
            .cloned()
            .chain(self.drains.iter().flat_map(|drain| drain.slots()))
            .chain(self.abandoned.iter().cloned())
            .collect()
    }

    /// Takes over what an abandoned build had started, so that a stop ends it.
    pub fn abandoned(&mut self, slots: Vec<Arc<Slot>>) {
        self.abandoned = slots;
    }

    /// Reports each change of a sidecar of the current generation or of its door, and of no other.
    pub fn follow(&mut self, changed: &Outbox<()>) {
        self.unfollow();
        let follow = |slot: &Arc<Slot>| {
            let (mut state, changed) = (slot.sidecar().watch(), changed.clone());
            let mut door = slot.backend().watch();
            tokio::spawn(async move {
                loop {
                    let change = tokio::select! {
                        change = state.changed() => change,
                        change = door.changed() => change,
                    };
                    if change.is_err() || !changed.send(()) {
                        return;
                    }
                }
            })
        };
        self.followers = self.current_slots().map(follow).collect();
    }

    pub fn unfollow(&mut self) {
        self.followers.drain(..).for_each(|task| task.abort());
    }

    /// Drains what the current generation does not keep of `previous`, or all of the current one
    /// when its successor lives in another process (none). Its sidecars run for `keep` at least, those
    /// of older generations no longer than their work. The number of the one that drains comes back;
    /// none when everything is kept.
    pub fn drain(
        &mut self,
        previous: Option<&Generation>,
        budget: Budget,
        keep: Duration,
        holds: DrainHolds,
        report: &Reporter,
        drained: Outbox<(u64, TaskEnd)>,
    ) -> Option<u64> {
        let current = self.current.as_deref()?;
        let (old, left, next) = match previous {
            Some(previous) => (previous, previous.left_by(current), current.number),
            None => {
                let all = current.slots.values().cloned().collect();
                (current, all, current.number + 1)
            }
        };
        let timed = |slot: Arc<Slot>| {
            let mut time = drain_time_of(budget, &slot.spec(), &old.config);
            if previous.is_none() {
                // Clients are in another process, whose doors do not lead here.
                time.sessions = None;
            }
            (slot, time)
        };
        let slots: Vec<_> = left.into_iter().map(timed).collect();
        let number = old.number;
        if slots.is_empty() {
            return None;
        }
        report.tell(
            ProgressStage::Switched,
            format!("generation {next} has all new requests"),
        );
        self.let_go();
        let last = old.config.restart.stop_drain.0;
        let drain = Drain::new(number, slots, holds, keep, last, report.clone());
        self.drains.push(Arc::clone(&drain));
        drain.start(drained);
        Some(number)
    }

    /// How many generations drain that have copies of these sidecars, and have not been asked to end early.
    pub fn going_on(&self, names: &[&str]) -> usize {
        self.drains_with(names).count()
    }

    /// The oldest of them.
    pub fn oldest(&self, names: &[&str]) -> Option<&Arc<Drain>> {
        self.drains_with(names).next()
    }

    fn drains_with(&self, names: &[&str]) -> impl Iterator<Item = &Arc<Drain>> {
        self.drains.iter().filter(move |drain| {
            let mut slots = drain.slots();
            !drain.ends_early() && slots.any(|slot| names.contains(&slot.name()))
        })
    }

    /// The drain of this generation has ended.
    pub fn drained(&mut self, generation: u64) {
        self.drains.retain(|drain| drain.generation != generation);
    }

    /// What each generation that drains still waits for.
    pub fn draining(&self) -> impl Iterator<Item = DrainStatus> {
        self.drains.iter().map(|drain| drain.status())
    }

    /// The same, with the memory of its sidecars.
    pub fn draining_in(&self, processes: &ProcessTable) -> impl Iterator<Item = DrainStatus> {
        self.drains.iter().map(|drain| DrainStatus {
            memory_bytes: (drain.slots())
                .filter_map(|slot| processes.memory(named_pid(&slot).1))
                .reduce(|sum, one| sum + one),
            ..drain.status()
        })
    }

    /// The numbers of the generations that have work left.
    pub fn busy_numbers(&self) -> Vec<u64> {
        let busy = self.drains.iter().filter(|drain| !drain.is_idle());
        busy.map(|drain| drain.generation).collect()
    }

    /// The numbers of the generations that drain.
    pub fn draining_numbers(&self) -> Vec<u64> {
        self.drains.iter().map(|drain| drain.generation).collect()
    }

    /// Starts again each sidecar of the current generation that was stopped for a successor.
    pub fn start_stopped(&self, context: &Arc<GatewayContext>) {
        for slot in self.current_slots() {
            if matches!(slot.sidecar().state(), SidecarState::Stopped { .. }) {
                let (slot, context) = (Arc::clone(slot), Arc::clone(context));
                tokio::spawn(async move { slot.resume(&context).await });
            }
        }
    }
}

/// Whether the sidecar of this slot has died since it became ready.
fn has_died(slot: &Slot) -> bool {
    let sidecar = slot.sidecar();
    sidecar.restarts() > 0 || matches!(sidecar.state(), SidecarState::Backoff { .. })
}
