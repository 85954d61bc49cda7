//! The end of this process: the drain before a restart, the stop, and the last things.
//!
//! These are methods of [`Gateway`] because an end concerns every component.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::calls::announced;
use super::{ClientDrain, Gateway};
use crate::config::TUNNEL_DRAIN_ALONE;
use crate::gateway::control_end::ControlEnd;
use crate::gateway::drain::before_exit::DrainBeforeExit;
use crate::gateway::drain::budget::{Cut, DrainTime};
use crate::gateway::drain::process_end::EndingProcess;
use crate::gateway::drain::shutdown::{Heir, Shutdown};
use crate::gateway::fdstore_clients::ClientStore;
use crate::gateway::handover::{Stopping, ToPredecessor, Waiter};
use crate::gateway::lifecycle::{Budget, Event, Phase, RequestKind};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::pending_requests::Asker;
use crate::gateway::recovery::driver::LifeEnd;
use crate::proxy::Backend;
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
    pub(super) fn terminate(&mut self, intent: Option<Intent>) {
        if let Phase::Stopping { until } = *self.machine.phase() {
            return self.still_stopping("received SIGTERM again", until);
        }
        let Some(intent) = intent else {
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

    /// A stop that is asked for again changes nothing: says what it waits for, and how long.
    pub(super) fn still_stopping(&self, why: &str, until: Duration) {
        let slots = self.generations.slots();
        let left = slots
            .iter()
            .flat_map(|slot| slot.backend().tickets.blockers())
            .chain(self.leases.claim().blockers())
            .collect::<Vec<_>>()
            .join(", ");
        let left = if left.is_empty() { "nothing" } else { &left };
        let seconds = until.saturating_sub(self.now()).as_secs();
        info!("[gateway] {why}: already stopping, for {seconds} s at most; under way: {left}");
    }

    pub(super) fn stop(&mut self, at_once: bool) {
        let limit = self.stop_limit();
        // A stop that comes during a drain has less time.
        self.client_drain.hurry.cancel();
        self.step(Event::Stop { at_once, limit });
    }

    fn stop_limit(&self) -> Duration {
        let restart = &self.material.loaded.config.restart;
        let time = restart.stop_delay.0.saturating_add(restart.stop_drain.0);
        self.supervision.stop_limit(time)
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
        let time = DrainTime::new(end.drain, tunnels, &restart.hold);
        self.tell_last_drain(end.drain);
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
            time,
            leases: self.leases.claim(),
            at_least,
            store: Some(store).filter(|store| store.notifier.active() && restarted),
            steps: self.events.outbox(LoopEvent::Step),
        };
        let quiet = self.events.outbox(LoopEvent::Quiet);
        let hurry = self.begin_client_drain(end.extend);
        self.client_drain.forced = budget == Budget::Force;
        drain.start(hurry, quiet);
    }

    /// Begins a drain of the clients; what comes back ends it.
    pub(super) fn begin_client_drain(&mut self, extends: bool) -> CancellationToken {
        let hurry = CancellationToken::new();
        self.client_drain = ClientDrain {
            hurry: hurry.clone(),
            extends,
            ..ClientDrain::default()
        };
        hurry
    }

    /// Finishes what is there; see [`Shutdown`].
    pub(super) fn shut_down(&mut self, at_once: bool) {
        if self.machine.owns() {
            self.supervision
                .notifier()
                .stopping("stopping: finishing what is under way");
        }
        self.refresh();
        let heir = self.heir();
        // Before it is ready nobody can have made it the main process.
        let main = self.machine.owned() || self.generations.current().is_some();
        let serves = !self.successor.has_handed_over();
        let predecessors = self.predecessor.stop(main, serves);
        let shutdown = Shutdown {
            process: self.ending_process(predecessors),
            front: Arc::clone(&self.context.front),
            restart: self.material.loaded.config.restart.clone(),
            at_once,
            limit: self.stop_limit(),
            heir,
            unaccepted: self.front_door.unaccepted(),
            leases: self.leases.claim(),
            predecessor: self.predecessor.predecessor(),
        };
        self.client_drain.forced = at_once;
        self.tell_last_drain(Some(if at_once {
            Duration::ZERO
        } else {
            shutdown.limit
        }));
        shutdown.start(self.events.outbox(LoopEvent::Quiet));
    }

    /// Who holds the listeners after a stop of this process.
    fn heir(&self) -> Heir {
        let others = self.successor.has_handed_over() || !self.machine.owned();
        if others || self.front_door.listeners.are_passed_on() {
            Heir::Another
        } else if self.supervision.holds_listeners() {
            Heir::ServiceManager
        } else {
            Heir::Nobody
        }
    }

    fn ending_process(&mut self, predecessors: Stopping) -> EndingProcess {
        let slots = self.generations.slots();
        let doors = self.successor.doors().into_values();
        // Routes lead to the sidecars, too: each backend drains, and is named, once.
        let mut upstreams: Vec<Arc<Backend>> = Vec::new();
        for backend in self.front_door.upstreams().into_iter().chain(doors) {
            let mut known = slots.iter().map(|slot| slot.backend()).chain(&upstreams);
            if !known.any(|known| Arc::ptr_eq(known, &backend)) {
                upstreams.push(backend);
            }
        }
        EndingProcess {
            workers: self.front_door.all_workers(),
            slots,
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
        let cut = self.cut(code);
        self.requests.end_postponed(&self.context.front);
        self.feed.subscribers.close();
        self.predecessor.tell(ToPredecessor::Bye);
        self.front_door.end();
        // What is the successor's by now stays, and so does what a candidate never had.
        if !self.successor.has_handed_over() && self.machine.owned() {
            let held = self.supervision.holds_listeners();
            self.front_door.remove_paths(&self.paths.control, held);
        }
        let behind = self.successor.serves().map(|(pid, _)| pid);
        let record = self.recovery.record.clone();
        // The life of a candidate never began, and that of a waiter goes on.
        if let (true, Some(pid)) = (self.successor.stays_in_front(), behind) {
            let uptime_ms = self.context.front.started.elapsed().as_millis() as u64;
            record.stays_in_front(pid, uptime_ms, cut);
        } else if self.machine.owned() {
            let supervisor = self.supervision.verdict().supervisor.to_string();
            self.recovery.end(LifeEnd {
                code,
                uptime: self.context.front.started.elapsed(),
                cut,
                trace: self.traces.hand_over("supervised", "exit", &supervisor),
                failed_by_hand: self.generations.current().is_none()
                    && !self.supervision.is_service(),
            });
        }
        // Before the successor hears of the end: it looks into the record for how that was.
        record.flush();
        let waiter = self.successor.into_waiter().map(|waiter| {
            waiter.on_kill(Box::new(move |pid, signal| {
                record.killed(pid, signal);
                record.flush();
            }))
        });
        // A process that stays in front of others has not ended.
        if self.generations.current().is_some() && waiter.is_none() {
            info!("[gateway] ended with code {code}");
        }
        (self.control, waiter)
    }

    /// What this end cuts: nothing where all work was finished. What an end by force cuts is logged
    /// here. A bundle keeps what is known, unless nobody was to wait.
    fn cut(&self, code: u8) -> Cut {
        let drained = &self.client_drain.cut;
        if !drained.is_empty() {
            // It was logged when it was cut.
            if code != DONE {
                self.keep_bundle("cut", &format!("cut: {}", drained.join(", ")));
            }
            return drained.clone();
        }
        let slots = self.generations.slots();
        if code == DONE || slots.is_empty() {
            return Vec::new();
        }
        let cut: Cut = slots
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
