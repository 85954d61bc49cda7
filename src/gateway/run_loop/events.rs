//! What tasks report, and what that changes.
//!
//! These are methods of [`Gateway`] because most reports concern several components.

use tracing::{error, info, warn};

use super::{Gateway, StepScene};
use crate::control::protocol::{FailureCode, GatewayEvent, RestartEvent};
use crate::gateway::alert::{self, Alert, AlertKind};
use crate::gateway::building::BuildError;
use crate::gateway::generation::Generation;
use crate::gateway::handover::{ToPredecessor, ToSuccessor};
use crate::gateway::lifecycle::{Event, Fallback, Origin, Phase};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::pending_requests::RequestScene;
use crate::gateway::progress::CutWork;
use crate::gateway::recovery::Rung;
use crate::gateway::relapse::Before;
use crate::gateway::watchdog::Watchdog;
use crate::os::task::TaskEnd;
use crate::sidecar::SidecarNews;
use crate::state::terms::SidecarStanding;

impl Gateway {
    pub(super) fn happen(&mut self, event: LoopEvent) {
        if matches!(event, LoopEvent::Signalled(..)) {
            self.signals.count -= 1;
        } else if self.signals.count > 0 {
            return self.signals.since.push_back(event);
        }
        self.happen_in_turn(event);
        while self.signals.count == 0
            && let Some(next) = self.signals.since.pop_front()
        {
            self.happen_in_turn(next);
        }
    }

    fn happen_in_turn(&mut self, event: LoopEvent) {
        match event {
            LoopEvent::Progress(progress) => {
                self.traces.progress(&progress);
                self.requests.progress(&progress);
                let step = GatewayEvent::Restart(RestartEvent::Step(progress));
                self.feed.subscribers.publish(&step);
            }
            LoopEvent::Cut(work) => self.work_cut(work),
            LoopEvent::Built(number, result) => self.built(number, *result),
            LoopEvent::SidecarChanged => {
                self.look_for_relapse();
                self.tell_addresses();
                self.refresh();
                self.follow_recovery();
            }
            LoopEvent::SidecarNews(news) => self.sidecar_news(&news),
            LoopEvent::ConfigurationChanged => {
                if self.recovery.configuration_changed() {
                    self.step(Event::Recover);
                }
            }
            LoopEvent::Settled(id, passages) => self.settled(&id, passages),
            LoopEvent::Passages(number, passages) => self.passages_made(number, passages),
            LoopEvent::Relapsed(obituary) => self.relapsed(&obituary),
            LoopEvent::Drained(generation, end) => self.drained(generation, end),
            LoopEvent::Supervised(report) => {
                let listeners = self.front_door.listeners.stored();
                self.supervision.learn(report, listeners);
            }
            LoopEvent::Signalled(asked, intent) => self.signalled(asked, intent),
            LoopEvent::Read(number, material) => self.material_read(number, *material),
            LoopEvent::EndAsked {
                intent,
                machine_stopping,
            } => self.end_for_restart(&intent, machine_stopping),
            LoopEvent::ClientsGone(end) => {
                let end = end.map(|cut| self.client_drain.cut.extend(cut));
                self.note_end("the drain of the clients", end);
                self.successor.clients_gone();
                self.end_when_quiet();
            }
            LoopEvent::Started(generation, started) => self.successor_started(generation, started),
            LoopEvent::Successor(generation, news) => self.hear_successor(generation, news),
            LoopEvent::Released(generation, Err(why)) => {
                self.panicked("the release of exclusive sidecars", &why);
                self.successor_lost(generation, why);
            }
            LoopEvent::Released(generation, Ok(())) => match self.successor.of(generation) {
                Some(hand_over) => hand_over.successor.say(ToSuccessor::Released),
                // Given up meanwhile, while its sidecars still stopped: they are started again.
                None => self.start_stopped(),
            },
            LoopEvent::MadeMain(generation, Ok(())) => self.successor.begin(generation),
            LoopEvent::MadeMain(generation, Err(why)) => {
                self.panicked("making the successor the main process", &why);
                self.successor_lost(generation, why);
            }
            LoopEvent::SuccessorEnded => self.start_stopped(),
            LoopEvent::OfferedBack(offered) => self.offered_back(offered),
            LoopEvent::DiedEarly(obituary) => self.successor.tell_death(obituary),
            LoopEvent::Predecessor(message) => self.hear_predecessor(message),
            LoopEvent::PredecessorEnded(end) => self.predecessor_ended(end),
            LoopEvent::FrontEnded(end) => self.front_ended(end),
            LoopEvent::Step(name) => self.traces.step(name),
            LoopEvent::Quiet(end) => {
                let end = end.map(|cut| self.client_drain.cut.extend(cut));
                self.note_end("the drain before the end", end);
                self.step(self.client_drain.end());
            }
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
                let before = std::mem::replace(&mut self.material, source.material);
                self.recovery.start_succeeded();
                self.climb(actions);
                self.traces.phase("sidecars");
                let scene = StepScene {
                    previous: self
                        .generations
                        .replace(generation)
                        .map(|generation| Before::new(generation, before)),
                    report: Some(source.report),
                    answers: RequestScene::default(),
                };
                let persists = self.starts_alone() == Some(Fallback::Persist);
                self.step_with(Event::Built(number), scene);
                if persists && !self.generations.troubles().is_empty() {
                    let who = self.supervision.verdict();
                    info!(
                        "[gateway] the start failed; it answers 503 and tries again: supervised by {who} (GATEWAY_SUPERVISOR=none: exit with 1)"
                    );
                }
            }
            Err(error) => {
                let why = error.to_string();
                if let BuildError::Beside { name, .. } = &error {
                    self.refused_copies.count(name);
                }
                self.broken(number, FailureCode::Failed, &why);
                if matches!(error, BuildError::Panicked(_)) {
                    self.panicked("the build of a generation", &why);
                    // It may have come as far as to stop what it was to replace.
                    self.start_stopped();
                }
            }
        }
    }

    /// Records and shows what a drain had to cut. What it cut after a hand-over, the end of this
    /// process tells.
    fn work_cut(&mut self, work: CutWork) {
        self.tell_cut(&work);
        if self.successor.has_handed_over() {
            return self.client_drain.cut.extend(work.cut);
        }
        if !work.cut.is_empty() {
            self.recovery.record.cut(&work);
        }
        if !work.cut.is_empty() && !work.forced {
            let error = format!("cut at {}: {}", work.sidecar, work.cut.join(", "));
            self.keep_bundle("cut", &error);
        }
        self.requests.cut(work);
    }

    /// Records and shows what is noteworthy about a sidecar, and alerts people.
    fn sidecar_news(&mut self, news: &SidecarNews) {
        let SidecarNews { name, reason, .. } = news;
        match news.standing {
            // Its end is in the log.
            SidecarStanding::OutOfMemory => {}
            SidecarStanding::Failing => warn!(
                SIDECAR = name,
                "[gateway] sidecar {name} is failing: it {reason} (gatewayctl why)"
            ),
            SidecarStanding::Recovered => info!(
                SIDECAR = name,
                "[gateway] sidecar {name} is no longer failing: it {reason}"
            ),
        }
        self.recovery.record.sidecar(news);
        if news.alert {
            let alert = Alert {
                kind: AlertKind::SidecarFailing,
                reason: format!("sidecar {name} {reason}"),
            };
            let on_give_up = &self.material.loaded.config.recovery.on_give_up;
            alert::run(&self.context, on_give_up, &alert);
        }
        self.refresh();
    }

    /// What follows a failure of the first generation, where no other process serves.
    fn starts_alone(&self) -> Option<Fallback> {
        match self.machine.phase() {
            Phase::Starting(_, Origin::Alone(fallback)) => Some(*fallback),
            _ => None,
        }
    }

    /// The generation cannot be built.
    pub(super) fn broken(&mut self, number: u64, code: FailureCode, why: &str) {
        if matches!(self.machine.phase(), Phase::Starting(..)) {
            crate::text::log::error_lines(&format!("cannot start: {why}"));
            // Who sits at a terminal sees that it ends.
            if self.starts_alone() == Some(Fallback::End) && !self.supervision.at_terminal() {
                let who = self.supervision.verdict();
                info!(
                    "[gateway] it exits with 1 and is not tried again: nobody supervises it, {who} (GATEWAY_SUPERVISOR=NAME declares who does)"
                );
            }
            self.recovery.start_failed(why);
            // A candidate's predecessor keeps what is known, and a trial is one of many.
            if !self.is_candidate() && !matches!(self.recovery.ladder.rung(), Rung::Safe { .. }) {
                self.keep_bundle("start-failed", why);
            }
        }
        if self.is_candidate() {
            let why = why.to_owned();
            let invalid = code == FailureCode::ConfigInvalid;
            self.predecessor
                .tell(ToPredecessor::Failed { why, invalid });
        }
        self.traces.give_up();
        if let Some(current) = self.generations.current() {
            // Sockets bound for a generation that was not built: they have no acceptor.
            self.front_door
                .listeners
                .prune(&current.config.gateway.listen);
        }
        // Before the step, which may begin the next reload.
        self.finish_reload();
        let mut scene = StepScene::default();
        scene.answers.code = Some(code);
        scene.answers.given_up = Some(number);
        self.step_with(Event::Broken(number, why.to_owned()), scene);
        // What was replaced and put back runs in a new sidecar.
        self.follow_sidecars();
        self.refresh();
    }

    /// Keeps what is known about a task that panicked, which is a fault of this program.
    fn panicked(&self, what: &str, why: &str) {
        error!("[gateway] {what} failed: {why}");
        self.keep_bundle("panic", &format!("{what}: {why}"));
    }

    fn note_end(&self, what: &str, end: TaskEnd) {
        if let Err(why) = end {
            self.panicked(what, &why);
        }
    }

    fn drained(&mut self, generation: u64, end: TaskEnd) {
        self.generations.drained(generation);
        self.tell_drained(generation);
        self.before_is_gone(generation);
        if let Err(why) = &end {
            self.requests.drain_failed(generation, why);
        }
        self.note_end("the drain of an older generation", end);
        // After a hand-over the clients count, too.
        if !self.successor.has_handed_over() {
            self.requests.drained(Some(generation));
        } else if generation == self.machine.current() {
            // Its sidecars cannot serve again.
            self.successor.close_way_back();
        }
        self.refresh();
        self.end_when_quiet();
    }

    /// After a hand-over, ends when nothing is left to do.
    pub(super) fn end_when_quiet(&mut self) {
        if self.successor.are_clients_gone()
            && !self.requests.owes_answers()
            && self.generations.draining_numbers().is_empty()
            && matches!(self.machine.phase(), Phase::Yielded { .. })
            && !self.successor.is_returning()
        {
            self.requests.drained(None);
            self.step(self.client_drain.end());
        }
    }
}
