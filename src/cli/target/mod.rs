//! Finds the selected gateway that runs, and its control socket.

mod absence;
pub mod ended;
mod selection;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

pub use self::selection::{
    config_path, named_by_path, named_config, named_state_dir, naming_config, naming_flags,
    of_service, overrides, scope, wanted_name,
};
use crate::cli::args::Global;
use crate::cli::error::{Choice, CliError, Exit};
use crate::config::{self, DEFAULT_INSTANCE, Env};
use crate::control::client::{CallError, Client, SocketPeer};
use crate::control::protocol::{FailureCode, Method, Progress, Status};
use crate::os::process::Stat;
use crate::os::unix_socket;
use crate::service::{Rights, more_rights};
use crate::state::owner::Owner;
use crate::state::paths::Paths;
use crate::text::shell;

/// What is answered without any work, as a status, takes no longer: else the gateway is suspended or
/// stuck.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// How often a gateway that is waited for is looked at: whether it was suspended meanwhile.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a request follows the gateway from one process to the next: each hand-over takes
/// longer than asking again.
const MOVES: usize = 3;

/// A gateway that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub instance: String,
    pub control: PathBuf,
    /// The flags that name it, with a blank before them: for the next command in messages.
    pub flags: String,
    /// The configuration by which alone it is named: it must be its own.
    config: Option<PathBuf>,
}

/// What flags, environment and configuration say about the selected gateway.
struct Hints {
    name: Option<String>,
    state_dir: Option<PathBuf>,
    /// Whether a flag or variable of this call names `state_dir` or its configuration. False for a
    /// configuration that was found in its usual place.
    by_path: bool,
}

impl Hints {
    fn read(global: &Global, env: &Env<'_>) -> Self {
        let configured = || {
            let loaded = config::load(&overrides(global, env), env).ok()?;
            loaded.config.gateway.state_dir
        };
        Self {
            name: wanted_name(global, env),
            state_dir: named_state_dir(global, env).or_else(configured),
            by_path: named_by_path(global, env).is_some(),
        }
    }

    fn name_or_default(&self) -> &str {
        self.name.as_deref().unwrap_or(DEFAULT_INSTANCE)
    }
}

/// Whether a gateway serves a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketState {
    Alive,
    Dead,
    Denied,
}

impl Target {
    /// The running gateway that the flags select.
    ///
    /// `--state-dir` names it by path, and so does a `--config` that says where its state is;
    /// `--instance` looks in every place of that name; without any it is the only one there is.
    ///
    /// # Errors
    /// [`Exit::NotRunning`] with the next command; [`Exit::Usage`] with the list when there are
    /// several; [`Exit::Permission`] when it is another user's.
    pub fn find(global: &Global, env: &Env<'_>) -> Result<Self, CliError> {
        let hints = Hints::read(global, env);
        if let (Some(dir), true) = (&hints.state_dir, hints.by_path) {
            return Self::by_path(hints.name, dir);
        }
        let found = match &hints.name {
            Some(name) => Paths::candidates(env, name, scope(global))
                .into_iter()
                .map(|control| Self::named(name, control))
                .chain(hints.state_dir.map(|dir| Self::in_state_dir(name, &dir)))
                .collect(),
            None => all(global, env),
        };
        let target = Self::choose(found, hints.name.as_deref(), global, env)?;
        Ok(Self {
            config: naming_config(global, env),
            ..target
        })
    }

    fn by_path(name: Option<String>, dir: &Path) -> Result<Self, CliError> {
        let name = name.or_else(|| Owner::read(dir).map(|owner| owner.instance));
        let name = name.filter(|name| config::check_instance(name).is_ok());
        let target = Self::in_state_dir(name.as_deref().unwrap_or(DEFAULT_INSTANCE), dir);
        match socket_state(&target.control) {
            SocketState::Alive => Ok(target),
            SocketState::Denied => Err(target.denied()),
            SocketState::Dead => {
                let (state, dir) = (dir, shell::word(dir));
                let error = format!("no gateway runs with the state directory {dir}");
                let mut help = format!("gateway run --state-dir {dir} -- COMMAND");
                if absence::has_run(state) {
                    help = format!("gatewayctl why --state-dir {dir}   (how it ended)\n{help}");
                }
                Err(Exit::NotRunning.error(error).with_help(help))
            }
        }
    }

    /// A gateway that is not selected by flags, at its control socket.
    pub fn at(instance: &str, control: PathBuf) -> Self {
        Self {
            flags: String::new(),
            instance: instance.to_owned(),
            control,
            config: None,
        }
    }

    fn named(instance: &str, control: PathBuf) -> Self {
        Self {
            flags: format!(" --instance {}", shell::word(instance)),
            instance: instance.to_owned(),
            control,
            config: None,
        }
    }

    fn in_state_dir(instance: &str, dir: &Path) -> Self {
        Self {
            flags: format!(" --state-dir {}", shell::word(dir)),
            instance: instance.to_owned(),
            control: Paths::in_state_dir(dir).control,
            config: None,
        }
    }

    /// The only one of `found` that answers.
    fn choose(
        found: Vec<Self>,
        name: Option<&str>,
        global: &Global,
        env: &Env<'_>,
    ) -> Result<Self, CliError> {
        let mut alive: Vec<Self> = Vec::new();
        let mut denied = None;
        for target in found {
            match socket_state(&target.control) {
                SocketState::Alive if alive.iter().all(|one| one.control != target.control) => {
                    alive.push(target);
                }
                SocketState::Alive | SocketState::Dead => {}
                SocketState::Denied => denied = Some(target),
            }
        }
        if let [first, _, ..] = &alive[..] {
            let help = match name {
                Some(_) => "say --user or --system".to_owned(),
                None => format!("say which one, as in --instance {}", first.instance),
            };
            let mut error = Exit::Usage.error("several gateways run here:");
            let choices = alive.into_iter().map(|one| Choice {
                instance: one.instance,
                control: one.control,
            });
            error.choices = choices.collect();
            return Err(error.with_help(help));
        }
        match (alive.pop(), denied) {
            // The only one need not be named.
            (Some(target), _) if name.is_none() => Ok(Self {
                flags: String::new(),
                ..target
            }),
            (Some(target), _) => Ok(target),
            (None, Some(target)) => Err(target.denied()),
            (None, None) => Err(not_running(name, global, env)),
        }
    }

    /// Connects to it.
    ///
    /// # Errors
    /// [`Exit::NotRunning`] when it is gone by now, [`Exit::Permission`], [`Exit::Usage`] when it has
    /// another configuration than the one that names it, or [`Exit::Failed`].
    pub async fn connect(&self) -> Result<Client, CliError> {
        let mut client = self.reach().await?;
        if let Some(wanted) = &self.config {
            let status = self.status_over(&mut client).await?;
            self.has_config(wanted, status.config.as_deref().map(Path::new))?;
        }
        Ok(client)
    }

    /// A file need not name its gateway, which may have a name of its own: then the one that has the
    /// default name is another.
    fn has_config(&self, wanted: &Path, own: Option<&Path>) -> Result<(), CliError> {
        let place = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        if own.is_some_and(|own| place(own) == place(wanted)) {
            return Ok(());
        }
        let with = own.map_or("no configuration file".to_owned(), shell::word);
        let message = format!(
            "{} runs with {with}, not with {}",
            self.instance,
            shell::word(wanted)
        );
        let help = "gatewayctl list, then --instance NAME";
        Err(Exit::Usage.error(message).with_help(help))
    }

    async fn reach(&self) -> Result<Client, CliError> {
        Client::connect(&self.control)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => self.denied(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    not_running(Some(&self.instance), &Global::default(), &Env::real())
                }
                ErrorKind::InvalidData => {
                    let message = format!("{error}: it is not {}", self.instance);
                    Exit::Refused.error(message)
                }
                ErrorKind::WouldBlock => self.silent(None),
                _ => Exit::Failed.error(format!(
                    "cannot reach {} at {}: {error}",
                    self.instance,
                    self.control.display()
                )),
            })
    }

    /// Connects to it and asks for its status.
    ///
    /// # Errors
    /// Those of [`Target::connect`]; [`Exit::Failed`] when it does not answer.
    pub async fn connect_and_ask(&self) -> Result<(Client, Status), CliError> {
        let mut client = self.connect().await?;
        let status = self.status_over(&mut client).await?;
        Ok((client, status))
    }

    /// Its status, over a connection of its own.
    pub async fn status(&self) -> Result<Status, CliError> {
        Ok(self.connect_and_ask().await?.1)
    }

    /// Its status, over this connection.
    pub async fn status_over(&self, client: &mut Client) -> Result<Status, CliError> {
        self.ask(client, &Method::Status, |_| ()).await
    }

    /// Calls a method that a gateway answers at once: one that accepts the connection but does not
    /// answer is suspended or stuck.
    ///
    /// # Errors
    /// [`Exit::Failed`] with the reason; what the gateway refuses.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        client: &mut Client,
        method: &Method,
        progress: impl FnMut(Progress),
    ) -> Result<T, CliError> {
        let answer = timeout(ANSWER_TIME, self.call(client, method, progress)).await;
        match answer {
            Ok(answer) => answer.map_err(|error| self.call_failed(error)),
            Err(_) => Err(self.silent(Some(client.peer()))),
        }
    }

    /// Calls a method, and calls it again over a connection to the successor if the process had just
    /// handed over: `client` is that connection then.
    ///
    /// # Errors
    /// Those of [`Client::call`].
    pub async fn call<T: DeserializeOwned>(
        &self,
        client: &mut Client,
        method: &Method,
        mut progress: impl FnMut(Progress),
    ) -> Result<T, CallError> {
        let mut answer = client.call(method, &mut progress).await;
        for _ in 0..MOVES {
            if !matches!(&answer, Err(CallError::Refused(failure)) if failure.code == FailureCode::Moved)
            {
                break;
            }
            let Ok(successor) = self.reach().await else {
                break;
            };
            *client = successor;
            answer = client.call(method, &mut progress).await;
        }
        answer
    }

    /// Waits until its process ends; `suspended` hears it when that one is suspended, and goes on
    /// waiting if it returns.
    ///
    /// # Errors
    /// Those of `suspended`.
    pub async fn until_gone(
        &self,
        client: &mut Client,
        mut suspended: impl FnMut(CliError) -> Result<(), CliError>,
    ) -> Result<(), CliError> {
        let peer = client.peer();
        loop {
            tokio::select! {
                closed = client.closed() => {
                    return closed.map_err(|error| self.call_failed(error));
                }
                () = sleep(LOOK_EVERY) => {
                    if let Some(error) = self.suspended(peer) {
                        suspended(error)?;
                    }
                }
            }
        }
    }

    /// The command line of another `gatewayctl` command for this gateway.
    pub fn next(&self, command: &str) -> String {
        format!("gatewayctl {command}{}", self.flags)
    }

    /// The error for a failed call.
    pub fn call_failed(&self, error: CallError) -> CliError {
        let failed = Exit::Failed.error(error.to_string());
        let CallError::Refused(failure) = error else {
            return failed.with_help(self.next("status"));
        };
        let exit = match failure.code {
            FailureCode::ConfigInvalid => Exit::Config,
            _ => Exit::Failed,
        };
        // The last output of a sidecar stands below the message, marked with a bar, and then what may help.
        let mut lines = failure.message.lines();
        let said = exit.error(lines.next().unwrap_or_default());
        let marks = ["  | ", "  = "];
        let said = said.quoting(lines.map(|line| {
            let unmarked = marks.iter().find_map(|mark| line.strip_prefix(mark));
            unmarked.unwrap_or(line)
        }));
        match failure.code {
            FailureCode::UnknownMethod => {
                said.with_help("update: gateway and gatewayctl are of different versions")
            }
            _ => said,
        }
    }

    /// Why a gateway gives no answer, as far as that can be seen.
    fn silent(&self, peer: Option<SocketPeer>) -> CliError {
        if let Some(suspended) = peer.and_then(|peer| self.suspended(peer)) {
            return suspended;
        }
        let process = peer.and_then(SocketPeer::pid);
        let process = process.map_or(String::new(), |pid| format!(", pid {pid},"));
        let message = format!(
            "{}{process} has its control socket at {} but does not answer: it is stuck",
            self.instance,
            self.control.display()
        );
        Exit::Failed.error(message).with_help(self.next("logs"))
    }

    /// The error where the process that serves the socket is suspended.
    pub fn suspended(&self, peer: SocketPeer) -> Option<CliError> {
        let pid = peer.pid()?;
        Stat::read(pid).filter(Stat::is_stopped)?;
        let message = format!(
            "{} does not answer: pid {pid} is suspended (by Ctrl-Z, or by SIGSTOP)",
            self.instance
        );
        let mut resume = format!("kill -CONT {pid}");
        if !peer.is_this_user() {
            resume = Rights::now().as_root(&resume);
        }
        let help = format!("{resume}   (it goes on where it was)");
        Some(Exit::Failed.error(message).with_help(help))
    }

    fn denied(&self) -> CliError {
        let message = format!(
            "{} runs as another user: no access to {}",
            self.instance,
            self.control.display()
        );
        Exit::Permission.error(message).with_help(more_rights())
    }
}

/// Every gateway with a control socket in a usual place, dead ones included, and the one whose state
/// directory is named or configured.
fn all(global: &Global, env: &Env<'_>) -> Vec<Target> {
    let wanted = wanted_name(global, env);
    let mut found: Vec<Target> = Paths::instances(env, scope(global))
        .into_iter()
        .filter(|(name, _)| wanted.as_ref().is_none_or(|wanted| wanted == name))
        .map(|(name, control)| Target::named(&name, control))
        .collect();
    let hints = Hints::read(global, env);
    if let Some(dir) = &hints.state_dir {
        found.push(Target::in_state_dir(hints.name_or_default(), dir));
    }
    found
}

/// Where the control socket of the selected gateway will be when it runs: for waiting. Where none is
/// named, it may be in a directory that is not there yet, too.
#[derive(Debug)]
pub struct ExpectedPlaces {
    pub sockets: Vec<PathBuf>,
    /// The directories in which that directory is made.
    pub roots: Vec<PathBuf>,
}

/// See [`ExpectedPlaces`].
pub fn expected(global: &Global, env: &Env<'_>) -> ExpectedPlaces {
    let hints = Hints::read(global, env);
    let scope = scope(global);
    let (mut sockets, mut roots) = (Vec::new(), Vec::new());
    if !(hints.by_path && hints.state_dir.is_some()) {
        sockets = Paths::candidates(env, hints.name_or_default(), scope);
        if hints.name.is_none() {
            sockets.extend(Paths::expected(env, scope));
            roots = Paths::instance_roots(env, scope);
        }
    }
    sockets.extend(hints.state_dir.map(|dir| Paths::in_state_dir(&dir).control));
    ExpectedPlaces { sockets, roots }
}

/// The gateways of [`all`] that answer.
pub fn alive(global: &Global, env: &Env<'_>) -> Vec<Target> {
    let mut found = all(global, env);
    found.retain(|target| socket_state(&target.control) == SocketState::Alive);
    found
}

fn socket_state(control: &Path) -> SocketState {
    match unix_socket::connect(control) {
        Ok(_) => SocketState::Alive,
        // It is not accepting: its process is there all the same.
        Err(error) if error.kind() == ErrorKind::WouldBlock => SocketState::Alive,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => SocketState::Denied,
        Err(_) => SocketState::Dead,
    }
}

fn not_running(name: Option<&str>, global: &Global, env: &Env<'_>) -> CliError {
    absence::not_running(name, global, env, || alive_names(global, env))
}

/// The names of the gateways that answer.
fn alive_names(global: &Global, env: &Env<'_>) -> Vec<String> {
    let anybody = Global {
        instance: None,
        ..global.clone()
    };
    let alive = alive(&anybody, env).into_iter();
    alive.map(|target| target.instance).collect()
}
