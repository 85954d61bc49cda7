//! What install reports, as text and with `--json`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Serialize;

use crate::state::paths::Scope;
use crate::text::words::words;

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
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The instance.
    pub instance: String,
    /// Whose service manager has the unit.
    pub scope: Scope,
    /// Its unit.
    pub unit: String,
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
    /// The main process, 0 when none runs.
    pub pid: u32,
    /// The command that shows its log.
    pub journal: String,
}

/// A file and its text, or its difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FileText {
    /// The file.
    pub path: PathBuf,
    /// Its text, or its difference.
    pub text: String,
}
