//! The current generation: requests go to it, the one before drains, the service manager and
//! `/readyz` know.

use std::sync::Arc;
use std::time::Duration;

use tracing::{error, info, warn};

use super::drain::old_generation::Drain;
use super::drain::shutdown::Wind;
use super::generation::{Generation, patience_of};
use super::lifecycle::{Budget, Phase};
use super::loop_event::LoopEvent;
use super::run_loop::Gateway;
use super::slot::Slot;
use super::watchdog;
use crate::state::terms::ProgressStage;

impl Gateway {
    /// Sends new requests to the current generation and lets the one before finish. Tells which one
    /// drains, if one does.
    pub(super) fn serve(
        &mut self,
        previous: Option<&Arc<Generation>>,
        budget: Budget,
    ) -> Option<u64> {
        let current = Arc::clone(self.current.as_ref()?);
        self.context.front.publish(current.table());
        self.workers
            .limit_connections(current.config.limits.connections);
        self.listeners.prune(&current.config.gateway.listen);
        if self.listeners.take_changed() {
            match self.listeners.handles() {
                Ok(sockets) => self.workers.listen(sockets),
                Err(error) => error!("[gateway] the listeners of before stay: {error}"),
            }
        }
        self.follow(&current);
        if previous.is_some() {
            // Before those of before end.
            self.tell_addresses();
        }
        let draining = previous.and_then(|previous| self.drain(previous, &current, budget));
        self.finish_reload();
        self.refresh();
        self.log_ready(&current);
        if self.machine.owns() {
            // The generation and the addresses may be others now.
            self.record_owner();
        }
        draining
    }

    fn drain(
        &mut self,
        previous: &Arc<Generation>,
        current: &Generation,
        budget: Budget,
    ) -> Option<u64> {
        self.drain_units(previous, previous.left_by(current), budget, current.number)
    }

    /// Drains everything of a generation whose successor lives in another process.
    pub(super) fn drain_all(&mut self, previous: &Arc<Generation>, budget: Budget) -> Option<u64> {
        self.drain_units(
            previous,
            previous.slots.values().cloned().collect(),
            budget,
            previous.number + 1,
        )
    }

    fn drain_units(
        &mut self,
        previous: &Arc<Generation>,
        left: Vec<Arc<Slot>>,
        budget: Budget,
        next: u64,
    ) -> Option<u64> {
        let slots: Vec<_> = left
            .into_iter()
            .map(|unit| {
                (
                    Arc::clone(&unit),
                    patience_of(budget, &unit.spec(), &previous.config),
                )
            })
            .collect();
        if slots.is_empty() {
            return None;
        }
        self.report.tell(
            ProgressStage::Switched,
            format!("generation {next} has all new requests"),
        );
        let drain = Drain::new(
            previous.number,
            slots,
            self.leases.claim(),
            self.lending.claim(),
            self.report.clone(),
        );
        self.drains.push(Arc::clone(&drain));
        let happened = self.happened.clone();
        let generation = previous.number;
        tokio::spawn(async move {
            drain.run().await;
            // When the loop is gone, nobody counts drains.
            let _ = happened.send(LoopEvent::Drained(generation));
        });
        Some(generation)
    }

    pub(super) fn follow(&mut self, current: &Generation) {
        self.followers.drain(..).for_each(|task| task.abort());
        for unit in current.slots.values() {
            let mut state = unit.sidecar().watch();
            let happened = self.happened.clone();
            self.followers.push(tokio::spawn(async move {
                while state.changed().await.is_ok() && happened.send(LoopEvent::SidecarChanged) {}
            }));
        }
    }

    /// Brings `/readyz` and systemd's view up to date.
    pub(super) fn refresh(&mut self) {
        let (_, detail) = self.stage();
        let serving = matches!(
            self.machine.phase(),
            Phase::Serving
                | Phase::Building(_)
                | Phase::Handing { .. }
                | Phase::Waiting { .. }
                | Phase::Leaving { .. }
        );
        let troubles = self
            .current
            .as_ref()
            .map(|generation| generation.troubles())
            .unwrap_or_default();
        match self.machine.phase() {
            // In a planned restart, requests are served or wait: that is ready.
            Phase::Building(_) | Phase::Handing { .. } => {}
            Phase::Serving => self.context.front.set_health(troubles),
            Phase::Waiting { .. } => self.context.front.set_health(vec![self.stage().1]),
            Phase::Starting(..) | Phase::Prepared(_) => {
                self.context.front.set_health(vec!["starting".to_owned()])
            }
            // Those whose connection is still here learn that another one is better.
            Phase::Yielded { .. } | Phase::Leaving { .. } => self
                .context
                .front
                .set_health(vec!["finishing its work".to_owned()]),
            Phase::Stopping { .. } | Phase::Ended => {
                self.context.front.set_health(vec!["stopping".to_owned()])
            }
        }
        if serving && !self.announced {
            self.announced = true;
            // Only now it has what it is to keep for the next life.
            self.ask_manager();
            self.notifier.ready(&detail);
        } else if serving && !self.reloading {
            self.notifier.status(&detail);
        }
    }

    pub(super) fn finish_reload(&mut self) {
        if std::mem::take(&mut self.reloading) {
            self.notifier.ready(&self.stage().1);
        }
    }

    fn log_ready(&mut self, current: &Generation) {
        let number = current.number;
        let troubles = current.troubles();
        if !troubles.is_empty() {
            warn!(
                GENERATION = number,
                "[gateway] generation {number} serves, but is not ready: {}",
                troubles.join("; ")
            );
            return;
        }
        let sidecars = current
            .info()
            .sidecars
            .into_iter()
            .map(|(name, pid)| format!("{name} pid {pid}"));
        let mut details = vec![format!("generation {number}")];
        details.extend(sidecars);
        details.push(format!(
            "up {} ms",
            self.context.front.started.elapsed().as_millis()
        ));
        info!(
            GENERATION = number,
            "[gateway] ready ({})",
            details.join(", ")
        );
        self.traces.ready();
    }

    /// Once: that two copies ran side by side.
    pub(super) fn notes(&mut self, overlapped: bool) -> Vec<String> {
        if !overlapped || self.overlap_explained {
            return Vec::new();
        }
        self.overlap_explained = true;
        vec!["old and new run side by side until the old one's work is done; if two copies must never run at once, use --exclusive or overlap = false".to_owned()]
    }

    pub(super) fn wind(&mut self, at_once: bool) {
        if self.machine.owns() {
            self.notifier
                .stopping("stopping: finishing what is under way");
        }
        let front = &self.context.front;
        front.set_closing();
        front.set_health(vec!["stopping".to_owned()]);
        // What the service manager or a successor holds, too, is served there.
        self.workers
            .stop_accepting(self.manager_holds() || self.succeeded_by.is_some());
        let predecessors = self.stop_predecessors();
        let front = &self.context.front;
        let wind = Wind {
            workers: std::iter::once(&self.workers)
                .chain(&self.retired)
                .cloned()
                .collect(),
            slots: self.slots(),
            upstreams: front
                .table()
                .routes
                .backends()
                .chain(self.doors.values())
                .cloned()
                .collect(),
            restart: self.loaded.config.restart.clone(),
            at_once,
            limit: self.stop_limit(),
            leases: self.leases.claim(),
            predecessors,
            predecessor: self
                .taking
                .as_ref()
                .map(|taking| taking.predecessor.clone()),
            ending: std::mem::take(&mut self.ending),
        };
        let happened = self.happened.clone();
        tokio::spawn(async move {
            wind.run().await;
            // The loop ends only after this, or without it.
            let _ = happened.send(LoopEvent::Quiet);
        });
    }

    pub(super) fn check(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return };
        let workers = Arc::clone(&self.workers);
        let front = Arc::clone(&self.context.front);
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let result = watchdog::check(&workers, &front, limit).await;
            // When the loop is gone, there is nothing to watch.
            let _ = happened.send(LoopEvent::Checked(result));
        });
    }
}
