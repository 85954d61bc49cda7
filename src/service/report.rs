//! What the commands that install and drive a service report, as text and with `--json`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use super::layout::{Installed, Layout};
use super::manager::journalctl;
use super::manager_kind::ServiceManagerKind;
use crate::config::{Config, Listen};
use crate::state::paths::Scope;
use crate::text::words::words;
use crate::text::{absent, shell};

/// Takes a line of progress.
pub type Say<'a> = &'a dyn Fn(&str);

/// The command that shows what an installed gateway logs.
pub(super) fn log_command(service: &Installed) -> String {
    match service.manager {
        ServiceManagerKind::Systemd => journalctl(service.scope, &service.unit),
        ServiceManagerKind::Launchd => format!("tail -f {}", shell::word(service.launchd_log())),
    }
}

/// The service that a report is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ReportedService {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The instance.
    pub instance: String,
    /// Its unit.
    pub unit: String,
    /// Whose service manager has the unit.
    pub scope: Scope,
}

impl From<&Installed> for ReportedService {
    fn from(service: &Installed) -> Self {
        Self {
            ok: true,
            instance: service.instance.clone(),
            unit: service.unit.clone(),
            scope: service.scope,
        }
    }
}

words! {
    /// What install has done.
    pub enum InstallOutcome {
        /// The service was not installed before.
        Installed = "installed",
        /// The service was installed before, and something of it was changed.
        Updated = "updated",
        /// Nothing was left to do.
        AlreadyInstalled = "already installed",
        /// Nothing was done, as asked.
        DryRun = "dry run",
    }
}

/// What install has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstallReport {
    #[serde(flatten)]
    pub service: ReportedService,
    /// Where the unit lies, or would.
    pub unit_file: PathBuf,
    /// Where the configuration lies, or would.
    pub config: PathBuf,
    /// What was done.
    pub outcome: InstallOutcome,
    /// What was done, or would be.
    pub actions: Vec<String>,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What would be written, or what would change; only with `--dry-run` and `--diff`. Secrets are
    /// hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileText>,
    /// Where it listens.
    pub listen: Vec<String>,
    /// Whether it runs and is ready.
    pub ready: bool,
    /// The main process; absent when none runs.
    #[serde(skip_serializing_if = "absent::zero")]
    pub pid: u32,
    /// The command that shows its log.
    pub journal: String,
}

impl InstallReport {
    /// The report before anything is done.
    pub(super) fn planned(
        service: &Installed,
        layout: &Layout,
        config: &Config,
        actions: Vec<String>,
    ) -> Self {
        let listen = config.gateway.listen.iter();
        Self {
            service: service.into(),
            unit_file: service.path.clone(),
            config: layout.config_file(&service.instance),
            outcome: InstallOutcome::DryRun,
            actions,
            notes: Vec::new(),
            files: Vec::new(),
            listen: listen.map(Listen::to_string).collect(),
            ready: false,
            pid: 0,
            journal: log_command(service),
        }
    }
}

/// A file and its text, or its difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileText {
    /// The file.
    pub path: PathBuf,
    /// Its text, or its difference.
    pub text: String,
}

words! {
    /// What start, stop or restart has done.
    pub enum DrivenOutcome {
        /// It runs and is ready.
        Started = "started",
        /// It ran before, and nothing was done.
        AlreadyRunning = "already running",
        /// It is stopped.
        Stopped = "stopped",
        /// It was stopped before, and nothing was done.
        AlreadyStopped = "already stopped",
        /// It was restarted and is ready again.
        Restarted = "restarted",
    }
}

/// What start, stop and restart have done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Driven {
    #[serde(flatten)]
    pub service: ReportedService,
    /// What was done.
    pub outcome: DrivenOutcome,
    /// The main process; absent when none runs.
    #[serde(skip_serializing_if = "absent::zero")]
    pub pid: u32,
}

impl Driven {
    pub(super) fn new(unit: &Installed, outcome: DrivenOutcome, pid: u32) -> Self {
        Self {
            service: unit.into(),
            outcome,
            pid,
        }
    }
}

/// What uninstall has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uninstalled {
    #[serde(flatten)]
    pub service: ReportedService,
    /// What was done, or would be.
    pub actions: Vec<String>,
    /// What stays, and why.
    pub notes: Vec<String>,
    /// Whether nothing was done.
    pub dry_run: bool,
}
