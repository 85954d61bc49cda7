//! What tasks and other processes report, and what that changes.
//!
//! These are methods of [`Gateway`] because most reports concern several components.

use tracing::info;

use super::{Gateway, StepScene};
use crate::control::protocol::FailureCode;
use crate::gateway::generation::{BuildError, Generation};
use crate::gateway::handover::predecessor_side::PredecessorEffect;
use crate::gateway::handover::successor_side::SuccessorEffect;
use crate::gateway::handover::{News, ToPredecessor, ToSuccessor, failpoint};
use crate::gateway::lifecycle::{Event, Phase};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::recovery::Rung;
use crate::gateway::watchdog::Watchdog;

impl Gateway {
    pub(super) fn happen(&mut self, event: LoopEvent) {
        match event {
            LoopEvent::Progress(progress) => {
                self.traces.progress(&progress);
                self.requests.progress(&progress);
            }
            LoopEvent::Built(number, result) => self.built(number, *result),
            LoopEvent::SidecarChanged => {
                self.tell_addresses();
                self.refresh();
                self.follow_recovery();
            }
            LoopEvent::ConfigurationChanged => {
                if self.recovery.configuration_changed() {
                    self.step(Event::Recover);
                }
            }
            LoopEvent::Drained(generation) => self.drained(generation),
            LoopEvent::Supervised(unit) => self.supervision.learn(unit),
            LoopEvent::EndAsked {
                intent,
                machine_stopping,
            } => self.end_for_restart(&intent, machine_stopping),
            LoopEvent::ClientsGone => {
                self.successor.clients_gone();
                self.end_when_quiet();
            }
            LoopEvent::Successor(generation, news) => self.hear_successor(generation, news),
            LoopEvent::Released(generation) => {
                // Given up meanwhile, while its sidecars still stopped: they are started again.
                if !self.successor.released(generation) {
                    self.start_stopped();
                }
            }
            LoopEvent::SuccessorEnded => self.start_stopped(),
            LoopEvent::Predecessor(message) => self.hear_predecessor(message),
            LoopEvent::PredecessorEnded(pid) => self.predecessor_ended(pid),
            LoopEvent::Step(name) => self.traces.step(name),
            LoopEvent::Quiet => self.step(Event::Quiet),
            LoopEvent::Checked(result) => Watchdog::feed(result, self.supervision.notifier()),
        }
    }

    fn built(&mut self, number: u64, result: Result<Generation, BuildError>) {
        let Some(source) = self.construction.finish(number) else {
            // It was abandoned: whatever ends the process sees its sidecars to their end.
            return;
        };
        match result {
            Ok(generation) => {
                let actions = self.recovery.ladder.adopted(&source.material.configuration);
                self.material = source.material;
                self.recovery.start_succeeded();
                self.climb(actions);
                self.traces.phase("sidecars");
                let scene = StepScene {
                    previous: self.generations.replace(generation),
                    report: Some(source.report),
                    unchanged: source.unchanged,
                    ..StepScene::default()
                };
                self.step_with(Event::Built(number), scene);
            }
            Err(error) => self.broken(number, FailureCode::Failed, &error.to_string()),
        }
    }

    /// The generation cannot be built.
    pub(super) fn broken(&mut self, number: u64, code: FailureCode, why: &str) {
        if matches!(self.machine.phase(), Phase::Starting(..)) {
            crate::text::log::error_lines(&format!("cannot start: {why}"));
            self.recovery.start_failed(why);
            // A candidate's predecessor keeps what is known, and a trial is one of many.
            if !self.is_candidate() && !matches!(self.recovery.ladder.rung(), Rung::Safe { .. }) {
                self.keep_bundle("start-failed", why);
            }
        }
        if self.is_candidate() {
            self.predecessor.tell(&ToPredecessor::Failed {
                why: why.to_owned(),
            });
        }
        self.traces.give_up();
        if let Some(current) = self.generations.current() {
            // Sockets bound for a generation that never came: nobody accepts there.
            self.front_door.prune(&current.config.gateway.listen);
        }
        // Before the step, which may begin the next reload.
        self.finish_reload();
        let scene = StepScene {
            code: Some(code),
            ..StepScene::default()
        };
        self.step_with(Event::Broken(number, why.to_owned()), scene);
        // What was replaced and put back runs in a new sidecar.
        self.follow_sidecars();
        self.refresh();
    }

    fn drained(&mut self, generation: u64) {
        self.generations.drained(generation);
        // After a hand-over the clients count, too.
        if !self.successor.has_handed_over() {
            self.requests.drained(generation);
        }
        self.refresh();
        self.end_when_quiet();
    }

    /// After a hand-over, ends when nothing is left to do.
    fn end_when_quiet(&mut self) {
        if self.successor.are_clients_gone()
            && self.generations.draining_numbers().is_empty()
            && matches!(self.machine.phase(), Phase::Yielded { .. })
        {
            self.requests.all_drained();
            self.step(Event::Quiet);
        }
    }

    fn hear_successor(&mut self, generation: u64, news: News) {
        match self.successor.hear(generation, news) {
            SuccessorEffect::Nothing => {}
            SuccessorEffect::Release(names) => self.release(generation, &names),
            SuccessorEffect::Ready => self.step(Event::SuccessorReady(generation)),
            SuccessorEffect::Serves => {
                failpoint::pass("old.served");
                let limit = self.finish_limit();
                self.step(Event::SuccessorServes { generation, limit });
            }
            SuccessorEffect::Redirect(sidecars) => {
                self.redirect(&sidecars);
                self.successor.heard_addresses();
                self.tell_successor();
            }
            SuccessorEffect::Lost(why) => self.successor_lost(generation, why),
        }
    }

    fn successor_lost(&mut self, generation: u64, why: String) {
        let handing_over = matches!(self.machine.phase(), Phase::Handing { .. });
        if self.successor.is_loss(generation, handing_over) {
            self.keep_bundle("respawn-failed", &why);
        }
        if matches!(self.machine.phase(), Phase::Yielded { .. }) {
            // A waiter is the main process itself, and nobody starts the next one.
            let restarts = self.supervision.by_systemd() && !self.successor.is_waiter();
            let state = &self.paths.state;
            if !self
                .successor
                .take_service(generation, &why, restarts, state)
            {
                return;
            }
        }
        self.step(Event::SuccessorLost(generation, why));
    }

    fn hear_predecessor(&mut self, message: Option<ToSuccessor>) {
        let waits = !self.machine.owned()
            && !matches!(self.machine.phase(), Phase::Ended | Phase::Stopping { .. });
        match self.predecessor.hear(message, waits) {
            PredecessorEffect::Nothing => {}
            PredecessorEffect::Go => self.step(Event::Go),
            PredecessorEffect::Stop => self.stop(false),
            PredecessorEffect::Orphaned => {
                self.step(Event::Orphaned);
                // Only now: the step may still need what it handed over.
                self.predecessor.gone();
            }
        }
    }

    fn predecessor_ended(&mut self, pid: u32) {
        if self.machine.owns() {
            info!("[gateway] pid {pid} has finished its work");
        }
        self.predecessor.ended(pid);
        if self.machine.owns() {
            self.record_owner();
            self.refresh();
        }
    }
}
