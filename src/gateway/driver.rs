//! The loop: one owner of everything, one thing at a time.

use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::answers::{Answers, End, Waiting, stopping};
use super::context::Context;
use super::drain::Drain;
use super::generation::{BuildError, Generation, Plan, Started, patience_of};
use super::lifecycle::{Action, Budget, Event, Kind, Lifecycle, Phase, Request};
use super::listeners::Listeners;
use super::ownership::{self, Ownership};
use super::progress::Reporter;
use super::signals::{Asked, Signals};
use super::unit::Unit;
use super::wind::Wind;
use super::{Happening, watchdog};
use crate::config::{self, Config, Env, Loaded, Overrides};
use crate::control::protocol::{FailureCode, GenerationInfo, Method, RestartParams};
use crate::control::server::{self, Call, Reply};
use crate::front::{Front, Workers};
use crate::redact::Redactor;
use crate::sidecar::Inherited;
use crate::state::lock::Lock;
use crate::state::paths::Paths;
use crate::supervisor::{Notifier, Passed, take_passed};

/// While it starts, systemd is asked for more time this often …
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// … and for this much, so that one late message does no harm.
const EXTEND_BY: Duration = Duration::from_secs(30);

/// Serving threads when `workers` is 0: one for each CPU, but no more than this; the programs behind need CPUs, too.
const WORKERS_MAX: usize = 4;

/// Calls on the control socket that may wait for the loop.
const CALLS: usize = 64;

/// How long the last answers on the control socket may take to be written; they are short, and their readers wait for them.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// Exit codes (gateway(8)).
const DONE: u8 = 0;
const FAILED: u8 = 1;
const REFUSED: u8 = 5;

/// Runs a gateway to its end; the process's exit code comes back.
pub fn run(loaded: Loaded, flags: Overrides) -> u8 {
    let passed = take_passed();
    let inherited = Arc::new(Inherited::take());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(cause) => {
            error!("[gateway] cannot start: {cause}");
            return FAILED;
        }
    };
    let code = runtime.block_on(async {
        match start(loaded, flags, passed, inherited).await {
            Ok((gateway, inputs)) => gateway.drive(inputs).await,
            Err(code) => code,
        }
    });
    runtime.shutdown_background();
    code
}

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
    workers: Arc<Workers>,
    building: Option<Building>,
    /// What a build had started that a stop gave up.
    abandoned: Vec<Arc<Unit>>,
    /// What the generation under construction was read from.
    next: Option<Next>,
    /// Follow the sidecars of the current generation.
    followers: Vec<JoinHandle<()>>,
    happened: mpsc::UnboundedSender<Happening>,
    /// What the next failing answer is about.
    failed_as: FailureCode,
    /// A RELOADING=1 waits for its READY=1.
    reloading: bool,
    /// systemd has heard READY=1.
    announced: bool,
    overlap_explained: bool,
    interrupted: bool,
    /// Tells whoever asked for the current generation.
    report: Reporter,
    /// The reload under way found nothing to do.
    unchanged: bool,
    exit: Option<u8>,
    _lock: Option<Lock>,
}

/// What the generation under construction came from.
#[derive(Debug)]
struct Next {
    loaded: Loaded,
    report: Reporter,
}

/// A generation under construction.
#[derive(Debug)]
struct Building {
    number: u64,
    task: JoinHandle<()>,
    started: Started,
}

/// What comes in.
struct Inputs {
    signals: Signals,
    happenings: mpsc::UnboundedReceiver<Happening>,
    calls: mpsc::Receiver<Call>,
    control: CancellationToken,
    /// Ends when every request on the control socket has its answer.
    answering: Option<JoinHandle<()>>,
}

/// Lock and sockets before anything heavy; then the serving threads and the control socket.
async fn start(loaded: Loaded, flags: Overrides, passed: Vec<Passed>, inherited: Arc<Inherited>) -> Result<(Gateway, Inputs), u8> {
    let fail = |text: String| {
        error!("[gateway] {text}");
        FAILED
    };
    let notifier = Notifier::new();
    notifier.extend(EXTEND_BY);
    let env = Env::real();
    let config = &loaded.config;
    let paths = Paths::of_process(&env, &loaded.instance, config.gateway.state_dir.as_deref());
    let lock = match ownership::take(&loaded, &paths.state).map_err(fail)? {
        Ownership::Ours(lock) => lock,
        Ownership::Same(text) => {
            info!("[gateway] {text}");
            return Err(DONE);
        }
        Ownership::Other(text) => {
            error!("[gateway] {text}");
            return Err(REFUSED);
        }
    };
    let listeners = Listeners::open(&config.gateway.listen, passed, notifier).map_err(|error| fail(error.to_string()))?;
    ownership::record(&loaded, &paths.state, &listeners.addresses());
    let signals = Signals::install().map_err(|error| fail(format!("cannot handle signals: {error}")))?;
    let front = Front::new(&loaded.instance, config);
    match ownership::token(config, &paths.state) {
        Ok(token) => front.set_token(token),
        Err(error) => warn!("[gateway] no bearer token, so /_gateway/ answers on unix listeners only: {error}"),
    }
    let count = if config.gateway.workers > 0 {
        config.gateway.workers
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(WORKERS_MAX)
    };
    let sockets = listeners.handles().map_err(|error| fail(format!("cannot share the listeners: {error}")))?;
    let workers = Workers::start(&front, sockets, count).map_err(|error| fail(format!("cannot start serving threads: {error}")))?;
    info!("[gateway] http server listening ({})", listeners.addresses().join(", "));
    let (call_sender, calls) = mpsc::channel(CALLS);
    let control = CancellationToken::new();
    let answering = match server::bind(&paths.control).and_then(UnixListener::from_std) {
        Ok(listener) => Some(tokio::spawn(server::serve(listener, call_sender, control.clone()))),
        Err(error) => {
            warn!("[gateway] no control socket at {}: {error}; gatewayctl cannot reach this gateway", paths.control.display());
            None
        }
    };
    let redactor = Redactor::new(&config.gateway.redact);
    inherited.teach(&redactor);
    let run_dir = paths.control.parent().unwrap_or(&paths.state).to_owned();
    let context = Arc::new(Context { front, flags, inherited, redactor, run_dir, workers: workers.count() });
    let (happened, happenings) = mpsc::unbounded_channel();
    let (machine, first) = Lifecycle::start();
    let report = Reporter::new(None, happened.clone());
    let mut gateway = Gateway {
        context,
        loaded,
        paths,
        notifier,
        listeners,
        machine,
        current: None,
        drains: Vec::new(),
        answers: Answers::default(),
        workers: Arc::new(workers),
        building: None,
        abandoned: Vec::new(),
        next: None,
        followers: Vec::new(),
        happened,
        failed_as: FailureCode::Failed,
        reloading: false,
        announced: false,
        overlap_explained: false,
        interrupted: false,
        report,
        unchanged: false,
        exit: None,
        _lock: lock,
    };
    gateway.perform(first);
    Ok((gateway, Inputs { signals, happenings, calls, control, answering }))
}

impl Gateway {
    async fn drive(mut self, mut inputs: Inputs) -> u8 {
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
            let work: Vec<String> = units.iter().flat_map(|unit| unit.backend().blockers()).collect();
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

    fn units(&self) -> Vec<Arc<Unit>> {
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
            Method::Reload => self.ask(Kind::Reload, Budget::Configured, "gatewayctl reload", false, Some(call.reply)),
            Method::Restart(RestartParams { force, wait_ms, reason, drained }) => {
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

    fn built(&mut self, number: u64, result: Result<Generation, BuildError>) {
        self.building.take_if(|building| building.number == number);
        match result {
            Ok(generation) => {
                if self.machine.phase() == &Phase::Ended || matches!(self.machine.phase(), Phase::Stopping { .. }) {
                    // The stop sees to its sidecars: they are among the abandoned.
                    return;
                }
                if let Some(Next { loaded, report }) = self.next.take() {
                    self.loaded = loaded;
                    self.report = report;
                }
                let previous = self.current.replace(Arc::new(generation));
                self.step_with(Event::Built(number), previous);
            }
            Err(error) => {
                self.failed_as = FailureCode::Failed;
                self.broken(number, &error.to_string());
            }
        }
    }

    fn broken(&mut self, number: u64, why: &str) {
        if matches!(self.machine.phase(), Phase::Starting(_)) {
            crate::log::error_lines(&format!("cannot start: {why}"));
        }
        self.next = None;
        if let Some(current) = self.current.clone() {
            // Sockets bound for a generation that never came: nobody accepts there.
            self.listeners.prune(&current.config.gateway.listen);
        }
        // Before the step, which may begin the next reload.
        self.finish_reload();
        self.step(Event::Broken(number, why.to_owned()));
        if let Some(current) = self.current.clone() {
            // What was replaced and put back runs in a new sidecar.
            self.follow(&current);
        }
        self.refresh();
    }

    fn step(&mut self, event: Event) {
        self.step_with(event, None);
    }

    fn step_with(&mut self, event: Event, previous: Option<Arc<Generation>>) {
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

    fn perform(&mut self, actions: Vec<Action>) {
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

    /// Reads the configuration again (but for the first generation) and builds from it.
    fn build(&mut self, number: u64, kind: Kind, budget: Budget, request: Option<String>) {
        let first = request.is_none();
        if kind == Kind::Reload {
            self.reloading = true;
            self.notifier.reloading("reloading the configuration");
        }
        let next = match if first { Ok(self.loaded.clone()) } else { self.read_again() } {
            Ok(next) => next,
            Err(error) => {
                self.failed_as = FailureCode::ConfigInvalid;
                self.broken(number, &error);
                return;
            }
        };
        self.unchanged = kind == Kind::Reload && next.config == self.loaded.config;
        let plan = Plan {
            number,
            config: Arc::new(next.config.clone()),
            previous: self.current.clone(),
            kind,
            budget,
            persist: first && self.notifier.active(),
            started: Started::default(),
        };
        let started = plan.started.clone();
        let report = Reporter::new(request, self.happened.clone());
        let next_report = report.clone();
        let context = Arc::clone(&self.context);
        let happened = self.happened.clone();
        let task = tokio::spawn(async move {
            let result = plan.build(&context, &report).await;
            // When the loop is gone, dropping the result stops its sidecars.
            let _ = happened.send(Happening::Built(number, Box::new(result)));
        });
        self.building = Some(Building { number, task, started });
        self.next = Some(Next { loaded: next, report: next_report });
        if self.announced && !self.reloading {
            self.notifier.status(&self.stage().1);
        }
    }

    fn read_again(&mut self) -> Result<Loaded, String> {
        let flags = Overrides { instance: Some(self.loaded.instance.clone()), ..self.context.flags.clone() };
        let mut loaded = config::load(&flags, &Env::real()).map_err(|error| error.to_string())?;
        // Port 0 was chosen by the kernel once; the choice stands.
        self.listeners.change(&needed(&loaded.config, &self.loaded.config)).map_err(|error| error.to_string())?;
        loaded.path = loaded.path.or_else(|| self.loaded.path.clone());
        Ok(loaded)
    }

    /// Sends new requests to the current generation and lets the one before finish. Tells which one drains, if one does.
    fn serve(&mut self, previous: Option<&Arc<Generation>>, budget: Budget) -> Option<u64> {
        let current = Arc::clone(self.current.as_ref()?);
        self.context.front.publish(current.table());
        self.workers.allow(current.config.limits.connections);
        self.listeners.prune(&current.config.gateway.listen);
        if self.listeners.take_changed() {
            match self.listeners.handles() {
                Ok(sockets) => self.workers.listen(sockets),
                Err(error) => error!("[gateway] the listeners of before stay: {error}"),
            }
        }
        self.follow(&current);
        let draining = previous.and_then(|previous| self.drain(previous, &current, budget));
        self.finish_reload();
        self.refresh();
        self.log_ready(&current);
        draining
    }

    fn drain(&mut self, previous: &Arc<Generation>, current: &Generation, budget: Budget) -> Option<u64> {
        let left = previous.left_by(current);
        let units: Vec<_> = left.into_iter().map(|unit| (Arc::clone(&unit), patience_of(budget, &unit.spec(), &previous.config))).collect();
        if units.is_empty() {
            return None;
        }
        self.report.tell("switched", format!("generation {} has all new requests", current.number));
        let drain = Drain::new(previous.number, units, self.report.clone());
        self.drains.push(Arc::clone(&drain));
        let happened = self.happened.clone();
        let generation = previous.number;
        tokio::spawn(async move {
            drain.run().await;
            // When the loop is gone, nobody counts drains.
            let _ = happened.send(Happening::Drained(generation));
        });
        Some(generation)
    }

    fn follow(&mut self, current: &Generation) {
        self.followers.drain(..).for_each(|task| task.abort());
        for unit in current.units.values() {
            let mut state = unit.sidecar().watch();
            let happened = self.happened.clone();
            self.followers.push(tokio::spawn(async move {
                while state.changed().await.is_ok() && happened.send(Happening::SidecarChanged).is_ok() {}
            }));
        }
    }

    /// Brings `/readyz` and systemd's view up to date.
    fn refresh(&mut self) {
        let (_, detail) = self.stage();
        let serving = matches!(self.machine.phase(), Phase::Serving | Phase::Building(_));
        let troubles = self.current.as_ref().map(|generation| generation.troubles()).unwrap_or_default();
        match self.machine.phase() {
            // In a planned restart, requests are served or wait: that is ready.
            Phase::Building(_) => {}
            Phase::Serving => self.context.front.set_health(troubles),
            Phase::Starting(_) => self.context.front.set_health(vec!["starting".to_owned()]),
            Phase::Stopping { .. } | Phase::Ended => self.context.front.set_health(vec!["stopping".to_owned()]),
        }
        if serving && !self.announced {
            self.announced = true;
            self.notifier.ready(&detail);
        } else if serving && !self.reloading {
            self.notifier.status(&detail);
        }
    }

    fn finish_reload(&mut self) {
        if std::mem::take(&mut self.reloading) {
            self.notifier.ready(&self.stage().1);
        }
    }

    fn log_ready(&self, current: &Generation) {
        let number = current.number;
        let troubles = current.troubles();
        if !troubles.is_empty() {
            warn!(GENERATION = number, "[gateway] generation {number} serves, but is not ready: {}", troubles.join("; "));
            return;
        }
        let sidecars = current.info().sidecars.into_iter().map(|(name, pid)| format!("{name} pid {pid}"));
        let mut details = vec![format!("generation {number}")];
        details.extend(sidecars);
        details.push(format!("up {} ms", self.context.front.started.elapsed().as_millis()));
        info!(GENERATION = number, "[gateway] ready ({})", details.join(", "));
    }

    /// Once: that two copies ran side by side.
    fn notes(&mut self, overlapped: bool) -> Vec<String> {
        if !overlapped || self.overlap_explained {
            return Vec::new();
        }
        self.overlap_explained = true;
        vec!["old and new run side by side until the old one's work is done; if two copies must never run at once, use --exclusive or overlap = false".to_owned()]
    }

    fn wind(&mut self, at_once: bool) {
        self.notifier.stopping("stopping: finishing what is under way");
        let front = &self.context.front;
        front.set_closing();
        front.set_health(vec!["stopping".to_owned()]);
        // What the service manager holds, too, is served by the next life.
        self.workers.close(self.notifier.active());
        let wind = Wind {
            workers: Arc::clone(&self.workers),
            units: self.units(),
            upstreams: front.table().routes.backends().cloned().collect(),
            restart: self.loaded.config.restart.clone(),
            at_once,
        };
        let happened = self.happened.clone();
        tokio::spawn(async move {
            wind.run().await;
            // The loop ends only after this, or without it.
            let _ = happened.send(Happening::Quiet);
        });
    }

    fn check(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return };
        let workers = Arc::clone(&self.workers);
        let front = Arc::clone(&self.context.front);
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let result = watchdog::check(&workers, &front, limit).await;
            // When the loop is gone, there is nothing to watch.
            let _ = happened.send(Happening::Checked(result));
        });
    }
}

/// The addresses to have sockets for; a port 0 that is served already needs no second one.
fn needed(next: &Config, now: &Config) -> Vec<config::Listen> {
    let zero_before = |listen: &config::Listen| listen.port() == Some(0) && now.gateway.listen.contains(listen);
    next.gateway.listen.iter().filter(|listen| !zero_before(listen)).cloned().collect()
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
