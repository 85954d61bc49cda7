//! The runs of a sidecar: started, ready, restarted when it dies, stopped when asked.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tracing::{info, warn};

use super::backoff::{BecameFailing, GOOD};
use super::keeper::Pipes;
use super::loopback;
use super::notify_socket::NotifySocket;
use super::output::SidecarOutput;
use super::process::{ChildEnd, ChildProcess, not_loaded};
use super::readiness::{Hint, ReadinessProbe};
use super::state::{SidecarControl, SidecarFailure, SidecarNews, SidecarStart, SidecarState};
use crate::config::{OutputMode, Ready, StdinMode};
use crate::os::mutex::lock;
use crate::os::oom;
use crate::os::port;
use crate::state::terms::SidecarStanding;
use crate::text::human::span;
use crate::text::log::SidecarLog;
use crate::text::mistyped_command::unfilled_port;

/// A start that goes on printing may take this many start timeouts, no more.
pub const EXTENSIONS: u32 = 10;

/// A sidecar that listens elsewhere, and prints nothing, has this long to listen on its assigned port.
const HOPELESS: Duration = Duration::from_secs(10);

/// How often a long start is told of, with what it printed last.
const TELL_SLOW: Duration = Duration::from_secs(10);

/// How much of that is told.
const TOLD_MAX: usize = 200;

/// How long to wait for the last output of a dead process: a grandchild may hold the pipe open.
pub(super) const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// How often a start is tried again at once when another program took its private port.
const PORT_TRIES: u32 = 3;

/// Starts the process of one sidecar again and again until it is asked to end.
pub(super) struct Runner {
    pub start: SidecarStart,
    pub state: watch::Sender<SidecarState>,
    pub control: Arc<SidecarControl>,
}

/// One run of the process.
pub(super) struct Run<'a> {
    pub port: u16,
    pub notify: Option<&'a NotifySocket>,
    pub output: &'a Arc<SidecarOutput>,
    /// The processes that the kernel had ended for want of memory before.
    pub memory: Option<oom::Count>,
}

/// An unplanned end of a run.
#[derive(Default)]
pub(super) struct Death {
    pub cause: String,
    /// Its process ended by itself.
    pub exited: bool,
    pub last_words: Vec<String>,
    /// How long it had been ready, if it ever was.
    pub ready: Option<Duration>,
    /// Whether another program has taken its private port.
    pub port_taken: bool,
    /// Whether the kernel killed it because memory ran out.
    pub out_of_memory: bool,
}

impl From<String> for Death {
    fn from(cause: String) -> Self {
        Self {
            cause,
            ..Self::default()
        }
    }
}

impl Runner {
    /// Runs until the sidecar is stopped, or until its first start fails for good.
    pub async fn run(mut self) {
        let mut ever_ready = false;
        let mut port_tries = 0;
        if let Some(unfilled) = unfilled_port(&self.start.spec.command) {
            let name = &self.start.name;
            warn!(SIDECAR = name, "[gateway] sidecar {name}: {unfilled}");
        }
        let begins = self.wait_for_others().await;
        while begins && let Err(death) = self.attempt().await {
            if death.port_taken && port_tries < PORT_TRIES {
                port_tries += 1;
                continue;
            }
            port_tries = 0;
            ever_ready |= death.ready.is_some();
            let failure = Arc::new(SidecarFailure {
                cause: death.cause.clone(),
                exited: death.exited,
                last_words: death.last_words.clone(),
            });
            *lock(&self.control.last_failure) = Some(Arc::clone(&failure));
            if let Some(call) = lock(&self.control.own_restart).take() {
                // Whoever no longer waits needs no answer.
                let _ = call.done.send(Err(Arc::clone(&failure)));
            }
            if !ever_ready && !self.start.persist {
                self.state.send_replace(SidecarState::Stopped {
                    failure: Some(failure),
                });
                return;
            }
            let delay = self.count(&death);
            let name = &self.start.name;
            let when = if self.control.stop.is_cancelled() {
                "not starting it again".to_owned()
            } else if delay.is_zero() {
                "starting it again at once".to_owned()
            } else {
                format!("starting it again in {} ms", delay.as_millis())
            };
            warn!(
                SIDECAR = name,
                "[gateway] sidecar {name} {}; {when}", failure.cause
            );
            self.state.send_replace(SidecarState::Backoff { failure });
            self.control.restarts.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = self.control.stop.cancelled() => break,
                () = self.control.retry.notified() => {}
                () = tokio::time::sleep(delay) => {}
            }
        }
        self.state
            .send_replace(SidecarState::Stopped { failure: None });
    }

    /// Counts a death, and tells what somebody must know of it; how long to wait now comes back.
    fn count(&self, death: &Death) -> Duration {
        let ready = death.ready.unwrap_or_default();
        let mut backoff = lock(&self.control.backoff);
        let after = backoff.died(&death.cause, ready, Instant::now());
        match (after.failing, backoff.failing()) {
            (BecameFailing::No, None) if death.out_of_memory => {
                self.tell(SidecarStanding::OutOfMemory, death.cause.clone(), false);
            }
            (BecameFailing::No, _) | (_, None) => {}
            (first, Some(why)) => {
                let alert = first == BecameFailing::First;
                self.tell(SidecarStanding::Failing, why, alert);
            }
        }
        after.delay
    }

    fn tell(&self, standing: SidecarStanding, reason: String, alert: bool) {
        // An error means that the gateway ends.
        let _ = self.start.news.send(SidecarNews {
            name: self.start.name.clone(),
            standing,
            reason,
            alert,
        });
    }

    /// Waits until a sidecar that has just become ready was ready for [`GOOD`].
    pub(super) async fn serve_well(&self) -> Infallible {
        tokio::time::sleep(GOOD).await;
        if lock(&self.control.backoff).served_well() {
            let reason = format!("has been ready for {} min", GOOD.as_secs() / 60);
            self.tell(SidecarStanding::Recovered, reason, false);
        }
        std::future::pending().await
    }

    /// One run, where its variables are known.
    async fn attempt(&mut self) -> Result<(), Death> {
        self.read_env_file().await?;
        self.once().await
    }

    /// One run, until it is asked to end.
    async fn once(&self) -> Result<(), Death> {
        let SidecarStart {
            name,
            spec,
            redactor,
            run_dir,
            ..
        } = &self.start;
        self.state
            .send_replace(SidecarState::Starting { pid: 0, hint: None });
        let port = spec
            .port
            .map_or_else(port::private, Ok)
            .map_err(|error| format!("found no free port: {error}"))?;
        self.control.port.store(port, Ordering::Relaxed);
        let log = (spec.log == OutputMode::Lines).then(|| SidecarLog::new(name, redactor.clone()));
        let output = SidecarOutput::new(log, Arc::clone(&self.control.secrets));
        // What a program says when it is asked to end does not tell why: its words of before are there.
        let with_last_words = |death: Death| match death.last_words.is_empty() {
            true => Death {
                last_words: self.last_words(&output),
                ..death
            },
            false => death,
        };
        let prepared = self.prepare(port, &output).await.map_err(|death| {
            let cause = format!("could not be prepared: {}", death.cause);
            with_last_words(Death { cause, ..death })
        });
        if !prepared? {
            return Ok(());
        }
        let notify = spec
            .notifies()
            .then(|| NotifySocket::bind(run_dir, name, port))
            .transpose()
            .map_err(|error| {
                let dir = run_dir.display();
                format!("cannot be given a notify socket in {dir}: {error}")
            })?;
        let mut variables = self.variables(port);
        if let Some(notify) = &notify {
            let path = notify.path().display().to_string();
            variables.push(("NOTIFY_SOCKET".to_owned(), path));
        }
        let spawned = self
            .spawn(&with_port(&spec.command, port), &variables, spec.stdin)
            .await
            .map_err(|cause| redactor.text(&cause))?;
        let Some((process, pipes)) = spawned else {
            return Ok(());
        };
        let pid = process.id();
        info!(
            SIDECAR = name,
            "[gateway] sidecar {name} starting: pid {pid}, port {port}"
        );
        let readers = output.read_all(pipes);
        self.state
            .send_replace(SidecarState::Starting { pid, hint: None });
        let run = Run {
            port,
            notify: notify.as_ref(),
            output: &output,
            memory: oom::count(),
        };
        let run = self.watch(process, &run).await;
        let _ = tokio::time::timeout(LAST_OUTPUT, readers).await;
        run.map_err(with_last_words)
    }

    /// None when a stop came while the system loaded the program.
    pub(super) async fn spawn(
        &self,
        argv: &[String],
        variables: &[(String, String)],
        stdin: StdinMode,
    ) -> Result<Option<(ChildProcess, Pipes)>, String> {
        let SidecarStart {
            spec, inherited, ..
        } = &self.start;
        let limit = spec.start_timeout.0;
        tokio::select! {
            spawned = ChildProcess::spawn(argv, spec.cwd.as_deref(), inherited, variables, stdin) => spawned.map(Some),
            () = self.control.stop.cancelled() => Ok(None),
            () = tokio::time::sleep(limit) => Err(not_loaded(argv, limit)),
        }
    }

    /// From the spawned process to its end.
    async fn watch(&self, mut process: ChildProcess, run: &Run<'_>) -> Result<(), Death> {
        let SidecarStart { name, spec, .. } = &self.start;
        let Run { port, output, .. } = *run;
        let pid = process.id();
        let probe = ReadinessProbe {
            ready: &spec.ready,
            port,
            private: spec.port.is_none(),
            pid,
            start_timeout: spec.start_timeout.0,
            notify: run.notify.filter(|_| spec.ready == Ready::Notify),
        };
        let hinted = |hint: Hint| self.tell_hint(pid, hint);
        let begun = Instant::now();
        let ready = tokio::select! {
            biased;
            () = self.control.stop.cancelled() => return self.end(process).await,
            () = process.ended() => {
                let end = process.reap().await;
                let port_taken = self.has_lost(port);
                let death = run.how_it_ended(end);
                let cause = format!("{} before it was ready", death.cause);
                return Err(Death { cause, port_taken, ..death });
            }
            ready = probe.ready(hinted) => ready,
            () = too_slow(begun, spec.start_timeout.0, output, self.state.subscribe()) => {
                return Err(self.give_up(process, begun, run).await);
            }
            never = self.tell_slow(begun, output) => match never {},
        };
        let took = begun.elapsed();
        info!(
            SIDECAR = name,
            "[gateway] sidecar {name} ready: pid {pid}, {}, after {} ms",
            ready.server.at.address,
            took.as_millis()
        );
        if let Some(other) = &ready.other {
            warn!(SIDECAR = name, "[gateway] sidecar {name} {other}");
        }
        output.started();
        let at = ready.server.at;
        tokio::select! {
            end = self.serve(process, ready, run) => end,
            never = loopback::look_beyond(&self.start, &self.control, at) => match never {},
        }
    }

    /// Says what is odd about a slow start.
    pub(super) fn tell_hint(&self, pid: u32, hint: Hint) {
        let name = &self.start.name;
        warn!(SIDECAR = name, "[gateway] sidecar {name} {}", hint.text);
        self.state.send_replace(SidecarState::Starting {
            pid,
            hint: Some(hint),
        });
    }

    /// Says again and again that a start takes long, with what it printed last.
    async fn tell_slow(&self, begun: Instant, output: &SidecarOutput) -> Infallible {
        let name = &self.start.name;
        let first = tokio::time::Instant::from_std(begun + TELL_SLOW);
        let mut due = tokio::time::interval_at(first, TELL_SLOW);
        loop {
            due.tick().await;
            let waited = begun.elapsed().as_secs();
            let printed = match self.last_words(output).pop() {
                Some(line) => {
                    let line: String = line.chars().take(TOLD_MAX).collect();
                    format!("it printed last: {line}")
                }
                None => "it has printed nothing".to_owned(),
            };
            let text = format!("is still starting after {waited} s; {printed}");
            info!(SIDECAR = name, "[gateway] sidecar {name} {text}");
            self.control.slow.send_replace(text);
        }
    }

    /// Ends a process that was not ready in time.
    async fn give_up(&self, process: ChildProcess, begun: Instant, run: &Run<'_>) -> Death {
        let limit = self.start.spec.start_timeout;
        let more =
            format!("; if it only needs longer: --start-timeout (start_timeout, {limit} now)");
        let why = match &*self.state.borrow() {
            SidecarState::Starting {
                hint: Some(hint), ..
            } if hint.hopeless => format!("; it {}", hint.text),
            SidecarState::Starting {
                hint: Some(hint), ..
            } => format!("; it {}{more}", hint.text),
            _ => more,
        };
        let last_words = self.last_words(run.output);
        process.stop(self.start.spec.stop_timeout.0).await;
        let waited = span(begun.elapsed().as_millis() as u64);
        let cause = format!("was not ready after {waited} on port {}{why}", run.port);
        Death {
            port_taken: self.has_lost(run.port),
            last_words,
            ..cause.into()
        }
    }

    /// Whether another program has taken a port that was chosen for this run, which is over.
    fn has_lost(&self, port: u16) -> bool {
        self.start.spec.port.is_none() && !port::is_private(port)
    }

    /// Ends a process as asked.
    pub(super) async fn end(&self, process: ChildProcess) -> Result<(), Death> {
        let pid = process.id();
        self.state.send_replace(SidecarState::Stopping { pid });
        let patience = self.control.patience.load(Ordering::Relaxed);
        let end = process.stop(Duration::from_millis(patience)).await;
        let name = &self.start.name;
        info!(
            SIDECAR = name,
            "[gateway] sidecar {name} stopped: pid {pid} {end}"
        );
        Ok(())
    }

    /// Runs `prepare`, if there is one; false when a stop came first.
    async fn prepare(&self, port: u16, output: &Arc<SidecarOutput>) -> Result<bool, Death> {
        let spec = &self.start.spec;
        if spec.prepare.is_empty() {
            return Ok(true);
        }
        let argv = with_port(&spec.prepare, port);
        let spawned = self
            .spawn(&argv, &self.variables(port), StdinMode::Null)
            .await;
        let Some((mut process, pipes)) = spawned.map_err(|cause| format!("it {cause}"))? else {
            return Ok(false);
        };
        let readers = output.read_all(pipes);
        tokio::select! {
            () = self.control.stop.cancelled() => {
                process.stop(spec.stop_timeout.0).await;
                return Ok(false);
            }
            () = process.ended() => {}
            () = too_slow(Instant::now(), spec.start_timeout.0, output, self.state.subscribe()) => {
                let last_words = self.last_words(output);
                process.stop(spec.stop_timeout.0).await;
                let cause = format!("{} did not end in {}", argv[0], spec.start_timeout);
                return Err(Death { last_words, ..cause.into() });
            }
        }
        let end = process.reap().await;
        let _ = tokio::time::timeout(LAST_OUTPUT, readers).await;
        match end.success() {
            true => Ok(true),
            false => Err(format!("{} {end}", argv[0]).into()),
        }
    }

    pub(super) fn last_words(&self, output: &SidecarOutput) -> Vec<String> {
        self.redacted(output.last_words())
    }

    pub(super) fn redacted(&self, lines: Vec<String>) -> Vec<String> {
        let redactor = &self.start.redactor;
        lines.iter().map(|line| redactor.text(line)).collect()
    }
}

impl Run<'_> {
    /// How the process came to an unplanned end, and whether the kernel ended it because memory ran
    /// out.
    pub fn how_it_ended(&self, end: ChildEnd) -> Death {
        let out_of_memory = oom::killed(end.signal(), self.memory.as_ref(), oom::count().as_ref());
        let cause = if out_of_memory {
            format!("{end}: the kernel ended it because memory ran out")
        } else {
            end.to_string()
        };
        Death {
            out_of_memory,
            exited: end.signal().is_none(),
            ..cause.into()
        }
    }
}

pub(super) fn with_port(argv: &[String], port: u16) -> Vec<String> {
    argv.iter()
        .map(|arg| arg.replace("{port}", &port.to_string()))
        .collect()
}

/// Done when nothing new was printed for the length of a start timeout, or after [`EXTENSIONS`] of
/// them; sooner when there is no hope.
pub(super) async fn too_slow(
    begun: Instant,
    timeout: Duration,
    output: &SidecarOutput,
    mut state: watch::Receiver<SidecarState>,
) {
    loop {
        let timeout = match &*state.borrow_and_update() {
            SidecarState::Starting {
                hint: Some(hint), ..
            } if hint.hopeless => timeout.min(HOPELESS),
            _ => timeout,
        };
        let quiet = output.last_progress().max(begun) + timeout;
        let deadline = quiet.min(begun + timeout * EXTENSIONS);
        if Instant::now() >= deadline {
            return;
        }
        // An error of the watch means that its sender, the runner, is gone, and this with it.
        let _ = tokio::time::timeout_at(deadline.into(), state.changed()).await;
    }
}
