//! A hand-over, from both sides: this process has a successor, or a predecessor.
//!
//! These are methods of [`Gateway`] because a hand-over concerns every component.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::{Gateway, StepScene};
use crate::config::TUNNEL_DRAIN;
use crate::control::protocol::{FailureCode, HANDOVER_VERSION};
use crate::gateway::budget::RESTART_MARGIN;
use crate::gateway::drain::after_handover::DrainAfterHandover;
use crate::gateway::drain::budget::DrainTime;
use crate::gateway::generation::SidecarAddresses;
use crate::gateway::handover::offer::Offering;
use crate::gateway::handover::{
    Enclosed, News, Offer, PredecessorEnd, StartedSuccessor, ToPredecessor, ToSuccessor, failpoint,
};
use crate::gateway::lifecycle::{Budget, Event, Phase, RequestKind};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::outbox::Outbox;
use crate::gateway::ownership;
use crate::os::process::in_words;
use crate::state::terms::{EndReason, ProgressStage};

/// A successor: this process hands over.
impl Gateway {
    /// Starts a successor that builds this generation.
    pub(super) fn hand_over(&mut self, generation: u64, budget: Budget, request: &str) {
        self.begin_requests();
        let config = self.material.loaded.config.clone();
        self.make_room(&config, &RequestKind::Restart, Some(request));
        let report = self.reporter(Some(request.to_owned()));
        let supervisor = self.supervision.verdict().supervisor.to_string();
        let (reason, asked_at) = self.requests.about(request);
        self.traces.perform(request);
        let offer = Offer {
            asked_at,
            asks_for_passages: true,
            trace: self.traces.hand_over("spawned", "respawn", &supervisor),
            ..self.offer(generation, request, &reason)
        };
        let started = self.started_outbox(generation);
        let offering = Offering {
            offer,
            listeners: &self.front_door.listeners,
            predecessors: &self.predecessor.predecessors,
            current: self.generations.current().map(Arc::as_ref),
            serves: self.machine.current(),
            drain_ms: self.drain_ms(),
        };
        self.successor.start(offering, budget, report, started);
        self.supervision.working(&self.stage().1);
    }

    /// An offer to the process that is to serve this generation, because of this request.
    pub(super) fn offer(&self, generation: u64, request: &str, reason: &str) -> Offer {
        let loaded = &self.material.loaded;
        let notifier = self.supervision.notifier();
        Offer {
            version: HANDOVER_VERSION,
            pid: std::process::id(),
            instance: loaded.instance.clone(),
            config: loaded.path.clone(),
            state_dir: self.paths.state.clone(),
            generation,
            request: request.to_owned(),
            reason: reason.to_owned(),
            asked_at: String::new(),
            enclosed: Enclosed::default(),
            notify: notifier.address(),
            watchdog_usec: notifier.watchdog_usec(),
            verdict: self.supervision.verdict().clone(),
            asks_for_passages: false,
            trace: None,
        }
    }

    /// Milliseconds that this process has for its drain.
    pub(super) fn drain_ms(&self) -> u64 {
        let restart = &self.material.loaded.config.restart;
        restart.drain.0.as_millis() as u64
    }

    /// Hears whether that process was started: by an event, because the step that led there must end
    /// first.
    pub(super) fn started_outbox(&self, generation: u64) -> Outbox<StartedSuccessor> {
        let started = move |started| LoopEvent::Started(generation, started);
        self.events.outbox(started)
    }

    pub(super) fn successor_started(&mut self, generation: u64, started: StartedSuccessor) {
        let news = move |news| LoopEvent::Successor(generation, news);
        let news = self.events.outbox(news);
        if let Err(why) = self.successor.started(generation, started, news) {
            self.successor_lost(generation, why);
        }
    }

    pub(super) fn hear_successor(&mut self, generation: u64, news: News) {
        let message = match news {
            News::Lost(why) => return self.successor_lost(generation, why),
            News::Said(message) => message,
        };
        let Some(hand_over) = self.successor.of(generation) else {
            return;
        };
        match message {
            ToPredecessor::Hello { pid, .. } => {
                let text = format!("pid {pid} has what it needs to take over");
                hand_over.report.tell(ProgressStage::Preparing, text);
            }
            ToPredecessor::Progress { stage, text } => {
                hand_over.successor.know_children();
                // A later version may have other stages.
                if let Ok(stage) = stage.parse() {
                    hand_over.report.tell(stage, text);
                }
            }
            ToPredecessor::Release { names } => self.release(generation, &names),
            ToPredecessor::Ready { info, sidecars } => {
                hand_over.offered = Some((info, sidecars));
                self.step(Event::SuccessorReady(generation));
            }
            ToPredecessor::Serving { passages } => {
                failpoint::pass("old.served");
                let budget = hand_over.budget;
                if passages {
                    self.passages.begin(generation);
                }
                let limit = self.drain_limit(budget).map(|limit| limit + RESTART_MARGIN);
                self.step(Event::SuccessorServes { generation, limit });
            }
            ToPredecessor::Passages(report) => self.passages_heard(generation, report),
            ToPredecessor::Sidecars { sidecars } => {
                if let Some(sidecars) = self.successor.hear_addresses(sidecars) {
                    self.redirect(sidecars);
                }
                self.tell_successor();
            }
            ToPredecessor::Failed { why, invalid } => {
                let code = invalid.then_some(FailureCode::ConfigInvalid);
                self.successor_failed(generation, why, code);
            }
            ToPredecessor::Bye => {
                if self.successor.ends() {
                    let why = "the successor was stopped".to_owned();
                    self.successor_lost(generation, why);
                }
            }
            ToPredecessor::Alive | ToPredecessor::Finished => {}
        }
    }

    /// The successor is ready: makes it the main process, and then gives it the service.
    pub(super) fn commit(&mut self, generation: u64) {
        let made = move |end| LoopEvent::MadeMain(generation, end);
        let made = self.events.outbox(made);
        let supervision = &mut self.supervision;
        let make_main = |pid| supervision.make_main(pid);
        self.successor.commit(make_main, made);
    }

    pub(super) fn successor_lost(&mut self, generation: u64, why: String) {
        self.successor_failed(generation, why, None);
    }

    /// `code` is what whoever asked for it is answered, where that is not that it failed.
    fn successor_failed(&mut self, generation: u64, why: String, code: Option<FailureCode>) {
        let handing_over = self.machine.starts_successor();
        if self.successor.is_loss(generation, handing_over) {
            self.keep_bundle("respawn-failed", &why);
        }
        if matches!(self.machine.phase(), Phase::Yielded { .. }) {
            // A waiter is the main process itself: systemd does not start the next one.
            let restarts = self.supervision.by_systemd() && !self.successor.is_waiter();
            let (successor, state) = (&mut self.successor, &self.paths.state);
            let returning = successor.is_returning();
            match successor.take_service(generation, &why, restarts, state) {
                true if returning => {
                    self.step(Event::Go);
                    return self.death_stays_untold();
                }
                true => {}
                false if returning => return self.stay_away(),
                false => return,
            }
        }
        let mut scene = StepScene::default();
        scene.answers.given_up = Some(generation);
        scene.answers.code = code;
        self.step_with(Event::SuccessorLost(generation, why), scene);
    }

    /// Ends what must not run beside the sidecars of a successor.
    fn release(&self, generation: u64, names: &[String]) {
        let Some(current) = self.generations.current() else {
            return;
        };
        let events = &self.events;
        let released = events.outbox(move |end| LoopEvent::Released(generation, end));
        self.successor
            .release(names, current, self.holds(), released);
    }

    /// Starts again what was stopped for a successor that did not take over, and is gone with all
    /// that it had started.
    pub(super) fn start_stopped(&self) {
        // A build that began meanwhile replaces them itself; another successor asks for them again.
        if self.machine.phase() == &Phase::Serving {
            self.generations.start_stopped(&self.context);
        }
    }

    /// The successor does not take over: everything is ours again.
    pub(super) fn take_back(&mut self) {
        self.supervision.take_back();
        let ended = self.events.outbox(|()| LoopEvent::SuccessorEnded);
        if self.successor.take_back(ended) {
            // It may have put its own in place of our socket and our record.
            self.go_on();
        }
        self.refresh();
    }

    /// Accepts no client any more. Returns the generation that drains.
    pub(super) fn yield_to(&mut self, generation: u64, budget: Budget) -> Option<u64> {
        let current = Arc::clone(self.generations.current()?);
        let offers = self.events.outbox(LoopEvent::OfferedBack);
        let (pid, report, sidecars) = self.successor.hand_over_done(offers)?;
        let serves = self.successor.serves().map(|(_, info)| info.number);
        info!(
            "[gateway] pid {pid} serves generation {}; pid {} finishes its work",
            serves.unwrap_or(generation),
            std::process::id()
        );
        // Those before them will not serve again.
        self.predecessor.take_way_back();
        let mut keep = self.material.loaded.config.restart.watch.0;
        if self.successor.has_handed_back() {
            self.pass_on_death();
            keep = Duration::ZERO;
        }
        self.recovery
            .set_exit_reason(EndReason::Other(format!("handed over to pid {pid}")));
        self.front_door.give_up();
        self.redirect(sidecars);
        let doors = self.successor.doors();
        self.front_door.redirect(&current, &doors, generation);
        self.generations.unfollow();
        self.drain_clients(budget);
        failpoint::pass("old.yielded");
        let (holds, drained) = (self.holds(), self.drained_outbox());
        let draining = self
            .generations
            .drain(None, budget, keep, holds, &report, drained);
        draining.or(Some(current.number))
    }

    /// After a hand-over: where the successor's sidecars are now.
    fn redirect(&mut self, sidecars: SidecarAddresses) {
        self.successor.redirect(&sidecars, self.context.workers);
        // Requests in an older process may wait for sidecars of the successor.
        self.predecessor.tell_sidecars(|| sidecars);
    }

    /// After a hand-over: lets the clients end when it suits them, within the budget.
    fn drain_clients(&mut self, budget: Budget) {
        let restart = &self.material.loaded.config.restart;
        let tunnels = restart.tunnel_drain;
        let tunnels = tunnels.map_or(TUNNEL_DRAIN, |time| time.0);
        let drain = DrainAfterHandover {
            leases: self.leases.claim(),
            takeover: self.front_door.takeover.to_owned(),
            workers: Arc::clone(&self.front_door.workers),
            backends: self
                .successor
                .doors()
                .into_values()
                .chain(self.front_door.upstreams())
                .collect(),
            time: DrainTime::new(self.drain_limit(budget), tunnels, &restart.hold),
        };
        let gone = self.events.outbox(LoopEvent::ClientsGone);
        drain.start(self.begin_client_drain(false), gone);
        self.client_drain.forced = budget == Budget::Force;
    }

    /// Tells the successor every second what this process still does.
    pub(super) fn tell_successor(&self) {
        self.successor
            .tell_work(self.generations.draining(), &self.predecessor.lending);
    }

    /// The successor died and nobody else starts another: this process accepts again.
    pub(super) fn resume(&mut self) {
        self.client_drain.hurry.cancel();
        self.successor.resume();
        if self.front_door.accept_again() {
            self.front_door.take_clients();
            self.go_on();
        }
    }

    /// This life goes on, after a successor that was the owner on record.
    fn go_on(&mut self) {
        self.control.open();
        self.record_owner();
        self.recovery.go_on(&self.supervision.verdict().to_string());
    }
}

/// A predecessor: this process takes over.
impl Gateway {
    pub(super) fn hear_predecessor(&mut self, message: Option<ToSuccessor>) {
        match message {
            Some(ToSuccessor::Released) => self.predecessor.release(),
            Some(ToSuccessor::Go) => {
                failpoint::pass("new.go");
                self.step(Event::Go);
            }
            Some(ToSuccessor::Abort { main: false }) if self.successor.is_returning() => {
                self.stay_away()
            }
            Some(ToSuccessor::Abort { main }) => {
                let why = self.predecessor.aborted(main);
                self.recovery.set_exit_reason(EndReason::Other(why));
                self.stop(false);
            }
            Some(ToSuccessor::Draining {
                status,
                heard,
                borrowed,
            }) => {
                self.predecessor.drains(status, heard, borrowed);
                // What older processes have at the successor's sidecars is its to know.
                self.tell_successor();
            }
            Some(ToSuccessor::Relapsed(obituary)) => self.relapsed(&obituary),
            // It has died: the end of the stream that it was started with tells what is to be done.
            None if self.successor.is_returning() => {}
            None => {
                let ends = matches!(self.machine.phase(), Phase::Ended | Phase::Stopping { .. });
                self.predecessor.lost(!self.machine.owned() && !ends);
                self.step(Event::Orphaned);
                // Only now: the step may still need what it handed over.
                self.predecessor.forget();
                self.death_stays_untold();
            }
        }
    }

    /// Nobody follows this process any more: who did has seen the end of the process in front.
    pub(super) fn front_ended(&mut self, end: Option<PredecessorEnd>) {
        self.supervision.lose_front();
        if let Some(end) = end {
            let (pid, how) = (end.pid, end.status.map_or("ended".to_owned(), in_words));
            warn!("[gateway] pid {pid}, which stayed in front of this process, {how}");
            if self.machine.owns() {
                self.recovery.record.ended_unplanned(end);
            }
        }
        self.refresh();
    }

    pub(super) fn predecessor_ended(&mut self, end: PredecessorEnd) {
        self.predecessor.predecessors.ended(end.pid);
        self.recovery.record.predecessor_ended(end);
        if self.machine.owns() {
            self.record_owner();
            self.refresh();
        }
    }

    /// The generation is ready: says so.
    pub(super) fn announce(&self) {
        failpoint::pass("new.ready");
        if let Some(current) = self.generations.current() {
            self.predecessor.tell(ToPredecessor::Ready {
                info: current.info(),
                sidecars: current.addresses(),
            });
        }
    }

    /// The service is ours.
    pub(super) fn own(&mut self) {
        if let Some((notifier, restart)) = self.predecessor.take_over() {
            self.supervision.become_main(notifier);
            self.front_door.listeners.speak(notifier);
            self.requests.last = Some(restart);
        }
        self.recovery
            .take_over(&self.supervision.verdict().to_string());
        self.count_arrivals();
        self.front_door.accept();
        failpoint::pass("new.accepting");
        self.open_up();
        self.successor.tell_waiter();
        failpoint::pass("new.before-serving");
        // The predecessor ends its record when it hears that.
        self.predecessor.hold(self.recovery.record.written());
        let passages = self.predecessor.asks_for_passages();
        self.predecessor.tell(ToPredecessor::Serving { passages });
        self.supervision.notifier().watchdog();
    }

    /// From now on this process is the one that is found when the gateway is looked for.
    pub(super) fn open_up(&mut self) {
        self.record_owner();
        self.control.open();
        self.traces.phase("control");
        self.front_door.take_clients();
        info!(
            "[gateway] http server listening ({})",
            self.front_door.listeners.addresses().join(", ")
        );
    }

    /// Where the sidecars are now, for the requests that the predecessor still has.
    pub(super) fn tell_addresses(&mut self) {
        // After a hand-over, what the successor tells is passed on instead.
        let ours = !self.is_candidate() && !self.successor.has_handed_over();
        if let Some(current) = self.generations.current().filter(|_| ours) {
            self.predecessor.tell_sidecars(|| current.addresses());
        }
    }

    /// Writes that the service is this process's, and who still drains.
    pub(super) fn record_owner(&self) {
        self.recovery.record.owner(ownership::of_this_process(
            &self.material.loaded,
            self.front_door.listeners.addresses(),
            self.machine.current(),
            self.predecessor.predecessors.on_record(),
        ));
    }
}
