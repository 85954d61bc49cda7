//! Answers with `--json` that belong to no command alone.

use schemars::JsonSchema;
use serde::Serialize;

use super::downtime_probe::Downtime;
use super::error::CliError;
use crate::stale::CleanReport;
use crate::state::clients_seen::ClientsSeen;
use crate::text::words::words;

/// An error.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ErrorAnswer<'a> {
    /// Always false.
    ok: bool,
    /// The exit code.
    exit: u8,
    /// Cause and place.
    error: &'a str,
    /// The next command, or what to change.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
    /// clean, restart: what was found and done at the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    clean: Option<&'a CleanReport>,
    /// restart: what a client saw.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Downtime>,
    /// restart: what clients saw; absent where that was not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    clients: Option<&'a ClientsSeen>,
}

impl<'a> ErrorAnswer<'a> {
    /// `message` is the redacted message of `error`.
    pub fn new(error: &'a CliError, message: &'a str) -> Self {
        Self {
            ok: false,
            exit: error.exit.code(),
            error: message,
            next: error.help.as_deref(),
            clean: error.clean.as_deref(),
            probe: error.probe.as_deref(),
            clients: error.clients.as_deref(),
        }
    }
}

words! {
    /// What became of a command that has no more to tell.
    pub enum CommandOutcome {
        /// stop: the gateway has ended.
        Stopped = "stopped",
        /// stop: none ran.
        NotRunning = "not running",
        /// uninstall: none is installed.
        NotInstalled = "not installed",
        /// recover: the gateway tries its sidecars again.
        Trying = "trying",
        /// recover: the gateway serves as configured.
        NothingToRecoverFrom = "nothing to recover from",
    }
}

/// What became of a command that has no more to tell.
#[derive(Debug, Serialize, JsonSchema)]
pub struct OutcomeAnswer<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<&'a str>,
    /// What became of it.
    outcome: CommandOutcome,
}

impl<'a> OutcomeAnswer<'a> {
    pub fn new(instance: Option<&'a str>, outcome: CommandOutcome) -> Self {
        Self {
            ok: true,
            instance,
            outcome,
        }
    }
}

/// The answer of `man DIR`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PagesAnswer<'a> {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The files that were written.
    pub pages: Vec<&'a str>,
}
