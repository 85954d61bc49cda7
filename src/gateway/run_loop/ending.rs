//! The end of this process: the drain before a restart, the stop, and the last things.
//!
//! These are methods of [`Gateway`] because an end concerns every component.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::calls::{Asker, announced};
use super::{ClientDrain, Gateway};
use crate::config::TUNNEL_DRAIN_ALONE;
use crate::gateway::control_end::ControlEnd;
use crate::gateway::drain::budget::DrainTime;
use crate::gateway::drain::process_end::{DrainBeforeExit, EndingProcess, Shutdown};
use crate::gateway::fdstore_clients::ClientStore;
use crate::gateway::handover::{Stopping, ToPredecessor, Waiter};
use crate::gateway::lifecycle::{Budget, Event, Phase, RequestKind};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::recovery::driver::LifeEnd;
use crate::state::restart_intent::Intent;
use crate::state::terms::EndReason;
use crate::systemd::machine_stopping;

/// The exit code of a stop that was done (gateway(8)).
const DONE: u8 = 0;

/// What asks for an end.
impl Gateway {
    /// A SIGINT: a stop; a second one stops at once.
    pub(super) fn interrupt(&mut self) {
        let at_once = std::mem::replace(&mut self.interrupted, true);
        let how = if at_once {
            " at once"
        } else {
            "; once more to stop at once"
        };
        info!("[gateway] received SIGINT: stopping{how}");
        self.recovery
            .set_exit_reason(EndReason::Signal(Signal::SIGINT));
        self.stop(at_once);
    }

    /// The terminal is closed: a stop.
    pub(super) fn hang_up(&mut self) {
        info!("[gateway] received SIGHUP, and its terminal is closed: stopping");
        self.recovery
            .set_exit_reason(EndReason::Signal(Signal::SIGHUP));
        self.stop(false);
    }

    /// A SIGTERM: a stop, or the first half of a restart that was announced before.
    pub(super) fn terminate(&mut self) {
        let Some(intent) = self.take_intent() else {
            info!("[gateway] received SIGTERM: stopping");
            self.recovery
                .set_exit_reason(EndReason::Signal(Signal::SIGTERM));
            return self.stop(false);
        };
        info!("[gateway] received SIGTERM to restart: {}", intent.reason);
        if !self.supervision.is_service() {
            let params = announced(&intent);
            let asker = Asker::Signal(Signal::SIGTERM);
            return self.ask(RequestKind::Restart, params, &intent.reason, asker);
        }
        let events = self.events.clone();
        tokio::spawn(async move {
            let machine_stopping = machine_stopping().await;
            events.send(LoopEvent::EndAsked {
                intent,
                machine_stopping,
            });
        });
    }

    /// Ends, so that the service manager starts the next process.
    pub(super) fn end_for_restart(&mut self, intent: &Intent, machine_stopping: bool) {
        self.supervision.end_asked(machine_stopping);
        self.recovery
            .set_exit_reason(EndReason::ManagerRestart(Some(intent.reason.clone())));
        if !matches!(self.machine.phase(), Phase::Leaving { .. }) {
            let id = "SIGTERM";
            self.traces
                .asked(id, id, &intent.reason, intent.force, intent.wait_ms);
            self.traces.perform(id);
        }
        let budget = Budget::of(intent.force, intent.wait_ms);
        let drain = self.drain_limit(budget);
        let limit = self.supervision.end_budget(drain).force_exit;
        self.step(Event::End { budget, limit });
    }

    pub(super) fn stop(&mut self, at_once: bool) {
        let limit = self.stop_limit();
        // A stop that comes during a drain has less time.
        self.client_drain.hurry.cancel();
        self.step(Event::Stop { at_once, limit });
    }

    fn stop_limit(&self) -> Duration {
        let drain = self.material.loaded.config.restart.stop_drain.0;
        self.supervision.stop_limit(drain)
    }
}

/// The drain before an end, and the stop.
impl Gateway {
    /// Finishes what is under way, new requests of the beginning included, so that the service
    /// manager starts the next generation.
    pub(super) fn leave(&mut self, budget: Budget) {
        info!("[gateway] leaving: the service manager starts the next generation");
        self.recovery
            .set_exit_reason(EndReason::ManagerRestart(None));
        self.refresh();
        let end = self.supervision.end_budget(self.drain_limit(budget));
        if end.extend {
            self.supervision.extend();
        }
        let restart = &self.material.loaded.config.restart;
        let tunnels = restart
            .tunnel_drain
            .map_or(TUNNEL_DRAIN_ALONE, |time| time.0);
        let at_least = if budget == Budget::Force {
            Duration::ZERO
        } else {
            self.supervision
                .launchd_delay(self.now(), restart.launchd_exit_delay.0)
        };
        let store = ClientStore {
            notifier: self.supervision.notifier(),
            room: self
                .supervision
                .fd_store_room(self.front_door.listeners.stored()),
        };
        // systemd does not restart a waiter: what it stores would be lost.
        let restarted = self.supervision.by_systemd() && !self.successor.is_waiter();
        let predecessors = self.predecessor.predecessors.watched();
        let drain = DrainBeforeExit {
            process: self.ending_process(predecessors),
            time: DrainTime::new(end.drain, tunnels),
            at_least,
            store: Some(store).filter(|store| store.notifier.active() && restarted),
            steps: self.events.outbox(LoopEvent::Step),
        };
        let quiet = self.events.outbox(LoopEvent::Quiet);
        drain.start(self.begin_client_drain(end.extend), quiet);
    }

    /// Begins a drain of the clients; what comes back ends it.
    pub(super) fn begin_client_drain(&mut self, extends: bool) -> CancellationToken {
        let hurry = CancellationToken::new();
        self.client_drain = ClientDrain {
            hurry: hurry.clone(),
            extends,
        };
        hurry
    }

    /// Accepts no new client and finishes what is there.
    pub(super) fn shut_down(&mut self, at_once: bool) {
        if self.machine.owns() {
            self.supervision
                .notifier()
                .stopping("stopping: finishing what is under way");
        }
        // What the service manager or a successor holds, too, is served there.
        let leave_queue = self.supervision.holds_listeners() || self.successor.has_handed_over();
        self.front_door.close(leave_queue);
        // Before it is ready nobody can have made it the main process.
        let main = self.machine.owned() || self.generations.current().is_some();
        let predecessors = self.predecessor.stop(main);
        let shutdown = Shutdown {
            process: self.ending_process(predecessors),
            restart: self.material.loaded.config.restart.clone(),
            at_once,
            limit: self.stop_limit(),
            leases: self.leases.claim(),
            predecessor: self.predecessor.predecessor(),
        };
        shutdown.start(self.events.outbox(LoopEvent::Quiet));
    }

    fn ending_process(&mut self, predecessors: Stopping) -> EndingProcess {
        let mut upstreams = self.front_door.upstreams();
        upstreams.extend(self.successor.doors().into_values());
        EndingProcess {
            workers: self.front_door.all_workers(),
            slots: self.generations.slots(),
            upstreams,
            predecessors,
            ending: self.successor.ending.clone(),
        }
    }
}

/// The end of the process.
impl Gateway {
    /// The end, but for what has to be waited for.
    pub(super) fn end(mut self, code: u8) -> (ControlEnd, Option<Waiter>) {
        let cut = self.cut_by_force(code);
        self.predecessor.tell(ToPredecessor::Bye);
        self.front_door.end();
        // What is the successor's by now stays, and so does what a candidate never had.
        if !self.successor.has_handed_over() && self.machine.owned() {
            let held = self.supervision.holds_listeners();
            self.front_door.remove_paths(&self.paths.control, held);
        }
        // The life of a candidate never began.
        if self.machine.owned() {
            let supervisor = self.supervision.verdict().supervisor.to_string();
            self.recovery.end(LifeEnd {
                code,
                uptime: self.now(),
                cut,
                trace: self.traces.hand_over("supervised", "exit", &supervisor),
                failed_by_hand: self.generations.current().is_none()
                    && !self.supervision.is_service(),
            });
        }
        let waiter = self.successor.into_waiter();
        // A process that stays in front of others has not ended.
        if self.generations.current().is_some() && waiter.is_none() {
            info!("[gateway] ended with code {code}");
        }
        (self.control, waiter)
    }

    /// What an end by force cuts, which is logged and kept; nothing in an orderly end.
    fn cut_by_force(&self, code: u8) -> Vec<String> {
        let slots = self.generations.slots();
        if code == DONE || slots.is_empty() {
            return Vec::new();
        }
        let cut: Vec<String> = slots
            .iter()
            .flat_map(|slot| slot.backend().tickets.blockers())
            .chain(self.leases.claim().blockers())
            .collect();
        let text = cut.join(", ");
        let shown = if cut.is_empty() { "nothing" } else { &text };
        warn!("[gateway] forced to end; cut: {shown}");
        self.keep_bundle("forced-exit", &format!("cut: {text}"));
        cut
    }
}
