//! What the machine says is done here, and nowhere else: [`Gateway::perform`] has one arm for each
//! action. What follows it are the arms that concern several components.
//!
//! These are methods of [`Gateway`] because only that knows all components. One file because every
//! action is performed in one place.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::{ClientDrain, Gateway, StepScene};
use crate::config::{Config, Env, Listen, TUNNEL_DRAIN, TUNNEL_DRAIN_ALONE, whereabouts};
use crate::control::protocol::FailureCode;
use crate::gateway::budget::RESTART_MARGIN;
use crate::gateway::building::BuildSource;
use crate::gateway::config_source::Material;
use crate::gateway::drain::after_handover::DrainAfterHandover;
use crate::gateway::drain::budget::DrainTime;
use crate::gateway::drain::old_generation::DrainHolds;
use crate::gateway::drain::process_end::{DrainBeforeExit, EndingProcess, Shutdown};
use crate::gateway::generation::{BuildPlan, SidecarAddresses, StartedSlots};
use crate::gateway::handover::offer::Offering;
use crate::gateway::handover::successor_side::{HandedOver, TakenBack};
use crate::gateway::handover::{News, Stopping, ToPredecessor, failpoint};
use crate::gateway::lifecycle::{Action, Budget, Event, Phase, RequestKind, RequestVerdict};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::ownership;
use crate::gateway::pending_requests::RequestScene;
use crate::gateway::recovery::RecoveryAction;
use crate::state::terms::EndReason;

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
    }

    /// Does what the machine says, in this order: the rest speaks to the service manager, so the
    /// service is owned first; answers tell what drains, so a generation serves, or is handed over,
    /// before them; and what begins next (a build, an end) begins when they are given.
    pub(super) fn perform(&mut self, mut actions: Vec<Action>, mut scene: StepScene) {
        actions.sort_by_key(|action| match action {
            Action::Own => 0,
            Action::Serve { .. } | Action::Yield { .. } => 1,
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
                Action::Yield { generation, budget } => {
                    let draining = self.yield_to(generation, budget);
                    self.overlaps(draining, &mut scene);
                }
                Action::Answer { id, verdict } => self.answer(&id, verdict, &scene),
                Action::Build {
                    generation,
                    kind,
                    budget,
                    request,
                    persist,
                } => self.build(generation, kind, budget, request, persist),
                Action::HandOver {
                    generation,
                    budget,
                    request,
                } => self.hand_over(generation, budget, &request),
                Action::Commit => {
                    let supervision = &mut self.supervision;
                    self.successor.commit(|pid| supervision.make_main(pid));
                }
                Action::TakeBack => self.take_back(),
                Action::Resume => self.resume(),
                Action::Announce => self.announce(),
                Action::Hurry { at_once } => {
                    self.hurry_clients();
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
        scene.draining = draining;
        scene.notes = self.requests.notes(draining.is_some());
    }
}

/// Requests and their answers.
impl Gateway {
    fn answer(&mut self, id: &str, verdict: RequestVerdict, scene: &StepScene) {
        let scheduled = verdict == RequestVerdict::Scheduled;
        self.traces.answered(id, scheduled);
        if verdict == RequestVerdict::Moved {
            // Nobody waits for what a signal asked for, to ask the successor again.
            match self.requests.unattended(id) {
                Some(RequestKind::Reload) => self.successor.signal(Signal::SIGHUP),
                Some(RequestKind::Restart) => self.successor.signal(Signal::SIGUSR1),
                None => {}
            }
        }
        let serves = self.successor.serves();
        let end = RequestScene {
            after: serves.map_or_else(|| self.generations.info(), |(_, info)| info.clone()),
            code: scene.code.unwrap_or(FailureCode::Failed),
            notes: scene.notes.clone(),
            draining: scene.draining,
            unchanged: scene.unchanged,
            pid: serves.map(|(pid, _)| pid),
        };
        self.requests.end(id, verdict, &end);
    }

    /// A request that is not even tried.
    pub(super) fn refuse(&mut self, id: &str, why: String) {
        let serves = self.successor.serves();
        let end = RequestScene {
            after: serves.map_or_else(|| self.generations.info(), |(_, info)| info.clone()),
            code: FailureCode::Rejected,
            notes: Vec::new(),
            draining: None,
            unchanged: false,
            pid: None,
        };
        self.requests.end(id, RequestVerdict::Rejected(why), &end);
    }
}

/// A generation: built, served, drained.
impl Gateway {
    /// Reads the configuration again, unless the process has just begun, and builds from it.
    fn build(
        &mut self,
        number: u64,
        kind: RequestKind,
        budget: Budget,
        request: Option<String>,
        persist: bool,
    ) {
        let previous = self.generations.current().cloned();
        if let Some(id) = &request {
            self.traces.perform(id);
        }
        let reload = kind == RequestKind::Reload;
        if reload {
            self.supervision.begin_reload();
        }
        let material = match self.read_material() {
            Ok(material) => material,
            Err(why) => return self.broken(number, FailureCode::ConfigInvalid, &why),
        };
        let config = Arc::new(material.loaded.config.clone());
        let source = BuildSource {
            report: self
                .reporter(request)
                .passing_on(self.predecessor.predecessor()),
            unchanged: reload && *config == self.material.loaded.config,
            material,
        };
        let gate = if previous.is_none() && !self.machine.owned() {
            self.predecessor.gate()
        } else {
            None
        };
        let plan = BuildPlan {
            number,
            config,
            previous,
            kind,
            budget,
            persist,
            started: StartedSlots::default(),
            leases: self.leases.claim(),
            gate,
        };
        let built = self
            .events
            .outbox(move |result| LoopEvent::Built(number, result));
        self.construction.start(plan, source, &self.context, built);
        self.supervision.working(&self.stage().1);
    }

    /// What the next generation is made of. While nobody serves, something stands in for a
    /// configuration that is not valid.
    fn read_material(&mut self) -> Result<Material, String> {
        let nobody_serves = matches!(self.machine.phase(), Phase::Starting(..));
        if nobody_serves && !self.recovery.has_waited() && self.generations.current().is_none() {
            // It was read a moment ago.
            return Ok(self.material.clone());
        }
        let flags = &self.context.flags;
        let mut material = self
            .material
            .reread(flags, &self.paths.state, nobody_serves)?;
        // Port 0 was chosen by the kernel once; the choice stands.
        let wanted = needed(&material.loaded.config, &self.material.loaded.config);
        self.front_door
            .bind(&wanted)
            .map_err(|error| error.to_string())?;
        material.loaded.path = material
            .loaded
            .path
            .or_else(|| self.material.loaded.path.clone());
        if nobody_serves {
            let actions = self.recovery.ladder.adopted(&material.configuration);
            self.climb(actions);
        }
        Ok(material)
    }

    /// Sends new requests to the current generation and lets the one before finish. Tells which one
    /// drains, if one does.
    fn serve(&mut self, budget: Budget, scene: &mut StepScene) -> Option<u64> {
        let current = Arc::clone(self.generations.current()?);
        self.front_door.serve(&current);
        self.follow_sidecars();
        let previous = scene.previous.take();
        if previous.is_some() {
            // Before those of before end.
            self.tell_addresses();
        }
        let draining = previous.and_then(|previous| {
            let report = scene.report.take().unwrap_or_else(|| self.reporter(None));
            let (holds, drained) = (self.holds(), self.events.outbox(LoopEvent::Drained));
            self.generations
                .drain_previous(&previous, budget, holds, &report, drained)
        });
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

    /// What a drain that begins now waits for besides requests and tunnels.
    fn holds(&self) -> DrainHolds {
        DrainHolds {
            leases: self.leases.claim(),
            lent: self.predecessor.lent(),
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
        if self.is_serving() {
            let events = &self.events;
            self.supervision
                .serving(&detail, || events.outbox(LoopEvent::Supervised));
        }
    }

    pub(super) fn finish_reload(&mut self) {
        let (_, detail) = self.stage();
        self.supervision.finish_reload(&detail);
    }
}

/// A successor: this process hands over.
impl Gateway {
    /// Starts a successor that builds this generation.
    fn hand_over(&mut self, generation: u64, budget: Budget, request: &str) {
        let report = self.reporter(Some(request.to_owned()));
        let news = self
            .events
            .outbox(move |news| LoopEvent::Successor(generation, news));
        let loaded = &self.material.loaded;
        let verdict = self.supervision.verdict();
        self.traces.perform(request);
        let offering = Offering {
            instance: &loaded.instance,
            state_dir: &self.paths.state,
            generation,
            serves: self.machine.current(),
            request,
            about: self.requests.about(request),
            listeners: self.front_door.listeners(),
            predecessors: self.predecessor.predecessors(),
            current: self.generations.current().map(Arc::as_ref),
            drain_ms: loaded.config.restart.drain.0.as_millis() as u64,
            notifier: self.supervision.notifier(),
            verdict,
            trace: self
                .traces
                .hand_over("spawned", "respawn", &verdict.supervisor.to_string()),
        };
        if let Err(why) = self.successor.start(offering, budget, report, news) {
            // Not at once: the step that led here must end first.
            self.events
                .send(LoopEvent::Successor(generation, News::Lost(why)));
        }
        self.supervision.working(&self.stage().1);
    }

    /// Ends what must not run beside the sidecars of a successor.
    pub(super) fn release(&self, generation: u64, names: &[String]) {
        let Some(current) = self.generations.current() else {
            return;
        };
        let released = self
            .events
            .outbox(move |()| LoopEvent::Released(generation));
        self.successor
            .release(names, current, self.leases.claim(), released);
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
    fn take_back(&mut self) {
        self.supervision.take_back();
        let ended = self.events.outbox(|()| LoopEvent::SuccessorEnded);
        if let Some(TakenBack { begun: true }) = self.successor.take_back(ended) {
            // It may have put its own in place of our socket and our record.
            self.go_on();
        }
        self.refresh();
    }

    /// How long this process may finish its work after a hand-over, before its end is forced.
    pub(super) fn finish_limit(&self) -> Option<Duration> {
        let budget = self.successor.budget()?;
        Some(self.drain_limit(budget)? + RESTART_MARGIN)
    }

    /// Accepts nobody any more. Tells which generation drains.
    fn yield_to(&mut self, generation: u64, budget: Budget) -> Option<u64> {
        let current = Arc::clone(self.generations.current()?);
        let HandedOver {
            pid,
            report,
            sidecars,
        } = self.successor.hand_over_done()?;
        info!(
            "[gateway] pid {pid} serves generation {generation}; pid {} finishes its work",
            std::process::id()
        );
        self.recovery
            .set_exit_reason(EndReason::Other(format!("handed over to pid {pid}")));
        self.front_door.give_up();
        self.redirect(&sidecars);
        let doors = self.successor.doors();
        self.front_door.redirect(&current, &doors, generation);
        self.generations.unfollow();
        self.drain_clients(budget);
        failpoint::pass("old.yielded");
        let (holds, drained) = (self.holds(), self.events.outbox(LoopEvent::Drained));
        let draining = self
            .generations
            .drain_current(budget, holds, &report, drained);
        draining.or(Some(current.number))
    }

    /// After a hand-over: where the successor's sidecars are now.
    pub(super) fn redirect(&mut self, sidecars: &SidecarAddresses) {
        self.successor.redirect(sidecars, self.context.workers);
        // Requests may wait in an older process for what is two processes on by now.
        self.predecessor.tell_sidecars(sidecars.clone());
    }

    /// After a hand-over: lets the clients end when it suits them, within the budget.
    fn drain_clients(&mut self, budget: Budget) {
        let tunnels = self.material.loaded.config.restart.tunnel_drain;
        let tunnels = tunnels.map_or(TUNNEL_DRAIN, |time| time.0);
        let drain = DrainAfterHandover {
            leases: self.leases.claim(),
            takeover: self.front_door.takeover().to_owned(),
            workers: Arc::clone(self.front_door.workers()),
            backends: self
                .successor
                .doors()
                .into_values()
                .chain(self.front_door.upstreams())
                .collect(),
            time: DrainTime::new(self.drain_limit(budget), tunnels),
        };
        let gone = self.events.outbox(|()| LoopEvent::ClientsGone);
        drain.start(self.begin_client_drain(false), gone);
    }

    /// Tells the successor every second what this process still does.
    pub(super) fn tell_successor(&self) {
        self.successor
            .tell_work(self.generations.draining(), self.predecessor.borrowed());
    }

    /// The successor died and nobody else starts another: this process accepts again.
    fn resume(&mut self) {
        self.hurry_clients();
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
    /// The generation is ready: says so.
    fn announce(&self) {
        failpoint::pass("new.ready");
        if let Some(current) = self.generations.current() {
            self.predecessor.tell(&ToPredecessor::Ready {
                info: current.info(),
                sidecars: current.addresses(),
            });
        }
    }

    /// The service is ours.
    fn own(&mut self) {
        if let Some((notifier, restart)) = self.predecessor.take_over() {
            self.supervision.become_main(notifier);
            self.front_door.speak(notifier);
            self.requests.last = Some(restart);
        }
        self.recovery
            .take_over(&self.supervision.verdict().to_string());
        self.front_door.accept();
        failpoint::pass("new.accepting");
        self.open_up();
        self.successor.tell_waiter();
        failpoint::pass("new.before-serving");
        self.predecessor.tell(&ToPredecessor::Serving);
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
            self.front_door.listeners().addresses().join(", ")
        );
    }

    /// Where the sidecars are now, for the requests that the predecessor still has.
    pub(super) fn tell_addresses(&mut self) {
        // After a hand-over, what the successor tells is passed on instead.
        let ours = !self.is_candidate() && !self.successor.has_handed_over();
        if let Some(current) = self.generations.current().filter(|_| ours) {
            self.predecessor.tell_sidecars(current.addresses());
        }
    }

    /// Writes that the service is this process's, and who still drains.
    pub(super) fn record_owner(&self) {
        ownership::record(
            &self.material.loaded,
            &self.paths.state,
            &self.front_door.listeners().addresses(),
            self.machine.current(),
            &self.predecessor.on_record(),
        );
    }
}

/// The end.
impl Gateway {
    /// Finishes what is under way, new requests of the beginning included, so that the service
    /// manager starts the next generation.
    fn leave(&mut self, budget: Budget) {
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
        let notifier = self.supervision.notifier();
        // A waiter is not what systemd restarts: what it stores would go to nobody.
        let restarted = self.supervision.by_systemd() && !self.successor.is_waiter();
        let predecessors = self.predecessor.predecessors().watched();
        let drain = DrainBeforeExit {
            process: self.ending_process(predecessors),
            time: DrainTime::new(end.drain, tunnels),
            at_least,
            store: Some(notifier).filter(|notifier| notifier.active() && restarted),
            steps: self.events.outbox(LoopEvent::Step),
        };
        let quiet = self.events.outbox(|()| LoopEvent::Quiet);
        drain.start(self.begin_client_drain(end.extend), quiet);
    }

    /// What ends the drain of the clients that begins now.
    fn begin_client_drain(&mut self, extends: bool) -> CancellationToken {
        let hurry = CancellationToken::new();
        self.client_drain = Some(ClientDrain {
            hurry: hurry.clone(),
            extends,
        });
        hurry
    }

    /// Ends the drain of the clients: what follows goes on in less time.
    pub(super) fn hurry_clients(&self) {
        if let Some(drain) = &self.client_drain {
            drain.hurry.cancel();
        }
    }

    /// Accepts nobody new and finishes what is there.
    fn shut_down(&mut self, at_once: bool) {
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
        shutdown.start(self.events.outbox(|()| LoopEvent::Quiet));
    }

    fn ending_process(&mut self, predecessors: Stopping) -> EndingProcess {
        let mut upstreams = self.front_door.upstreams();
        upstreams.extend(self.successor.doors().into_values());
        EndingProcess {
            workers: self.front_door.all_workers(),
            slots: self.generations.slots(),
            upstreams,
            predecessors,
            ending: self.successor.take_ending(),
        }
    }
}

/// The recovery ladder.
impl Gateway {
    /// Follows the lifecycle. After each of its steps, when a sidecar changed, and when the
    /// ladder's time has come.
    pub(super) fn follow_recovery(&mut self) {
        let phase = self.machine.phase();
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
        let actions = self
            .recovery
            .ladder
            .follow(self.machine.phase(), ready, now);
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
        let file = || -> PathBuf {
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

/// The addresses to have sockets for; a port 0 that is served already needs no second one.
fn needed(next: &Config, now: &Config) -> Vec<Listen> {
    let zero_before =
        |listen: &Listen| listen.port() == Some(0) && now.gateway.listen.contains(listen);
    next.gateway
        .listen
        .iter()
        .filter(|listen| !zero_before(listen))
        .cloned()
        .collect()
}
