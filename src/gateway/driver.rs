//! The loop: one owner of everything, one thing at a time.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::Happening;
use super::answers::{Answers, End, Waiting, stopping};
use super::building::{Building, Next};
use super::context::Context;
use super::drain::Drain;
use super::generation::Generation;
use super::lease::Leases;
use super::lifecycle::{Action, Budget, Event, Kind, Lifecycle, Phase, Request};
use super::listeners::Listeners;
use super::progress::Reporter;
use super::signals::{Asked, Signals};
use super::unit::Unit;
use crate::config::Loaded;
use crate::control::protocol::{FailureCode, GenerationInfo, Method, RestartParams};
use crate::control::server::{Call, Reply};
use crate::front::Workers;
use crate::state::lock::Lock;
use crate::state::paths::Paths;
use crate::supervisor::Notifier;

/// While it starts, systemd is asked for more time this often …
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// … and for this much, so that one late message does no harm.
pub(super) const EXTEND_BY: Duration = Duration::from_secs(30);

/// How long the last answers on the control socket may take to be written; they are short, and their readers wait for them.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// The exit code of a stop that was done (gateway(8)).
const DONE: u8 = 0;

/// A running gateway.
#[derive(Debug)]
pub(super) struct Gateway {
    pub(super) context: Arc<Context>,
    pub(super) loaded: Loaded,
    pub(super) paths: Paths,
    pub(super) notifier: Notifier,
    pub(super) listeners: Listeners,
    pub(super) machine: Lifecycle,
    pub(super) current: Option<Arc<Generation>>,
    pub(super) drains: Vec<Arc<Drain>>,
    pub(super) answers: Answers,
    pub(super) leases: Arc<Leases>,
    pub(super) workers: Arc<Workers>,
    pub(super) building: Option<Building>,
    /// What a build had started that a stop gave up.
    pub(super) abandoned: Vec<Arc<Unit>>,
    /// What the generation under construction was read from.
    pub(super) next: Option<Next>,
    /// Follow the sidecars of the current generation.
    pub(super) followers: Vec<JoinHandle<()>>,
    pub(super) happened: mpsc::UnboundedSender<Happening>,
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
    pub(super) _lock: Option<Lock>,
}

/// What comes in.
pub(super) struct Inputs {
    pub(super) signals: Signals,
    pub(super) happenings: mpsc::UnboundedReceiver<Happening>,
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) control: CancellationToken,
    /// Ends when every request on the control socket has its answer.
    pub(super) answering: Option<JoinHandle<()>>,
}

impl Gateway {
    pub(super) async fn drive(mut self, mut inputs: Inputs) -> u8 {
        let mut extend = tokio::time::interval(EXTEND_EVERY);
        let mut watchdog = self.notifier.watchdog_interval().map(tokio::time::interval);
        let code = loop {
            if let Some(code) = self.exit {
                break code;
            }
            let started = self.context.front.started;
            let deadline = self.machine.deadline().map(|after| tokio::time::Instant::from_std(started + after));
            tokio::select! {
                asked = inputs.signals.next() => self.signal(asked),
                Some(happening) = inputs.happenings.recv() => self.happen(happening),
                Some(call) = inputs.calls.recv() => self.call(call),
                () = sleep_until(deadline) => self.step(Event::Tick),
                _ = extend.tick(), if matches!(self.machine.phase(), Phase::Starting(_)) => self.notifier.extend(EXTEND_BY),
                () = tick(&mut watchdog) => self.check(watchdog.as_ref().map(|interval| interval.period())),
            }
        };
        inputs.control.cancel();
        drop(inputs.calls);
        self.end(code);
        if let Some(answering) = inputs.answering {
            // Whoever still waited was told so just now.
            let _ = tokio::time::timeout(LAST_ANSWERS, answering).await;
        }
        code
    }

    fn end(self, code: u8) {
        let units = self.units();
        if code != DONE && !units.is_empty() {
            let leases = self.leases.claim().blockers();
            let work: Vec<String> = units.iter().flat_map(|unit| unit.backend().blockers()).chain(leases).collect();
            warn!("[gateway] forced to end; cut: {}", if work.is_empty() { "nothing".to_owned() } else { work.join(", ") });
        }
        self.workers.end();
        if !self.notifier.active() {
            self.listeners.remove_paths();
        }
        // The next life replaces a socket that was left behind; gone, it says sooner that nobody is here.
        let _ = std::fs::remove_file(&self.paths.control);
        if self.current.is_some() {
            info!("[gateway] ended with code {code}");
        }
    }

    pub(super) fn units(&self) -> Vec<Arc<Unit>> {
        let current = self.current.iter().flat_map(|generation| generation.units.values().cloned());
        current.chain(self.drains.iter().flat_map(|drain| drain.units())).chain(self.abandoned.iter().cloned()).collect()
    }

    fn signal(&mut self, asked: Asked) {
        match asked {
            Asked::Stop => {
                info!("[gateway] received SIGTERM: stopping");
                self.step(Event::Stop { at_once: false });
            }
            Asked::Interrupt => {
                info!("[gateway] received SIGINT: stopping{}", if self.interrupted { " at once" } else { "; once more to stop at once" });
                self.step(Event::Stop { at_once: self.interrupted });
                self.interrupted = true;
            }
            Asked::Reload => self.ask(Kind::Reload, Budget::Configured, "SIGHUP", false, None),
            Asked::Restart if self.loaded.config.restart.external_signal => {
                self.ask(Kind::Restart, Budget::Configured, "SIGUSR1", false, None);
            }
            Asked::Restart => warn!("[gateway] SIGUSR1 is refused: [restart] external_signal is false; use gatewayctl restart"),
            Asked::Respawn => {
                warn!("[gateway] SIGUSR2 is refused: this version restarts in-process only; use SIGUSR1 or gatewayctl restart")
            }
        }
    }

    fn call(&mut self, call: Call) {
        match call.method {
            Method::Status => call.reply.done(&self.status()),
            Method::Stop => {
                info!("[gateway] stop asked by uid {} (pid {})", call.caller.uid, call.caller.pid);
                call.reply.done(&stopping());
                self.step(Event::Stop { at_once: false });
            }
            Method::Inhibit(params) => self.inhibit(params, call.caller, call.reply),
            Method::Recover => self.recover(call.reply),
            Method::Reload => self.ask(Kind::Reload, Budget::Configured, "gatewayctl reload", false, Some(call.reply)),
            Method::Restart(RestartParams { force, wait_ms, reason, drained, .. }) => {
                let budget = match (force, wait_ms) {
                    (true, _) => Budget::Force,
                    (false, None) => Budget::Configured,
                    (false, Some(0)) => Budget::Unlimited,
                    (false, Some(limit)) => Budget::Limit(Duration::from_millis(limit)),
                };
                let reason = reason.unwrap_or_else(|| "gatewayctl restart".to_owned());
                let reason = self.context.redactor.text(&reason.chars().take(200).collect::<String>());
                self.ask(Kind::Restart, budget, &reason, drained, Some(call.reply));
            }
        }
    }

    fn ask(&mut self, kind: Kind, budget: Budget, reason: &str, drained: bool, reply: Option<Reply>) {
        let id = self.answers.next_id();
        let what = if kind == Kind::Reload { "reload" } else { "restart" };
        info!(REQUEST = id, "[gateway] {what} {id} asked: {reason}");
        let before = self.info();
        let waiting =
            Waiting { reply, kind, reason: reason.to_owned(), drained, begun: Instant::now(), at: Timestamp::now().to_string(), before };
        self.answers.wait(id.clone(), waiting);
        Reporter::new(Some(id.clone()), self.happened.clone()).tell("accepted", format!("{what} {id} accepted"));
        self.step(Event::Asked(Request { id, kind, budget }));
    }

    fn info(&self) -> GenerationInfo {
        self.current.as_ref().map(|generation| generation.info()).unwrap_or_default()
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Progress(progress) => self.answers.progress(&progress),
            Happening::Built(number, result) => self.built(number, *result),
            Happening::SidecarChanged => self.refresh(),
            Happening::Drained(generation) => {
                self.drains.retain(|drain| drain.generation != generation);
                self.answers.drained(generation);
                self.refresh();
            }
            Happening::Quiet => self.step(Event::Quiet),
            Happening::Checked(Ok(())) => self.notifier.watchdog(),
            Happening::Checked(Err(why)) => error!("[gateway] the front door does not answer itself: {why}; the watchdog is not fed"),
        }
    }

    pub(super) fn step(&mut self, event: Event) {
        self.step_with(event, None);
    }

    pub(super) fn step_with(&mut self, event: Event, previous: Option<Arc<Generation>>) {
        let now = self.context.front.started.elapsed();
        let actions = self.machine.step(event, now);
        let draining = actions.iter().find_map(|action| match action {
            Action::Serve { budget, .. } => self.serve(previous.as_ref(), *budget),
            _ => None,
        });
        let notes = self.notes(draining.is_some());
        let end = End { after: self.info(), code: self.failed_as, notes, draining, unchanged: self.unchanged };
        for action in &actions {
            if let Action::Answer { id, verdict } = action {
                self.answers.end(id, verdict.clone(), &end);
            }
        }
        self.perform(actions);
    }

    pub(super) fn perform(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Build { generation, kind, budget, request } => self.build(generation, kind, budget, request),
                Action::Abandon(generation) => {
                    if let Some(building) = self.building.take_if(|building| building.number == generation) {
                        building.task.abort();
                        self.abandoned = building.started.units();
                    }
                }
                Action::Wind { at_once } => self.wind(at_once),
                Action::Exit(code) => self.exit = Some(code),
                // Done in step_with, where the generation before is known.
                Action::Serve { .. } | Action::Answer { .. } => {}
            }
        }
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => pending().await,
    }
}

async fn tick(interval: &mut Option<tokio::time::Interval>) {
    match interval {
        Some(interval) => drop(interval.tick().await),
        None => pending().await,
    }
}
