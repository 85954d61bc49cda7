//! What is asked of install, and of whom it may ask back.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::config::{Dur, Listen, Reload, StdinMode};
use crate::service::manager_kind::ServiceManagerKind;
use crate::service::sandbox::Sandbox;
use crate::service::unit_text::RunAs;
use crate::state::paths::Scope;

/// An option that an install remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ChosenOption {
    /// Listen at the default address again
    Listen,
    /// Two copies may run side by side
    Exclusive,
    /// The server gets a private port
    AppPort,
    /// Ready when it answers HEAD / with any status
    Ready,
    /// The default time to become ready
    StartTimeout,
    /// Restarts start another copy of the server
    Reload,
    /// The server has an empty standard input
    Stdin,
    /// The service itself holds its listeners
    Socket,
    /// The default user
    RunAs,
    /// No file of variables
    EnvFile,
    /// Nothing that the sandbox lets it write besides
    Writable,
    /// The default sandboxing level
    Sandbox,
}

/// Asks the user a question: the answer, or none where there is no terminal to ask at.
pub type Ask<'a> = &'a dyn Fn(&str) -> Option<bool>;

/// The flags of `gatewayctl install`.
#[derive(Clone, Debug, Default)]
pub struct InstallRequest {
    pub instance: Option<String>,
    pub scope: Option<Scope>,
    pub now: bool,
    pub listen: Vec<Listen>,
    pub exclusive: bool,
    pub port: Option<u16>,
    /// Where the server starts; none for the current directory.
    pub cwd: Option<PathBuf>,
    pub ready: Option<String>,
    pub start_timeout: Option<Dur>,
    pub reload: Option<Reload>,
    pub stdin: Option<StdinMode>,
    pub socket: bool,
    pub run_as: Option<RunAs>,
    pub env_file: Option<PathBuf>,
    /// What the server writes to.
    pub writable: Vec<PathBuf>,
    pub set: Vec<(String, String)>,
    /// Options that go back to their defaults.
    pub unset: Vec<ChosenOption>,
    pub sandbox: Option<Sandbox>,
    pub supervisor: ServiceManagerKind,
    pub yes: bool,
    pub dry_run: bool,
    pub diff: bool,
    pub overwrite: bool,
    pub command: Vec<String>,
}

impl InstallRequest {
    /// Whether nothing is to be changed.
    pub fn only_shows(&self) -> bool {
        self.dry_run || self.diff
    }
}
