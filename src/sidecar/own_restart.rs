//! The restart of a server by its own means: a signal, a command or a request asks for it, and what
//! the kernel shows tells that it happened.
//!
//! A server that restarts answers before and after, so an answer alone shows nothing. What shows it
//! is another main process, another program in it (exec), another listening socket, or other
//! processes below it. When nothing of that changes any more, and the server answers, it is ready
//! again.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::drain_notice::{number, post};
use super::output::SidecarOutput;
use super::process::{ChildEnd, ChildProcess};
use super::readiness::{ReadinessProbe, ReadyServer};
use super::runner::{LAST_OUTPUT, Run, Runner, too_slow, with_port};
use crate::config::{Ready, Reload, ReloadMeans, StdinMode};
use crate::os::port::{Server, ServerAddress, listener_at};
use crate::os::process::{Stat, children, descendants, living_in_group, program_mark};
use crate::text::human::span;

/// Between two looks at the server. The kernel has no event for what is looked for.
const LOOK: Duration = Duration::from_millis(20);

/// The same after [`UNNOTICED`]: nobody waits then.
const LOOK_LATER: Duration = Duration::from_millis(100);

/// A server that shows no sign of a restart for this long gets requests again until it does: it may
/// finish its work first, and clients wait no longer than for a slow answer.
const UNNOTICED: Duration = Duration::from_secs(2);

/// The same after the command ended or the request was answered: the server says that it is done or
/// that it begins, and may change nothing that can be seen.
const ACKNOWLEDGED: Duration = Duration::from_millis(500);

/// A server of which nothing changed for this long has come to rest: all workers of the usual ones are
/// replaced within milliseconds, or one at a time while the others serve.
const AT_REST: Duration = Duration::from_millis(250);

/// A server that changes for longer than this after the first sign starts processes as it works, so
/// its rest is not waited for.
const RESTLESS: Duration = Duration::from_secs(2);

/// One restart of a server by its own means.
pub(super) struct OwnRestart {
    reload: Reload,
    begun: Instant,
    /// How long a process that takes the place of the main one is looked for.
    limit: Duration,
    at: ServerAddress,
    main: AtomicU32,
    /// The processes of the server at the beginning.
    known: HashSet<u32>,
    before: ServerMark,
    /// How many lines the server had printed.
    printed: u64,
    /// A sign of the restart was seen.
    seen: AtomicBool,
}

/// Why a server has not restarted.
pub(super) enum OwnRestartError {
    /// It serves on as it was.
    GoesOn(String),
    /// It has restarted, and is not ready again.
    NotReady(String),
    /// The sidecar was asked to end.
    Stopped,
    /// Its main process has ended.
    Died,
}

/// What changes when a server restarts.
#[derive(Clone, PartialEq)]
struct ServerMark {
    main: u32,
    program: Option<Vec<u8>>,
    children: BTreeSet<u32>,
    /// Inode and cookie of the listening socket.
    listener: Option<(u64, u64)>,
}

impl ServerMark {
    fn read(main: u32, at: ServerAddress) -> Self {
        Self {
            main,
            program: program_mark(main),
            children: children(main).into_iter().collect(),
            // An error is none: it is looked at again.
            listener: listener_at(at.address)
                .ok()
                .flatten()
                .map(|socket| (socket.inode, socket.cookie)),
        }
    }
}

impl OwnRestart {
    /// Looks at the server as it is before.
    pub async fn begin(
        reload: &Reload,
        process: &ChildProcess,
        server: &Server,
        runner: &Runner,
        output: &SidecarOutput,
    ) -> Self {
        let printed = output.printed();
        let (at, main, group) = (server.at, process.id(), process.group());
        let look = move || (ServerMark::read(main, at), descendants(group));
        let (before, known) = match tokio::task::spawn_blocking(look).await {
            Ok(found) => found,
            // Only where the runtime ends.
            Err(_) => std::future::pending().await,
        };
        Self {
            reload: reload.clone(),
            begun: Instant::now(),
            limit: runner.start.spec.start_timeout.0,
            at,
            main: AtomicU32::new(main),
            known,
            before,
            printed,
            seen: AtomicBool::new(false),
        }
    }

    /// What asks the server for it.
    pub fn means(&self) -> &ReloadMeans {
        &self.reload.means
    }

    /// What the server printed since then that tells why it does not restart.
    pub fn last_words(&self, runner: &Runner, output: &SidecarOutput) -> Vec<String> {
        runner.redacted(output.last_words_after(self.printed))
    }

    pub fn age(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The main process.
    pub fn main(&self) -> u32 {
        self.main.load(Ordering::Relaxed)
    }

    /// Another process is the main one now.
    pub fn follow(&self, heir: u32) {
        self.main.store(heir, Ordering::Relaxed);
    }

    /// The process that takes the place of the main one, which has ended: a new one of its group, which
    /// no other one of the group has started. A server ends its old process within its start timeout.
    pub fn heir(&self) -> Option<u32> {
        if self.age() > self.limit {
            return None;
        }
        let group: HashSet<u32> = living_in_group(self.at.pid).into_iter().collect();
        let new = group.iter().filter(|pid| !self.known.contains(pid));
        let stats = new.filter_map(|pid| Some((*pid, Stat::read(*pid)?)));
        let tops = stats.filter(|(_, stat)| !group.contains(&stat.parent));
        tops.min_by_key(|(_, stat)| stat.start_time)
            .map(|(pid, _)| pid)
    }

    /// What to add to the cause of a death that this restart may have led to.
    pub fn blame(&self, end: ChildEnd) -> Option<String> {
        if self.age() > self.limit {
            return None;
        }
        let means = self.means();
        let unhandled = match means {
            ReloadMeans::Signal(name) => end.signal() == Some(number(*name) as i32),
            _ => false,
        };
        let advice = if unhandled {
            ": its main process does not handle that signal; a shell or npm in front of the server does not pass it on (put `exec` before the server)"
        } else if end.success() {
            ", which was to restart it; if it goes on in another process, that must stay in its process group"
        } else {
            ", which was to restart it"
        };
        Some(format!(" after {means}{advice}"))
    }

    /// Sends the signal, where that is the way.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn signal(&self, process: &ChildProcess) -> Result<(), OwnRestartError> {
        let ReloadMeans::Signal(name) = self.means() else {
            return Ok(());
        };
        let sent = process.signal_main(number(*name));
        sent.map_err(|error| OwnRestartError::GoesOn(format!("cannot be sent SIG{name}: {error}")))
    }

    /// Asks the server, if that is not done by a signal, and waits until it is ready again. `open` is
    /// told whether requests may go to it meanwhile.
    ///
    /// # Errors
    /// [`OwnRestartError::GoesOn`] or [`OwnRestartError::NotReady`]
    pub async fn until_ready(
        &self,
        runner: &Runner,
        run: &Run<'_>,
        server: &Arc<Server>,
        open: impl Fn(bool),
    ) -> Result<ReadyServer, OwnRestartError> {
        let limit = runner.start.spec.start_timeout.0;
        let comes_back = async {
            self.sign(runner, run, server, open).await?;
            Ok(self.answers_again(runner, run).await)
        };
        tokio::select! {
            ready = comes_back => ready,
            () = too_slow(self.begun, limit, run.output, runner.state.subscribe()) => Err(self.late()),
        }
    }

    fn late(&self) -> OwnRestartError {
        let waited = span(self.age().as_millis() as u64);
        let means = self.means();
        if self.seen.load(Ordering::Relaxed) {
            let port = self.at.address.port();
            return OwnRestartError::NotReady(format!(
                "was not ready again {waited} after {means} on port {port}"
            ));
        }
        let why = match means {
            ReloadMeans::Signal(_) => format!(
                "shows no sign of a restart {waited} after {means}: no other process, program or listener; if it restarts without, let it send READY=1 (reload = {{ …, ready = \"notify\" }})"
            ),
            ReloadMeans::Command(_) => format!("has not restarted: {means} runs for {waited}"),
            ReloadMeans::Path(_) => {
                format!("has not restarted: no answer to {means} after {waited}")
            }
        };
        OwnRestartError::GoesOn(why)
    }

    /// Waits for the first sign of the restart.
    async fn sign(
        &self,
        runner: &Runner,
        run: &Run<'_>,
        server: &Server,
        open: impl Fn(bool),
    ) -> Result<(), OwnRestartError> {
        let told = async {
            match run.notify.filter(|_| self.ready(runner) == &Ready::Notify) {
                Some(notify) => notify.ready().await,
                None => std::future::pending().await,
            }
        };
        let asked = self.ask(runner, run, server);
        tokio::pin!(told, asked);
        let by_notice = self.ready(runner) == &Ready::Notify;
        let (mut acknowledged, mut answered, mut opened) = (None::<Instant>, false, false);
        loop {
            tokio::select! {
                () = &mut told => break,
                answer = &mut asked, if !answered => {
                    answered = true;
                    let done = answer.map_err(OwnRestartError::GoesOn)?;
                    acknowledged = done.then(Instant::now);
                }
                () = tokio::time::sleep(if opened { LOOK_LATER } else { LOOK }) => {}
            }
            if by_notice {
                // Nothing else counts.
            } else if self.look().await != self.before
                || acknowledged.is_some_and(|since| since.elapsed() > ACKNOWLEDGED)
            {
                break;
            }
            if !opened && self.age() > UNNOTICED {
                opened = true;
                open(true);
            }
        }
        self.seen.store(true, Ordering::Relaxed);
        if opened {
            open(false);
        }
        Ok(())
    }

    /// Asks the server; whether it says that it restarts comes back.
    async fn ask(&self, runner: &Runner, run: &Run<'_>, server: &Server) -> Result<bool, String> {
        match self.means() {
            ReloadMeans::Signal(_) => Ok(false),
            ReloadMeans::Command(command) => {
                let argv = with_port(command, run.port);
                self.run(&argv, runner, run).await?;
                Ok(true)
            }
            ReloadMeans::Path(path) => match post(server, path).await {
                Ok(200..400) => Ok(true),
                Ok(status) => Err(format!("answered POST {path} with {status}")),
                // It may restart before it answers.
                Err(_) => Ok(false),
            },
        }
    }

    async fn run(&self, argv: &[String], runner: &Runner, run: &Run<'_>) -> Result<(), String> {
        let mut variables = runner.variables(run.port);
        variables.push(("MAINPID".to_owned(), self.main().to_string()));
        let spawned = runner.spawn(argv, &variables, StdinMode::Null).await;
        let spawned = spawned.map_err(|why| format!("has not restarted: it {why}"))?;
        let Some((mut process, pipes)) = spawned else {
            return Err("has not restarted: it was stopped".to_owned());
        };
        let readers = run.output.read_all(pipes);
        process.ended().await;
        let end = process.reap().await;
        let _ = tokio::time::timeout(LAST_OUTPUT, readers).await;
        match end.success() {
            true => Ok(()),
            false => Err(format!("has not restarted: {} {end}", self.means())),
        }
    }

    /// Waits until the server has come to rest and answers.
    async fn answers_again(&self, runner: &Runner, run: &Run<'_>) -> ReadyServer {
        let spec = &runner.start.spec;
        let ready = match self.ready(runner) {
            // It has just said so.
            Ready::Notify => &Ready::Tcp,
            ready => ready,
        };
        let probe = ReadinessProbe {
            ready,
            port: run.port,
            private: spec.port.is_none(),
            pid: self.at.pid,
            start_timeout: spec.start_timeout.0,
            notify: None,
        };
        let restless = Instant::now() + RESTLESS;
        loop {
            let mark = self.at_rest(restless).await;
            let ready = probe
                .ready(|hint| runner.tell_hint(self.main(), hint))
                .await;
            if self.look().await == mark || Instant::now() >= restless {
                return ready;
            }
        }
    }

    /// Waits until nothing has changed for [`AT_REST`], but not beyond `limit`.
    async fn at_rest(&self, limit: Instant) -> ServerMark {
        let mut mark = self.look().await;
        let mut since = Instant::now();
        while since.elapsed() < AT_REST && Instant::now() < limit {
            tokio::time::sleep(LOOK).await;
            let now = self.look().await;
            if now != mark {
                (mark, since) = (now, Instant::now());
            }
        }
        mark
    }

    fn ready<'a>(&'a self, runner: &'a Runner) -> &'a Ready {
        self.reload
            .ready
            .as_ref()
            .unwrap_or(&runner.start.spec.ready)
    }

    async fn look(&self) -> ServerMark {
        let (main, at) = (self.main(), self.at);
        let look = tokio::task::spawn_blocking(move || ServerMark::read(main, at));
        // An error comes only where the runtime ends: then nothing has changed.
        look.await.unwrap_or_else(|_| self.before.clone())
    }
}
