//! The loop: one owner of everything, one thing at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::budget::{EXTEND_BY, EXTEND_EVERY};
use super::building::{Building, Next};
use super::context::GatewayContext;
use super::control_end::ControlEnd;
use super::drain::old_generation::Drain;
use super::generation::Generation;
use super::handover::borrowed_upstreams::Lending;
use super::handover::predecessor_side::Taking;
use super::handover::successor_side::Handing;
use super::handover::{
    Link, Predecessors, Program, ToPredecessor, ToSuccessor, Waiter, WaiterEvent, migrate,
};
use super::lease::Leases;
use super::lifecycle::{
    Action, Budget, Event, GenerationRequest, Lifecycle, Phase, Placement, RequestKind,
    RequestVerdict,
};
use super::listeners::Listeners;
use super::loop_event::{LoopEvent, LoopEvents};
use super::option_future::or_never;
use super::pending_requests::{Answers, End, Waiting, stopping};
use super::progress::Reporter;
use super::record::RequestRecord;
use super::recovery::driver::RecoveryDriver;
use super::signals::{SignalRequest, Signals};
use super::slot::Slot;
use super::supervision::Supervision;
use super::traces::Traces;
use crate::config::Loaded;
use crate::control::protocol::{DrainStatus, FailureCode, GenerationInfo, Method, RestartParams};
use crate::control::server::{Call, Caller, Reply};
use crate::proxy::{Backend, Workers};
use crate::state::lock::Lock;
use crate::state::paths::Paths;
use crate::state::restart_intent::{self, Intent};
use crate::state::terms::ProgressStage;
use crate::systemd::Notifier;
use crate::systemd::machine_stopping;

/// How often predecessor and successor tell each other how it goes.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// The exit code of a stop that was done (gateway(8)).
const DONE: u8 = 0;

#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) context: Arc<GatewayContext>,
    pub(super) loaded: Loaded,
    pub(super) standing: RecoveryDriver,
    pub(super) traces: Traces,
    pub(super) paths: Paths,
    pub(super) notifier: Notifier,
    /// The same, while another process has the service manager's ear.
    pub(super) silenced: Option<Notifier>,
    pub(super) listeners: Listeners,
    pub(super) machine: Lifecycle,
    pub(super) current: Option<Arc<Generation>>,
    pub(super) drains: Vec<Arc<Drain>>,
    pub(super) answers: Answers,
    pub(super) leases: Arc<Leases>,
    pub(super) workers: Arc<Workers>,
    pub(super) building: Option<Building>,
    /// What a build had started that a stop gave up.
    pub(super) abandoned: Vec<Arc<Slot>>,
    /// What the generation under construction was read from.
    pub(super) next: Option<Next>,
    /// Follow the sidecars of the current generation.
    pub(super) followers: Vec<JoinHandle<()>>,
    pub(super) happened: LoopEvents,
    /// What the next failing answer is about.
    pub(super) failed_as: FailureCode,
    /// A RELOADING=1 waits for its READY=1.
    pub(super) reloading: bool,
    /// systemd has heard READY=1.
    pub(super) announced: bool,
    pub(super) overlap_explained: bool,
    pub(super) interrupted: bool,
    /// Tells whoever asked for the current generation.
    pub(super) report: Reporter,
    /// The reload under way found nothing to do.
    pub(super) unchanged: bool,
    pub(super) exit: Option<u8>,
    pub(super) lock: Option<Lock>,
    pub(super) supervision: Supervision,
    /// Whether this process stays when it hands over, because somebody follows its pid.
    pub(super) stays: bool,
    /// Open as long as a process that stays still works.
    pub(super) at_work: Option<std::os::fd::OwnedFd>,
    /// The whole machine, or the user's manager, goes down.
    pub(super) machine_stops: bool,
    /// The service manager waits for our end.
    pub(super) asked_to_leave: bool,
    /// It is asked for more time.
    pub(super) extending: bool,
    pub(super) control: ControlEnd,
    /// What a successor is started with.
    pub(super) program: Program,
    /// The waiter that this process is behind.
    pub(super) link: Option<Link>,
    /// The waiter that this process is.
    pub(super) waiter: Option<Waiter>,
    /// The hand-over to a successor, and the way to it afterwards.
    pub(super) handing: Option<Handing>,
    /// The successor that serves: its pid and generation.
    pub(super) succeeded_by: Option<(u32, GenerationInfo)>,
    /// The way to the predecessor.
    pub(super) taking: Option<Taking>,
    /// Those who came before and still finish their work.
    pub(super) predecessors: Predecessors,
    /// Takes over clients of predecessors.
    pub(super) taking_clients: CancellationToken,
    /// What the predecessor has at the sidecars of this process.
    pub(super) lending: Lending,
    /// How often the successor said where its sidecars are.
    pub(super) heard: u64,
    /// To the successor's sidecars.
    pub(super) doors: BTreeMap<String, Arc<Backend>>,
    /// After the hand-over: no client is left.
    pub(super) clients_gone: bool,
    /// Ends the waiting for clients.
    pub(super) hurry: CancellationToken,
    /// Serving threads of before this process took the service back.
    pub(super) retired: Vec<Arc<Workers>>,
    /// Ends of others that a stop waits for.
    pub(super) ending: Vec<JoinHandle<()>>,
}

pub(super) struct Inputs {
    pub(super) signals: Signals,
    pub(super) happenings: mpsc::UnboundedReceiver<LoopEvent>,
    pub(super) calls: mpsc::Receiver<Call>,
}

impl Gateway {
    pub(super) async fn drive(mut self, mut inputs: Inputs) -> u8 {
        let mut extend = every(EXTEND_EVERY);
        let mut alive = every(ALIVE_EVERY);
        let period = self
            .taking
            .as_ref()
            .map_or(self.notifier, Taking::notifier)
            .watchdog_interval();
        let mut watchdog = period.map(every);
        let code = loop {
            if let Some(code) = self.exit {
                break code;
            }
            let started = self.context.front.started;
            let at = |after: Duration| tokio::time::Instant::from_std(started + after);
            let deadline = self.machine.deadline().map(at);
            let trusted = self.standing.recovery.deadline().map(at);
            tokio::select! {
                asked = inputs.signals.next() => self.signal(asked),
                Some(happening) = inputs.happenings.recv() => self.happen(happening),
                Some(call) = inputs.calls.recv() => self.call(call),
                () = or_never(deadline.map(sleep_until)) => self.step(Event::Tick),
                () = or_never(trusted.map(sleep_until)) => self.follow_recovery(),
                _ = extend.tick(), if self.extending || matches!(self.machine.phase(), Phase::Starting(..)) => self.notifier.extend(EXTEND_BY),
                _ = alive.tick(), if self.is_candidate() || self.succeeded_by.is_some() => self.every_second(),
                _ = or_never(watchdog.as_mut().map(Interval::tick)), if self.machine.owns() => self.check(period),
                Some(event) = or_never(self.waiter.as_mut().map(Waiter::next)) => self.behind(event),
            }
        };
        self.control.close();
        drop(inputs.calls);
        let predecessor = self
            .taking
            .as_ref()
            .map(|taking| taking.predecessor.clone());
        let (control, waiter) = self.end(code);
        if let Some(predecessor) = predecessor {
            predecessor.heard().await;
        }
        control.finish().await;
        match waiter {
            Some(waiter) => waiter.wait(&mut inputs.signals).await,
            None => code,
        }
    }

    /// The end, but for what has to be waited for.
    fn end(mut self, code: u8) -> (ControlEnd, Option<Waiter>) {
        let slots = self.slots();
        let forced = code != DONE && !slots.is_empty();
        let mut cut = Vec::new();
        if forced {
            let leases = self.leases.claim().blockers();
            cut = slots
                .iter()
                .flat_map(|unit| unit.backend().blockers())
                .chain(leases)
                .collect();
            warn!(
                "[gateway] forced to end; cut: {}",
                if cut.is_empty() {
                    "nothing".to_owned()
                } else {
                    cut.join(", ")
                }
            );
            self.bundle("forced-exit", &format!("cut: {}", cut.join(", ")));
        }
        self.tell_predecessor(&ToPredecessor::Bye);
        self.workers.abort();
        self.retired.iter().for_each(|workers| workers.abort());
        // What is the successor's by now stays, and so does what a candidate never had.
        if self.succeeded_by.is_none() && self.machine.owned() {
            if !self.manager_holds() {
                self.listeners.remove_paths();
            }
            // The next life replaces a socket that was left behind; gone, it says sooner that
            // nobody is here.
            let _ = std::fs::remove_file(&self.paths.control);
            let _ = std::fs::remove_file(migrate::place(&self.paths.control));
        }
        self.record_end(code, cut);
        // One that stays in front of others has not ended.
        if self.current.is_some() && self.waiter.as_ref().is_none_or(Waiter::alone) {
            info!("[gateway] ended with code {code}");
        }
        (self.control, self.waiter.filter(|waiter| !waiter.alone()))
    }

    /// What concerns the processes behind this one.
    fn behind(&mut self, event: WaiterEvent) {
        if let Some(waiter) = &mut self.waiter {
            waiter.happen(event);
        }
    }

    fn every_second(&mut self) {
        if self.is_candidate() {
            self.alive();
        } else {
            self.tell_successor();
        }
    }

    /// What this process still does after a hand-over.
    pub(super) fn tell_successor(&self) {
        let Some(handing) = self
            .handing
            .as_ref()
            .filter(|_| self.succeeded_by.is_some())
        else {
            return;
        };
        let status = self
            .drains
            .iter()
            .map(|drain| DrainStatus {
                pid: std::process::id(),
                ..drain.status()
            })
            .collect();
        let counts = self.doors.values().map(|door| door.counts());
        let own: usize = counts.map(|counts| counts.requests + counts.tunnels).sum();
        let borrowed = own as u64 + self.lending.borrowed();
        handing.successor.say(&ToSuccessor::Draining {
            status,
            heard: self.heard,
            borrowed,
        });
    }

    pub(super) fn slots(&self) -> Vec<Arc<Slot>> {
        let current = self
            .current
            .iter()
            .flat_map(|generation| generation.slots.values().cloned());
        current
            .chain(self.drains.iter().flat_map(|drain| drain.slots()))
            .chain(self.abandoned.iter().cloned())
            .collect()
    }

    fn signal(&mut self, asked: SignalRequest) {
        if let Some(waiter) = self.waiter.as_ref().filter(|_| self.succeeded_by.is_some()) {
            waiter.forward(asked);
            if !matches!(asked, SignalRequest::Stop | SignalRequest::Interrupt) {
                return;
            }
        }
        match asked {
            SignalRequest::Stop => self.terminate(),
            SignalRequest::Interrupt => {
                info!(
                    "[gateway] received SIGINT: stopping{}",
                    if self.interrupted {
                        " at once"
                    } else {
                        "; once more to stop at once"
                    }
                );
                self.wanted("SIGINT");
                self.stop(self.interrupted);
                self.interrupted = true;
            }
            SignalRequest::Reload => self.ask(
                RequestKind::Reload,
                RestartParams::default(),
                "SIGHUP",
                None,
            ),
            SignalRequest::Restart | SignalRequest::Respawn
                if !self.loaded.config.restart.external_signal =>
            {
                let name = if asked == SignalRequest::Restart {
                    "SIGUSR1"
                } else {
                    "SIGUSR2"
                };
                warn!(
                    "[gateway] {name} is refused: [restart] external_signal is false; use gatewayctl restart"
                );
            }
            SignalRequest::Restart => self.ask(
                RequestKind::Restart,
                RestartParams::default(),
                "SIGUSR1",
                None,
            ),
            SignalRequest::Respawn => self.ask(
                RequestKind::Restart,
                RestartParams {
                    fresh: true,
                    ..RestartParams::default()
                },
                "SIGUSR2",
                None,
            ),
        }
    }

    fn call(&mut self, call: Call) {
        match call.method {
            Method::Status => call.reply.done(&self.status()),
            Method::Stop => {
                info!(
                    "[gateway] stop asked by uid {} (pid {})",
                    call.caller.uid, call.caller.pid
                );
                self.wanted(&format!(
                    "gatewayctl stop, by uid {} (pid {})",
                    call.caller.uid, call.caller.pid
                ));
                call.reply.done(&stopping());
                self.stop(false);
            }
            Method::Inhibit(params) => self.inhibit(params, call.caller, call.reply),
            Method::Recover => self.recover(call.caller, call.reply),
            Method::Reload => self.ask(
                RequestKind::Reload,
                RestartParams::default(),
                "gatewayctl reload",
                Some((call.caller, call.reply)),
            ),
            Method::Restart(params) => {
                let reason = params
                    .reason
                    .clone()
                    .unwrap_or_else(|| "gatewayctl restart".to_owned());
                let reason = self
                    .context
                    .redactor
                    .text(&reason.chars().take(200).collect::<String>());
                self.ask(
                    RequestKind::Restart,
                    params,
                    &reason,
                    Some((call.caller, call.reply)),
                );
            }
        }
    }

    pub(super) fn ask(
        &mut self,
        kind: RequestKind,
        params: RestartParams,
        reason: &str,
        by: Option<(Caller, Reply)>,
    ) {
        let budget = budget_of(params.force, params.wait_ms);
        let place = if kind == RequestKind::Reload {
            Ok(Placement::Here)
        } else {
            self.place(&params, budget)
        };
        let (caller, reply) = by.unzip();
        let asked = RequestRecord::by(caller, place.as_ref().map_or("none", |place| place.word()));
        let id = self.answers.next_id();
        let what = if kind == RequestKind::Reload {
            "reload"
        } else {
            "restart"
        };
        info!(REQUEST = id, "[gateway] {what} {id} asked: {reason}");
        if kind == RequestKind::Restart {
            // A SIGTERM that restarts brings a reason of its own.
            let signal = if reply.is_some() {
                "control"
            } else {
                Some(reason)
                    .filter(|reason| reason.starts_with("SIG"))
                    .unwrap_or("SIGTERM")
            };
            self.traces
                .asked(&id, signal, reason, params.force, params.wait_ms);
        }
        let before = self.info();
        let drained = params.drained;
        let (begun, at) = (Instant::now(), Timestamp::now().to_string());
        let waiting = Waiting {
            reply,
            kind,
            reason: reason.to_owned(),
            drained,
            begun,
            at,
            before,
            asked,
        };
        self.answers.wait(id.clone(), waiting);
        Reporter::new(Some(id.clone()), self.happened.outbox(LoopEvent::Progress))
            .tell(ProgressStage::Accepted, format!("{what} {id} accepted"));
        match place {
            Ok(place) => self.step(Event::Asked(GenerationRequest {
                id,
                kind,
                budget,
                place,
            })),
            Err(refusal) => self.refuse(&id, refusal.why),
        }
    }

    /// A SIGTERM: a stop, or the first half of a restart when somebody said so before.
    fn terminate(&mut self) {
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let Some(intent) = restart_intent::consume(&self.paths.state, std::process::id(), now)
        else {
            info!("[gateway] received SIGTERM: stopping");
            self.wanted("SIGTERM");
            return self.stop(false);
        };
        info!("[gateway] received SIGTERM to restart: {}", intent.reason);
        if !self.supervision.is_service() {
            let params = RestartParams {
                force: intent.force,
                wait_ms: intent.wait_ms,
                ..RestartParams::default()
            };
            return self.ask(RequestKind::Restart, params, &intent.reason, None);
        }
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let machine = machine_stopping().await;
            let _ = happened.send(LoopEvent::EndAsked {
                intent,
                machine_stopping: machine,
            });
        });
    }

    /// Ends, so that the service manager starts the next one.
    fn leave_for(&mut self, intent: &Intent, machine: bool) {
        self.machine_stops = machine;
        self.asked_to_leave = true;
        self.wanted(&format!("SIGTERM to restart: {}", intent.reason));
        if !matches!(self.machine.phase(), Phase::Leaving { .. }) {
            self.traces.asked(
                "SIGTERM",
                "SIGTERM",
                &intent.reason,
                intent.force,
                intent.wait_ms,
            );
            self.traces.perform("SIGTERM");
        }
        let budget = budget_of(intent.force, intent.wait_ms);
        let limit = self.leave_budget(budget, true).force_exit;
        self.step(Event::End { budget, limit });
    }

    pub(super) fn stop(&mut self, at_once: bool) {
        let limit = self.stop_limit();
        // A stop that comes while it leaves has less time.
        self.hurry.cancel();
        self.step(Event::Stop { at_once, limit });
    }

    /// The generation that serves, here or in a successor.
    pub(super) fn after(&self) -> GenerationInfo {
        self.succeeded_by
            .as_ref()
            .map_or_else(|| self.info(), |(_, info)| info.clone())
    }

    fn info(&self) -> GenerationInfo {
        self.current
            .as_ref()
            .map(|generation| generation.info())
            .unwrap_or_default()
    }

    fn happen(&mut self, happening: LoopEvent) {
        match happening {
            LoopEvent::Progress(progress) => {
                self.traces.progress(&progress);
                self.answers.progress(&progress);
            }
            LoopEvent::Built(number, result) => self.built(number, *result),
            LoopEvent::SidecarChanged => {
                self.tell_addresses();
                self.refresh();
                self.follow_recovery();
            }
            LoopEvent::ConfigurationChanged => self.configuration_changed(),
            LoopEvent::Drained(generation) => {
                self.drains.retain(|drain| drain.generation != generation);
                // After a hand-over the clients count, too.
                if self.succeeded_by.is_none() {
                    self.answers.drained(generation);
                }
                self.refresh();
                self.maybe_quiet();
            }
            LoopEvent::Supervised(facts) => self.supervised(facts.map(|facts| *facts)),
            LoopEvent::EndAsked {
                intent,
                machine_stopping: machine,
            } => self.leave_for(&intent, machine),
            LoopEvent::ClientsGone => {
                self.clients_gone = true;
                self.maybe_quiet();
            }
            LoopEvent::Successor(generation, news) => self.successor(generation, news),
            LoopEvent::Released(generation) => self.released(generation),
            LoopEvent::SuccessorEnded => self.resume_stopped(),
            LoopEvent::Predecessor(message) => self.predecessor(message),
            LoopEvent::PredecessorEnded(pid) => self.predecessor_ended(pid),
            LoopEvent::Step(name) => self.traces.step(name),
            LoopEvent::Quiet => self.step(Event::Quiet),
            LoopEvent::Checked(Ok(())) => self.notifier.watchdog(),
            LoopEvent::Checked(Err(why)) => error!(
                "[gateway] the front door does not answer itself: {why}; the watchdog is not fed"
            ),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        self.step_with(event, None);
    }

    pub(super) fn step_with(&mut self, event: Event, previous: Option<Arc<Generation>>) {
        let now = self.now();
        let actions = self.machine.step(event, now);
        if actions.contains(&Action::Own) {
            // Before the rest, which speaks to the service manager.
            self.own();
        }
        let draining = actions.iter().find_map(|action| match action {
            Action::Serve { budget, .. } => self.serve(previous.as_ref(), *budget),
            Action::Yield { generation, budget } => self.yield_to(*generation, *budget),
            _ => None,
        });
        let notes = self.notes(draining.is_some());
        let end = End {
            after: self.after(),
            code: self.failed_as,
            notes,
            draining,
            unchanged: self.unchanged,
            pid: self.succeeded_by.as_ref().map(|(pid, _)| *pid),
        };
        for action in &actions {
            if let Action::Answer { id, verdict } = action {
                self.traces
                    .answered(id, verdict == &RequestVerdict::Scheduled);
                self.pass_on(id, verdict);
                self.answers.end(id, verdict.clone(), &end);
            }
        }
        self.perform(actions);
        self.follow_recovery();
    }

    /// Whoever asked by a signal does not ask the successor again: that is for us to do.
    fn pass_on(&self, id: &str, verdict: &RequestVerdict) {
        let signal = match self
            .answers
            .unattended(id)
            .filter(|_| verdict == &RequestVerdict::Moved)
        {
            Some(RequestKind::Reload) => Signal::SIGHUP,
            Some(RequestKind::Restart) => Signal::SIGUSR1,
            None => return,
        };
        if let Some(handing) = &self.handing {
            handing.successor.signal(signal);
        }
    }

    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
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
                } => self.hand_over(generation, budget, request),
                Action::Commit => self.commit(),
                Action::TakeBack => self.take_back(),
                Action::Resume => self.resume(),
                Action::Announce => self.announce(),
                Action::Hurry { at_once } => self.hurry(at_once),
                Action::Leave { budget } => self.leave(budget),
                Action::Abandon(generation) => {
                    self.abandon_successor();
                    if let Some(building) = self
                        .building
                        .take_if(|building| building.number == generation)
                    {
                        building.task.abort();
                        self.abandoned = building.started.slots();
                    }
                }
                Action::Wind { at_once } => {
                    self.traces.give_up();
                    self.wind(at_once);
                }
                Action::Exit(code) => self.exit = Some(code),
                // Done in step_with, where the generation before is known.
                Action::Serve { .. }
                | Action::Answer { .. }
                | Action::Own
                | Action::Yield { .. } => {}
            }
        }
    }
}

fn budget_of(force: bool, wait_ms: Option<u64>) -> Budget {
    match (force, wait_ms) {
        (true, _) => Budget::Force,
        (false, None) => Budget::Configured,
        (false, Some(0)) => Budget::Unlimited,
        (false, Some(limit)) => Budget::Limit(Duration::from_millis(limit)),
    }
}

/// A tick that is late is not made up for: after a long time without any there would be thousands
/// at once.
fn every(period: Duration) -> Interval {
    let mut interval = tokio::time::interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
