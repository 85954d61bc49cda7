//! Finds the selected gateway that runs, and its control socket.

mod selection;
#[cfg(test)]
mod tests;

use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::timeout;

pub use self::selection::{config_path, is_named_by_path, overrides, scope, wanted_name};
use crate::cli::args::Global;
use crate::cli::error::{CliError, Exit, WITH_SUDO};
use crate::config::{self, DEFAULT_INSTANCE, Env};
use crate::control::client::{CallError, Client};
use crate::control::protocol::{FailureCode, Method, Status};
use crate::service;
use crate::state::owner::Owner;
use crate::state::paths::{Paths, Scope};

/// A status needs no work; a gateway that takes longer is stopped or stuck.
pub const STATUS_TIME: Duration = Duration::from_secs(5);

/// A gateway that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub instance: String,
    pub control: PathBuf,
    /// The flags that name it, with a blank before them: for the next command in messages.
    pub flags: String,
}

/// What flags, environment and configuration say about the gateway that is meant.
struct Hints {
    name: Option<String>,
    state_dir: Option<PathBuf>,
    /// Whether `state_dir` was named for this very call, rather than by a configuration that
    /// happens to lie in its place.
    outright: bool,
}

impl Hints {
    fn read(global: &Global, env: &Env<'_>) -> Self {
        let name = wanted_name(global, env);
        if let Some(dir) = global
            .state_dir
            .clone()
            .or_else(|| env.path("GATEWAY_STATE_DIR"))
        {
            return Self {
                name,
                state_dir: Some(dir),
                outright: true,
            };
        }
        // A file that cannot be read now may have been fine when the gateway started: then the
        // usual places are looked at.
        let Ok(loaded) = config::load(&overrides(global, env), env) else {
            return Self {
                name,
                state_dir: None,
                outright: false,
            };
        };
        let by_file = global.config.is_some();
        Self {
            name: name.or_else(|| by_file.then_some(loaded.instance)),
            state_dir: loaded.config.gateway.state_dir,
            outright: by_file,
        }
    }
}

/// Whether somebody serves a control socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketState {
    Alive,
    Dead,
    Denied,
}

impl Target {
    /// The gateway that the flags mean.
    ///
    /// `--state-dir` names it outright, and so does a `--config` that says where its state is;
    /// `--instance` looks in every place of that name; without any it is the only one there is.
    ///
    /// # Errors
    /// [`Exit::NotRunning`] with the next command; [`Exit::Usage`] with the list when there are
    /// several; [`Exit::Permission`] when it is another user's.
    pub fn find(global: &Global, env: &Env<'_>) -> Result<Self, CliError> {
        let hints = Hints::read(global, env);
        if let (Some(dir), true) = (&hints.state_dir, hints.outright) {
            let name = hints
                .name
                .or_else(|| Owner::read(dir).map(|owner| owner.instance));
            let target =
                Self::in_state_dir(name.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()), dir);
            return match life(&target.control) {
                SocketState::Alive => Ok(target),
                SocketState::Denied => Err(target.denied()),
                SocketState::Dead => Err(Exit::NotRunning
                    .error(format!(
                        "no gateway runs with the state folder {}",
                        dir.display()
                    ))
                    .with_help(format!(
                        "gateway run --state-dir {} -- COMMAND",
                        dir.display()
                    ))),
            };
        }
        let found = match &hints.name {
            Some(name) => {
                let places = Paths::candidates(env, name, scope(global)).into_iter();
                let elsewhere = hints
                    .state_dir
                    .iter()
                    .map(|dir| Self::in_state_dir(name.clone(), dir));
                places
                    .map(|control| Self::named(name.clone(), control))
                    .chain(elsewhere)
                    .collect()
            }
            None => all(global, env),
        };
        Self::choose(found, hints.name.as_deref(), global, env)
    }

    fn named(instance: String, control: PathBuf) -> Self {
        Self {
            flags: format!(" --instance {instance}"),
            instance,
            control,
        }
    }

    fn in_state_dir(instance: String, dir: &Path) -> Self {
        Self {
            flags: format!(" --state-dir {}", dir.display()),
            instance,
            control: Paths::in_state_dir(dir).control,
        }
    }

    fn choose(
        found: Vec<Self>,
        name: Option<&str>,
        global: &Global,
        env: &Env<'_>,
    ) -> Result<Self, CliError> {
        let mut alive = Vec::new();
        let mut locked = None;
        for target in found {
            if alive
                .iter()
                .any(|known: &Self| known.control == target.control)
            {
                continue;
            }
            match life(&target.control) {
                SocketState::Alive => alive.push(target),
                SocketState::Denied => locked = Some(target),
                SocketState::Dead => {}
            }
        }
        if alive.len() > 1 {
            let lines: Vec<String> = alive
                .iter()
                .map(|target| format!("{}  ({})", target.instance, target.control.display()))
                .collect();
            let error =
                Exit::Usage.error(format!("several gateways run here:\n{}", lines.join("\n")));
            return Err(error.with_help(match name {
                Some(_) => "say --user or --system".to_owned(),
                None => format!(
                    "say which one, as in --instance {}",
                    alive.first().map_or("NAME", |target| &target.instance)
                ),
            }));
        }
        match (alive.pop(), locked) {
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
    /// [`Exit::NotRunning`] when it is gone by now, [`Exit::Permission`], or [`Exit::Failed`].
    pub async fn connect(&self) -> Result<Client, CliError> {
        Client::connect(&self.control)
            .await
            .map_err(|error| match error.kind() {
                ErrorKind::PermissionDenied => self.denied(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                    not_running(Some(&self.instance), &Global::default(), &Env::real())
                }
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

    /// Its status; a gateway that accepts the connection but does not answer is stopped or stuck.
    pub async fn status_over(&self, client: &mut Client) -> Result<Status, CliError> {
        match timeout(STATUS_TIME, client.call(&Method::Status, |_| ())).await {
            Ok(answer) => answer.map_err(|error| self.call_failed(error)),
            Err(_) => {
                let message = format!(
                    "{} accepts connections at {} but does not answer: it is stopped or stuck",
                    self.instance,
                    self.control.display()
                );
                Err(Exit::Failed.error(message).with_help(self.next("logs")))
            }
        }
    }

    /// The command line of another `gatewayctl` command for this gateway.
    pub fn next(&self, command: &str) -> String {
        format!("gatewayctl {command}{}", self.flags)
    }

    /// What a failed call means for the exit code.
    pub fn call_failed(&self, error: CallError) -> CliError {
        let exit = match &error {
            CallError::Refused(failure) if failure.code == FailureCode::ConfigInvalid => {
                Exit::Config
            }
            _ => Exit::Failed,
        };
        let shown = exit.error(error.to_string());
        match &error {
            CallError::Refused(failure) if failure.code == FailureCode::UnknownMethod => {
                shown.with_help("update: gateway and gatewayctl are of different versions")
            }
            CallError::Refused(_) => shown,
            _ => shown.with_help(self.next("status")),
        }
    }

    fn denied(&self) -> CliError {
        let message = format!(
            "{} runs as another user: no access to {}",
            self.instance,
            self.control.display()
        );
        Exit::Permission.error(message).with_help(WITH_SUDO)
    }
}

/// Every gateway with a control socket in a usual place, dead ones included, and the one whose
/// configuration lies in its usual place and puts its state elsewhere.
pub fn all(global: &Global, env: &Env<'_>) -> Vec<Target> {
    let mut found = Paths::instances(env, scope(global));
    if let Some(name) = wanted_name(global, env) {
        found.retain(|(instance, _)| *instance == name);
    }
    let mut found: Vec<Target> = found
        .into_iter()
        .map(|(instance, control)| Target::named(instance, control))
        .collect();
    let hints = Hints::read(global, env);
    if let Some(dir) = &hints.state_dir {
        found.push(Target::in_state_dir(
            hints.name.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned()),
            dir,
        ));
    }
    found
}

/// Where the control socket of the gateway that is meant will be, when it runs: for waiting.
pub fn expected(global: &Global, env: &Env<'_>) -> Vec<PathBuf> {
    let hints = Hints::read(global, env);
    if let (Some(dir), true) = (&hints.state_dir, hints.outright) {
        return vec![Paths::in_state_dir(dir).control];
    }
    let mut paths = Paths::candidates(
        env,
        hints.name.as_deref().unwrap_or(DEFAULT_INSTANCE),
        scope(global),
    );
    paths.extend(hints.state_dir.map(|dir| Paths::in_state_dir(&dir).control));
    paths
}

/// Whether somebody answers at a control socket.
pub fn is_alive(control: &Path) -> bool {
    life(control) == SocketState::Alive
}

fn life(control: &Path) -> SocketState {
    match UnixStream::connect(control) {
        Ok(_) => SocketState::Alive,
        Err(error) if error.kind() == ErrorKind::PermissionDenied => SocketState::Denied,
        Err(_) => SocketState::Dead,
    }
}

fn not_running(name: Option<&str>, global: &Global, env: &Env<'_>) -> CliError {
    let (message, flag) = match name {
        Some(name) => (
            format!("{name} is not running"),
            format!(" --instance {name}"),
        ),
        None => ("no gateway is running".to_owned(), String::new()),
    };
    let mut installed = service::installed(env, scope(global)).into_iter();
    let mut help = match installed.any(|unit| name.is_none_or(|name| unit.instance == name)) {
        true => format!("gatewayctl start{flag}"),
        false => format!(
            "gateway run{flag} -- COMMAND   (in this terminal)\ngatewayctl install --now{flag} -- COMMAND   (as a service)"
        ),
    };
    if hidden(global) {
        help.push_str(
            "\nsudo gatewayctl list   (some folders in /run/gateway are open to root only)",
        );
    }
    Exit::NotRunning.error(message).with_help(help)
}

/// Whether there are system gateways that we are not allowed to see.
fn hidden(global: &Global) -> bool {
    if scope(global) == Some(Scope::User) {
        return false;
    }
    let Ok(entries) = std::fs::read_dir("/run/gateway") else {
        return false;
    };
    entries.flatten().any(|entry| {
        std::fs::read_dir(entry.path())
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    })
}
