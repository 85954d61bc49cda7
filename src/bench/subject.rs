//! What is measured: a gateway in one of the cases, or any server.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;

use super::case::BenchCase;
use super::target::{BenchTarget, Trigger};
use crate::os::process::PidFd;
use crate::os::program_run;
use crate::state::restart_intent::{self, Intent};

/// A server that says nothing is back when it was there for so long without a break: a process that is
/// replaced in turns, or late, is away later than the first good answer.
const QUIET: Duration = Duration::from_secs(1);

/// A server under measure, for who asks it to restart.
#[derive(Debug)]
pub struct ServerHandle {
    pub pid: u32,
    pub process: Arc<PidFd>,
    /// The state directory of a gateway.
    pub state: Option<PathBuf>,
}

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    Gateway {
        case: BenchCase,
        gateway: &'a Path,
        /// The program whose `bench serve` is a server.
        own: &'a Path,
    },
    Target(&'a BenchTarget),
}

impl Subject<'_> {
    /// For programs.
    pub fn id(&self) -> &'static str {
        match self {
            Self::Gateway { case, .. } => case.id(),
            Self::Target(_) => "target",
        }
    }

    /// For people.
    pub fn name(&self) -> String {
        match self {
            Self::Gateway { case, .. } => case.name().to_owned(),
            Self::Target(target) => target.command.clone(),
        }
    }

    /// What is asked whether it is alive.
    pub fn alive(&self) -> &str {
        match self {
            Self::Gateway { .. } => "/healthz",
            Self::Target(target) => &target.ready,
        }
    }

    /// What is asked whether it is ready.
    pub fn ready(&self) -> &str {
        match self {
            Self::Gateway { .. } => "/readyz",
            Self::Target(target) => &target.ready,
        }
    }

    /// What clients ask for.
    pub fn load_path(&self) -> &str {
        match self {
            // Nothing is behind it.
            Self::Gateway {
                case: BenchCase::Plain,
                ..
            } => "/healthz",
            Self::Gateway { .. } => "/",
            Self::Target(target) => &target.ready,
        }
    }

    /// Whether it says when it is ready.
    pub fn speaks(&self) -> bool {
        matches!(self, Self::Gateway { .. })
    }

    /// How long it must have been good to be back.
    pub fn quiet(&self) -> Duration {
        match self.speaks() {
            true => Duration::ZERO,
            false => QUIET,
        }
    }

    /// Asks it to restart, and waits until that is done, as far as who asks can know.
    ///
    /// # Errors
    /// Why it could not be asked, in a few words.
    pub async fn restart(&self, server: ServerHandle, limit: Duration) -> Result<(), String> {
        let text = |error: std::io::Error| error.to_string();
        match self {
            Self::Gateway { .. } => {
                let intent = Intent {
                    pid: server.pid,
                    created_at_ms: Timestamp::now()
                        .as_millisecond()
                        .try_into()
                        .unwrap_or_default(),
                    reason: "benchmark".to_owned(),
                    force: false,
                    wait_ms: None,
                };
                let state = server.state.unwrap_or_default();
                restart_intent::write(&state, &intent).map_err(text)?;
                server.process.signal(Signal::SIGUSR1).map_err(text)
            }
            Self::Target(target) => match &target.trigger {
                Trigger::Signal(signal) => server.process.signal(*signal).map_err(text),
                Trigger::Command(line) => {
                    let command = target.trigger_command(line, server.pid);
                    match program_run::run(command, limit).await {
                        Ok(output) if output.good().is_some() => Ok(()),
                        Ok(output) => {
                            let last = output.output.trim_end().lines().last();
                            Err(format!(
                                "{}: {}",
                                output.ended(),
                                last.unwrap_or("no output")
                            ))
                        }
                        Err(error) => Err(program_run::explain(&error)),
                    }
                }
            },
        }
    }
}
