//! What is asked of install, and of whom it may ask back.

use std::path::PathBuf;

use crate::config::Listen;
use crate::service::sandbox::Sandbox;
use crate::state::paths::Scope;

/// Who starts the services of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceManagerKind {
    Systemd,
    Launchd,
}

impl Default for ServiceManagerKind {
    fn default() -> Self {
        if cfg!(target_os = "macos") {
            Self::Launchd
        } else {
            Self::Systemd
        }
    }
}

/// Asks the user a question: the answer, or none where there is no terminal to ask at.
pub type Ask<'a> = &'a dyn Fn(&str) -> Option<bool>;

/// What is asked for: the flags of `gatewayctl install`.
#[derive(Clone, Debug, Default)]
pub struct InstallRequest {
    /// `--instance`
    pub instance: Option<String>,
    /// `--user` or `--system`
    pub scope: Option<Scope>,
    /// `--now`
    pub now: bool,
    /// `--listen`
    pub listen: Vec<Listen>,
    /// `--exclusive`
    pub exclusive: bool,
    /// `--port`
    pub port: Option<u16>,
    /// `--ready`
    pub ready: Option<String>,
    /// `--socket`
    pub socket: bool,
    /// `--run-as`
    pub run_as: Option<String>,
    /// `--env-file`
    pub env_file: Option<PathBuf>,
    /// `--set`
    pub set: Vec<(String, String)>,
    /// `--sandbox`
    pub sandbox: Sandbox,
    /// `--for`
    pub supervisor: ServiceManagerKind,
    /// `--yes`
    pub yes: bool,
    /// `--dry-run`
    pub dry_run: bool,
    /// `--diff`
    pub diff: bool,
    /// `--overwrite`
    pub overwrite: bool,
    /// `-- COMMAND…`
    pub command: Vec<String>,
}
