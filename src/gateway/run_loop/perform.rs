//! What the machine says is done here: [`Gateway::perform`] has one arm for each action. What follows
//! it are the arms that concern several components, but for those in `handover` and `ending`.
//!
//! These are methods of [`Gateway`] because only that knows all components.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::OptionFuture;
use nix::sys::signal::Signal;

use super::calls::no_sidecar;
use super::{Gateway, StepScene};
use crate::config::{Env, whereabouts};
use crate::control::protocol::FailureCode;
use crate::gateway::building::{BuildOrder, BuildPlan, BuildSource, StartedSlots};
use crate::gateway::clients_watch::SETTLE;
use crate::gateway::config_source::Material;
use crate::gateway::drain::holds::DrainHolds;
use crate::gateway::lifecycle::{Action, Budget, Event, Phase, RequestKind, RequestVerdict};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::outbox::Outbox;
use crate::gateway::passage_wait::{PassageReport, PassageWait};
use crate::gateway::pending_requests::{RequestScene, Unanswered};
use crate::gateway::recovery::RecoveryAction;
use crate::os::jobs::aside;
use crate::os::task::TaskEnd;

/// How long reading the configuration may take; a disk that is only busy is faster.
const READ: Duration = Duration::from_secs(10);

impl Gateway {
    pub(super) fn step(&mut self, event: Event) {
        self.step_with(event, StepScene::default());
    }

    /// Brings an event to the machine and does what it says.
    pub(super) fn step_with(&mut self, event: Event, scene: StepScene) {
        let now = self.now();
        let actions = self.machine.step(event, now);
        self.perform(actions, scene);
        self.follow_recovery();
        self.follow_events();
    }

    /// Does what the machine says, in this order: the rest speaks to the service manager, so the
    /// service is owned first; answers tell what drains, so a generation serves, or is handed over,
    /// before them; and what begins next (a build, an end) begins when they are given.
    pub(super) fn perform(&mut self, mut actions: Vec<Action>, mut scene: StepScene) {
        actions.sort_by_key(|action| match action {
            Action::Own => 0,
            Action::Serve { .. }
            | Action::ServeAgain { .. }
            | Action::ComeBack
            | Action::Yield { .. } => 1,
            Action::Answer { .. } => 2,
            _ => 3,
        });
        for action in actions {
            match action {
                Action::Own => self.own(),
                Action::Serve { budget, .. } => {
                    let draining = self.serve(budget, &mut scene);
                    self.overlaps(draining, &mut scene);
                }
                Action::ServeAgain { .. } => self.serve_again(),
                Action::Yield { generation, budget } => {
                    let draining = self.yield_to(generation, budget);
                    self.overlaps(draining, &mut scene);
                }
                Action::Answer { id, verdict } => self.answer(&id, verdict, &scene.answers),
                Action::Build {
                    generation,
                    kind,
                    budget,
                    request,
                    persist,
                } => self.build(BuildOrder {
                    number: generation,
                    kind,
                    budget,
                    request,
                    persist,
                }),
                Action::HandOver {
                    generation,
                    budget,
                    request,
                } => self.hand_over(generation, budget, &request),
                Action::HandBack { generation } => self.hand_back(generation),
                Action::ComeBack => self.come_back(),
                Action::Commit(generation) => self.commit(generation),
                Action::TakeBack => self.take_back(),
                Action::Resume => self.resume(),
                Action::Announce => self.announce(),
                Action::Hurry { at_once } => {
                    self.client_drain.hurry.cancel();
                    self.shut_down(at_once);
                }
                Action::Leave { budget } => self.leave(budget),
                Action::Abandon(generation) => self.abandon(generation),
                Action::Wind { at_once } => {
                    self.traces.give_up();
                    self.shut_down(at_once);
                }
                Action::Exit(code) => self.exit = Some(code),
            }
        }
    }

    /// This generation drains beside the one that serves, if one does.
    fn overlaps(&mut self, draining: Option<u64>, scene: &mut StepScene) {
        scene.answers.draining = draining;
        if let Some(generation) = draining {
            self.tell_drain(generation);
        }
        let mut sidecars = self.material.loaded.config.sidecar.values();
        let unsaid = sidecars.any(|spec| spec.overlap.is_none() && spec.overlaps());
        let watch = self.material.loaded.config.restart.watch;
        scene.answers.notes = self.requests.notes(draining, watch, unsaid);
    }
}

/// Requests and their answers.
impl Gateway {
    pub(super) fn answer(&mut self, id: &str, verdict: RequestVerdict, scene: &RequestScene) {
        let scheduled = verdict == RequestVerdict::Scheduled;
        self.traces.answered(id, scheduled);
        if verdict == RequestVerdict::Moved {
            // Nobody waits for what a signal asked for, to ask the successor again.
            match self.requests.signal(id) {
                // An announced restart: there, without the announcement, it would be a stop.
                Some(Signal::SIGTERM) => self.successor.signal(Signal::SIGUSR1),
                Some(signal) => self.successor.signal(signal),
                None => {}
            }
        }
        let serves = self.successor.serves();
        let mut scene = RequestScene {
            after: serves.map_or_else(|| self.generations.info(), |(_, info)| info.clone()),
            pid: serves.map(|(pid, _)| pid),
            ..scene.clone()
        };
        let front = Arc::clone(&self.context.front);
        let passages = self.passages_of(&verdict, scene.unchanged);
        let settles = verdict.is_final() && front.stats.is_unsettled();
        if !settles && passages.is_none() {
            return self.requests.end(id, verdict, &scene, &front);
        }
        // What became of those who were held is a part of the answer, and what came of the passages.
        scene.took_ms = self.requests.age_of(id);
        let id = id.to_owned();
        self.requests.postpone(Unanswered {
            id: id.clone(),
            verdict,
            scene,
            settled: false,
        });
        let settled =
            (self.events).outbox(move |passages| LoopEvent::Settled(id.clone(), passages));
        tokio::spawn(async move {
            let held = tokio::time::timeout(SETTLE, front.stats.settled());
            let passages = OptionFuture::from(passages.map(PassageWait::report));
            let (_, passages) = tokio::join!(held, passages);
            settled.send(passages.flatten().unwrap_or_default());
        });
    }

    /// Those who were held are answered, or take long, and the passages are made.
    pub(super) fn settled(&mut self, id: &str, passages: PassageReport) {
        let Some(mut unanswered) = self.requests.resume(id) else {
            return;
        };
        unanswered.settled = true;
        let scene = &mut unanswered.scene;
        scene.passages = passages;
        if !self.successor.has_handed_over() {
            let draining = self.generations.draining_numbers();
            scene.draining = scene.draining.filter(|number| draining.contains(number));
        }
        if self.requests.is_doubted(&unanswered.verdict) {
            // It was not done, and how it failed is about to be known.
            return self.requests.postpone(unanswered);
        }
        self.requests.end_settled(unanswered, &self.context.front);
        self.end_when_quiet();
        self.follow_events();
    }

    /// It is known how a generation died, or will not be: answers those who only waited for that.
    pub(super) fn answer_undoubted(&mut self) {
        for unanswered in self.requests.undoubted() {
            self.requests.end_settled(unanswered, &self.context.front);
        }
        self.end_when_quiet();
        self.follow_events();
    }
}

/// A generation: built, served, drained.
impl Gateway {
    /// Reads the configuration again, unless the process has just begun, and builds from it.
    fn build(&mut self, order: BuildOrder) {
        self.begin_requests();
        if let Some(id) = &order.request {
            self.traces.perform(id);
        }
        if order.kind == RequestKind::Reload {
            self.supervision.begin_reload();
        }
        let nobody_serves = matches!(self.machine.phase(), Phase::Starting(..));
        if nobody_serves && !self.recovery.has_waited() && self.generations.current().is_none() {
            // It was read a moment ago.
            return self.build_from(order, self.material.clone());
        }
        let number = order.number;
        let sidecar = order.kind.sidecar().map(str::to_owned);
        if let Some(name) = &sidecar
            && !self.material.loaded.config.sidecar.contains_key(name)
        {
            // It was there when that was asked for.
            let why = no_sidecar(name, self.generations.current());
            return self.broken(number, FailureCode::Rejected, &why);
        }
        self.construction.order(order);
        self.supervision.working(&self.stage().1);
        let (before, flags) = (self.material.clone(), self.context.flags.clone());
        let (state, events) = (self.paths.state.clone(), self.events.clone());
        tokio::spawn(async move {
            let read = move || match sidecar {
                // The others run on, so the configuration in force stays: a reload applies a newer one.
                Some(name) => before.with_env_file_of(&name),
                None => before.reread(&flags, &state, nobody_serves),
            };
            let material = aside(READ, read).await.unwrap_or_else(|| {
                let limit = READ.as_secs();
                Err(format!(
                    "the configuration was not read within {limit} s: does its disk answer?"
                ))
            });
            events.send(LoopEvent::Read(number, Box::new(material)));
        });
    }

    /// A build begins, here or in a successor.
    pub(super) fn begin_requests(&mut self) {
        let serving = self.generations.info();
        self.requests.build_begins(&serving, &self.context.front);
    }

    /// The configuration for this generation was read.
    pub(super) fn material_read(&mut self, number: u64, read: Result<Material, String>) {
        let Some(order) = self.construction.ordered(number) else {
            return;
        };
        match read.and_then(|material| self.adopt(material)) {
            Ok(material) => self.build_from(order, material),
            Err(why) => self.broken(number, FailureCode::ConfigInvalid, &why),
        }
    }

    fn build_from(&mut self, order: BuildOrder, material: Material) {
        let previous = self.generations.current().cloned();
        let config = Arc::new(material.loaded.config.clone());
        let mut slots = previous.iter().flat_map(|previous| previous.slots.values());
        let by_own_means = slots.any(|slot| slot.can_restart_itself());
        if order.kind == RequestKind::Reload
            && !by_own_means
            && *config == self.material.loaded.config
        {
            return self.unchanged(order.number, material);
        }
        self.make_room(&config, &order.kind, order.request.as_deref());
        let predecessor = self.predecessor.predecessor();
        let source = BuildSource {
            report: self.reporter(order.request).passing_on(predecessor),
            material,
        };
        let first = previous.is_none() && !self.machine.owned();
        let gate = first.then(|| self.predecessor.gate()).flatten();
        let number = order.number;
        let plan = BuildPlan {
            number,
            config,
            previous,
            kind: order.kind,
            budget: order.budget,
            persist: order.persist,
            started: StartedSlots::default(),
            holds: self.holds(),
            gate,
            candidate: first,
            context: Arc::clone(&self.context),
            report: source.report.clone(),
        };
        let events = &self.events;
        let built = events.outbox(move |result| LoopEvent::Built(number, result));
        self.construction.start(plan, source, built);
        self.supervision.working(&self.stage().1);
    }

    /// A reload that found nothing to do: what serves goes on, with its number.
    fn unchanged(&mut self, number: u64, material: Material) {
        let actions = self.recovery.ladder.adopted(&material.configuration);
        self.material = material;
        self.front_door.apply(&self.material.loaded.config);
        self.recovery.start_succeeded();
        self.climb(actions);
        self.traces.give_up();
        // Before the step, which may begin the next reload.
        self.finish_reload();
        let mut scene = StepScene::default();
        scene.answers.unchanged = true;
        self.step_with(Event::Unchanged(number), scene);
        self.refresh();
    }

    /// Opens the addresses that the next generation is to have.
    fn adopt(&mut self, mut material: Material) -> Result<Material, String> {
        let now = &self.material.loaded;
        let mut wanted = material.loaded.config.gateway.listen.clone();
        // Port 0 was chosen by the kernel once; the choice stands.
        wanted.retain(|listen| {
            listen.port() != Some(0) || !now.config.gateway.listen.contains(listen)
        });
        self.front_door
            .listeners
            .change(&wanted)
            .map_err(|error| error.to_string())?;
        material.loaded.path = material.loaded.path.or_else(|| now.path.clone());
        if matches!(self.machine.phase(), Phase::Starting(..)) {
            let actions = self.recovery.ladder.adopted(&material.configuration);
            self.climb(actions);
        }
        Ok(material)
    }

    /// Sends new requests to the current generation and lets the one before finish. Returns the one
    /// that drains, if one does.
    fn serve(&mut self, budget: Budget, scene: &mut StepScene) -> Option<u64> {
        let current = Arc::clone(self.generations.current()?);
        self.front_door.serve(&current);
        self.follow_sidecars();
        let previous = scene.previous.take();
        let has_previous = previous.is_some();
        if has_previous {
            // The predecessor's sidecars are not those before any more.
            self.predecessor.take_way_back();
            // Before the sidecars before them end.
            self.tell_addresses();
        }
        let draining = previous.and_then(|previous| {
            let report = scene.report.take().unwrap_or_else(|| self.reporter(None));
            let (holds, drained) = (self.holds(), self.drained_outbox());
            let keep = self.material.loaded.config.restart.watch.0;
            let draining = self.generations.drain(
                Some(&previous.generation),
                budget,
                keep,
                holds,
                &report,
                drained,
            );
            self.before = draining.map(|_| previous);
            draining
        });
        if has_previous || self.predecessor.asks_for_passages() {
            self.make_passages();
        }
        self.finish_reload();
        self.refresh();
        if current.log_ready(self.now()) {
            self.traces.ready();
        }
        if self.machine.owns() {
            // The generation and the addresses may be others now.
            self.record_owner();
        }
        draining
    }

    /// Hears of the ends of drains.
    pub(super) fn drained_outbox(&self) -> Outbox<(u64, TaskEnd)> {
        let drained = |(generation, end)| LoopEvent::Drained(generation, end);
        self.events.outbox(drained)
    }

    /// What a drain that begins now waits for besides requests and tunnels.
    pub(super) fn holds(&self) -> DrainHolds {
        DrainHolds {
            leases: self.leases.claim(),
            lent: self.predecessor.lending.claim(),
        }
    }

    pub(super) fn follow_sidecars(&mut self) {
        let changed = self.events.outbox(|()| LoopEvent::SidecarChanged);
        self.generations.follow(&changed);
    }

    fn abandon(&mut self, generation: u64) {
        self.successor.abandon();
        if let Some(started) = self.construction.abandon(generation) {
            self.generations.abandoned(started);
        }
    }

    /// Brings `/readyz` and systemd's view up to date.
    pub(super) fn refresh(&mut self) {
        let (_, detail) = self.stage();
        if let Some(health) = self.health(&detail) {
            self.context.front.set_health(health);
        }
        self.context.front.set_remark(self.remark());
        self.context.front.set_sidecars(self.generations.gauges());
        if self.is_serving() {
            let events = &self.events;
            self.supervision
                .serving(&detail, || events.outbox(LoopEvent::Supervised));
        }
        self.follow_events();
    }

    pub(super) fn finish_reload(&mut self) {
        let (_, detail) = self.stage();
        self.supervision.finish_reload(&detail);
    }
}

/// The recovery ladder.
impl Gateway {
    /// Follows the lifecycle. After each of its steps, when a sidecar changed, and when the
    /// ladder's time has come.
    pub(super) fn follow_recovery(&mut self) {
        let phase = self.machine.phase();
        // Where nothing is being started there is nothing to wait for; one that ends leaves them to
        // the next process.
        if matches!(phase, Phase::Waiting { .. }) {
            self.front_door.accept_first_clients();
        }
        let serves = matches!(
            phase,
            Phase::Serving | Phase::Building(_) | Phase::Handing { .. }
        );
        let ready = serves && self.machine.owns() && self.generations.is_ready();
        if ready && phase == &Phase::Serving {
            // What served at first without being ready.
            self.traces.ready();
        }
        if ready {
            self.recovery
                .keep_good(self.machine.current(), &self.material);
        }
        let now = self.now();
        let ladder = &mut self.recovery.ladder;
        let actions = ladder.follow(self.machine.phase(), ready, now);
        self.climb(actions);
    }

    pub(super) fn climb(&mut self, actions: Vec<RecoveryAction>) {
        for action in actions {
            let on_give_up = &self.material.loaded.config.recovery.on_give_up;
            if let Some(reason) = self.recovery.perform(action, &self.context, on_give_up) {
                self.keep_bundle("safe-mode", &reason);
            }
        }
        if self.recovery.show(&self.context.front) {
            self.refresh();
        }
        let (loaded, flags) = (&self.material.loaded, &self.context.flags);
        let file = || {
            let path = loaded.path.clone();
            path.unwrap_or_else(|| whereabouts(flags, &Env::real()).path)
        };
        let changed = self.events.outbox(|()| LoopEvent::ConfigurationChanged);
        self.recovery.watch_configuration(file, changed);
    }

    /// Keeps what is known about trouble.
    pub(super) fn keep_bundle(&self, reason: &str, error: &str) {
        let status = serde_json::to_value(self.status()).unwrap_or_default();
        let uptime = self.now().as_millis() as u64;
        self.recovery
            .record
            .bundle(reason, Some(error), uptime, status);
    }
}
