//! A sidecar's life: started, ready, restarted when it dies, stopped when asked.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::backoff::Backoff;
use super::notify_socket::NotifySocket;
use super::output::SidecarOutput;
use super::process::{ChildProcess, Pipes, describe};
use super::readiness::{Hint, ReadinessProbe};
use super::state::{SidecarFailure, SidecarStart, SidecarState};
use crate::config::{OutputMode, Ready};
use crate::os::oom;
use crate::os::port;
use crate::text::log::{OutputStream, SidecarLog};

/// A start that goes on printing may take this many start timeouts, no more.
const EXTENSIONS: u32 = 10;

/// A sidecar that listens elsewhere, and prints nothing, has this long to listen where it was told
/// as well.
const HOPELESS: Duration = Duration::from_secs(10);

/// How long the last output of a dead process is waited for: a grandchild may hold the pipe open
/// for ever.
pub(super) const LAST_OUTPUT: Duration = Duration::from_millis(200);

/// How often a start is tried again at once when somebody else took its private port first.
const PORT_TRIES: u32 = 3;

/// Starts the process of one sidecar again and again until it is asked to end.
pub(super) struct Runner {
    pub start: SidecarStart,
    pub state: watch::Sender<SidecarState>,
    pub stop: CancellationToken,
    /// Unplanned restarts so far.
    pub restarts: Arc<AtomicU64>,
    /// The port of the present run.
    pub port: Arc<AtomicU64>,
    /// How long the process may take to end after SIGTERM, in milliseconds.
    pub patience: Arc<AtomicU64>,
}

/// How one run ended.
enum RunEnd {
    Asked,
    /// It died after it had been ready for this long, or never was.
    Died {
        failure: SidecarFailure,
        ready: Option<Duration>,
        port_taken: bool,
    },
}

impl Runner {
    /// Runs until the sidecar is stopped, or until its first start fails for good.
    pub async fn run(self) {
        let mut backoff = Backoff::default();
        let mut ever_ready = false;
        let mut port_tries = 0;
        loop {
            let (failure, ready, port_taken) = match self.once().await {
                RunEnd::Asked => break,
                RunEnd::Died {
                    failure,
                    ready,
                    port_taken,
                } => (Arc::new(failure), ready, port_taken),
            };
            if port_taken && port_tries < PORT_TRIES {
                port_tries += 1;
                continue;
            }
            port_tries = 0;
            ever_ready |= ready.is_some();
            if !ever_ready && !self.start.persist {
                self.state.send_replace(SidecarState::Stopped {
                    failure: Some(failure),
                });
                return;
            }
            let delay = backoff.after(ready.unwrap_or_default());
            let name = &self.start.name;
            let when = if delay.is_zero() {
                "at once".to_owned()
            } else {
                format!("in {} ms", delay.as_millis())
            };
            warn!(
                SIDECAR = name,
                "[gateway] sidecar {name} {}; starting it again {when}", failure.cause
            );
            self.state.send_replace(SidecarState::Backoff { failure });
            self.restarts.fetch_add(1, Ordering::Relaxed);
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = tokio::time::sleep(delay) => {}
            }
        }
        self.state
            .send_replace(SidecarState::Stopped { failure: None });
    }

    async fn once(&self) -> RunEnd {
        let died = |cause: String, words: Vec<String>| RunEnd::Died {
            failure: SidecarFailure {
                cause,
                last_words: words,
            },
            ready: None,
            port_taken: false,
        };
        let spec = &self.start.spec;
        self.state
            .send_replace(SidecarState::Starting { pid: 0, hint: None });
        let port = match spec.port.map_or_else(port::private, Ok) {
            Ok(port) => port,
            Err(error) => return died(format!("found no free port: {error}"), Vec::new()),
        };
        self.port.store(u64::from(port), Ordering::Relaxed);
        let log = (spec.log == OutputMode::Lines)
            .then(|| SidecarLog::new(&self.start.name, self.start.redactor.clone()));
        let output = SidecarOutput::new(log);
        match self.prepare(port, &output).await {
            Ok(true) => {}
            Ok(false) => return RunEnd::Asked,
            Err(cause) => return died(cause, self.words(&output)),
        }
        let notify = match (spec.ready == Ready::Notify)
            .then(|| NotifySocket::bind(&self.start.run_dir, &self.start.name, port))
            .transpose()
        {
            Ok(notify) => notify,
            Err(error) => {
                return died(
                    format!(
                        "cannot be given a notify socket in {}: {error}",
                        self.start.run_dir.display()
                    ),
                    Vec::new(),
                );
            }
        };
        let mut variables = self.variables(port);
        if let Some(notify) = &notify {
            variables.push((
                "NOTIFY_SOCKET".to_owned(),
                notify.path().display().to_string(),
            ));
        }
        let argv = with_port(&spec.command, port);
        let (process, pipes) = match ChildProcess::spawn(
            &argv,
            spec.cwd.as_deref(),
            &self.start.inherited,
            &variables,
        ) {
            Ok(spawned) => spawned,
            Err(cause) => return died(self.start.redactor.text(&cause), Vec::new()),
        };
        let pid = process.id();
        info!(
            SIDECAR = self.start.name,
            "[gateway] sidecar {} starting: pid {pid}, port {port}", self.start.name
        );
        let readers = read(pipes, &output);
        self.state
            .send_replace(SidecarState::Starting { pid, hint: None });
        let run = self.watch(process, port, notify.as_ref(), &output).await;
        let _ = tokio::time::timeout(LAST_OUTPUT, readers).await;
        match run {
            RunEnd::Died {
                failure,
                ready,
                port_taken,
            } => RunEnd::Died {
                failure: SidecarFailure {
                    last_words: self.words(&output),
                    ..failure
                },
                ready,
                port_taken,
            },
            asked => asked,
        }
    }

    /// From the spawned process to its end.
    async fn watch(
        &self,
        mut process: ChildProcess,
        port: u16,
        notify: Option<&NotifySocket>,
        output: &SidecarOutput,
    ) -> RunEnd {
        let pid = process.id();
        let spec = &self.start.spec;
        let memory = oom::count();
        let probe = ReadinessProbe {
            ready: &spec.ready,
            port,
            pid,
            notify,
        };
        let name = &self.start.name;
        let hinted = |hint: Hint| {
            warn!(SIDECAR = name, "[gateway] sidecar {name} {}", hint.text);
            self.state.send_replace(SidecarState::Starting {
                pid,
                hint: Some(hint),
            });
        };
        let begun = Instant::now();
        let address = tokio::select! {
            biased;
            () = self.stop.cancelled() => return self.end(process).await,
            () = process.ended() => {
                let status = process.reap().await;
                let port_taken = spec.port.is_none() && std::net::TcpListener::bind(("127.0.0.1", port)).is_err();
                let cause = format!("{} before it was ready", how_it_ended(status, memory.as_ref()));
                return RunEnd::Died { failure: SidecarFailure { cause, last_words: Vec::new() }, ready: None, port_taken };
            }
            address = probe.ready(hinted) => address,
            () = too_slow(begun, spec.start_timeout.0, output, self.state.subscribe()) => {
                let hint = match &*self.state.borrow() {
                    SidecarState::Starting { hint, .. } => hint.clone(),
                    _ => None,
                };
                process.stop(spec.stop_timeout.0).await;
                let why = hint.map(|hint| format!("; it {}", hint.text)).unwrap_or_default();
                let waited = begun.elapsed().as_secs();
                let cause = format!("was not ready after {waited} s on port {port}{why}");
                return RunEnd::Died { failure: SidecarFailure { cause, last_words: Vec::new() }, ready: None, port_taken: false };
            }
        };
        let took = begun.elapsed();
        info!(
            SIDECAR = name,
            "[gateway] sidecar {name} ready: pid {pid}, {address}, after {} ms",
            took.as_millis()
        );
        let ready = Instant::now();
        self.state
            .send_replace(SidecarState::Ready { pid, address });
        let talk = async {
            match notify {
                Some(notify) => notify.read_on().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            never = talk => match never {},
            () = self.stop.cancelled() => self.end(process).await,
            () = process.ended() => {
                // Before anything that takes time: from here on requests must wait instead of
                // knocking at a dead port.
                let failure = SidecarFailure { cause: "died".to_owned(), last_words: Vec::new() };
                self.state.send_replace(SidecarState::Backoff { failure: Arc::new(failure) });
                let status = process.reap().await;
                let cause = format!("(pid {pid}) {}", how_it_ended(status, memory.as_ref()));
                let failure = SidecarFailure { cause, last_words: Vec::new() };
                RunEnd::Died { failure, ready: Some(ready.elapsed()), port_taken: false }
            }
        }
    }

    async fn end(&self, process: ChildProcess) -> RunEnd {
        let pid = process.id();
        self.state.send_replace(SidecarState::Stopping { pid });
        let status = process
            .stop(Duration::from_millis(self.patience.load(Ordering::Relaxed)))
            .await;
        let name = &self.start.name;
        info!(
            SIDECAR = name,
            "[gateway] sidecar {name} stopped: pid {pid} {}",
            describe(status)
        );
        RunEnd::Asked
    }

    /// Runs `prepare`, if there is one; false when a stop came first.
    async fn prepare(&self, port: u16, output: &Arc<SidecarOutput>) -> Result<bool, String> {
        let spec = &self.start.spec;
        if spec.prepare.is_empty() {
            return Ok(true);
        }
        let argv = with_port(&spec.prepare, port);
        let (mut process, pipes) = ChildProcess::spawn(
            &argv,
            spec.cwd.as_deref(),
            &self.start.inherited,
            &self.variables(port),
        )
        .map_err(|cause| format!("could not be prepared: it {cause}"))?;
        let readers = read(pipes, output);
        tokio::select! {
            () = self.stop.cancelled() => {
                process.stop(spec.stop_timeout.0).await;
                return Ok(false);
            }
            () = process.ended() => {}
            () = too_slow(Instant::now(), spec.start_timeout.0, output, self.state.subscribe()) => {
                process.stop(spec.stop_timeout.0).await;
                return Err(format!("could not be prepared: {} did not end in {}", argv[0], spec.start_timeout));
            }
        }
        let status = process.reap().await;
        let _ = tokio::time::timeout(LAST_OUTPUT, readers).await;
        if status.success() {
            Ok(true)
        } else {
            Err(format!(
                "could not be prepared: {} {}",
                argv[0],
                describe(status)
            ))
        }
    }

    fn variables(&self, port: u16) -> Vec<(String, String)> {
        let written = self
            .start
            .spec
            .env
            .iter()
            .map(|(name, value)| (name.clone(), value.replace("{port}", &port.to_string())));
        std::iter::once(("PORT".to_owned(), port.to_string()))
            .chain(written)
            .collect()
    }

    fn words(&self, output: &SidecarOutput) -> Vec<String> {
        output
            .last_words()
            .iter()
            .map(|line| self.start.redactor.text(line))
            .collect()
    }
}

/// How a process ended that nobody asked to, with the kernel's word where memory ran out since
/// `before`.
fn how_it_ended(status: ExitStatus, before: Option<&oom::Count>) -> String {
    let how = describe(status);
    if oom::killed(status.signal(), before, oom::count().as_ref()) {
        return format!("{how}: the kernel ended it because memory ran out");
    }
    how
}

pub(super) fn read(pipes: Pipes, output: &Arc<SidecarOutput>) -> impl Future<Output = ()> + use<> {
    let out = tokio::spawn(Arc::clone(output).read(OutputStream::Out, pipes.out));
    let err = tokio::spawn(Arc::clone(output).read(OutputStream::Err, pipes.err));
    async {
        let _ = tokio::join!(out, err);
    }
}

fn with_port(argv: &[String], port: u16) -> Vec<String> {
    argv.iter()
        .map(|arg| arg.replace("{port}", &port.to_string()))
        .collect()
}

/// Done when nothing was printed for the length of a start timeout, or after [`EXTENSIONS`] of
/// them; sooner when there is no hope.
async fn too_slow(
    begun: Instant,
    timeout: Duration,
    output: &SidecarOutput,
    mut state: watch::Receiver<SidecarState>,
) {
    loop {
        let hopeless = matches!(&*state.borrow_and_update(), SidecarState::Starting { hint: Some(hint), .. } if hint.hopeless);
        let timeout = if hopeless {
            timeout.min(HOPELESS)
        } else {
            timeout
        };
        let quiet = output.last_printed().max(begun) + timeout;
        let deadline = quiet.min(begun + timeout * EXTENSIONS);
        if Instant::now() >= deadline {
            return;
        }
        // An error of the watch means that its sender, the runner, is gone, and this with it.
        let _ = tokio::time::timeout_at(deadline.into(), state.changed()).await;
    }
}
