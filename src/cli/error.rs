//! The error that a command ends with.

use std::io::ErrorKind;

use super::downtime_probe::Downtime;
use super::exit::Exit;
use crate::config::ConfigError;
use crate::service::{ServiceError, ServiceErrorKind};
use crate::stale::CleanReport;

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub exit: Exit,
    /// Cause and place, in one sentence.
    pub message: String,
    /// The next command, or what to change.
    pub help: Option<String>,
    /// What was found and done at the address; only `--json` shows it.
    pub clean: Option<Box<CleanReport>>,
    /// What a client saw meanwhile; only `--json` shows it.
    pub probe: Option<Box<Downtime>>,
}

impl CliError {
    /// An error of this exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
            clean: None,
            probe: None,
        }
    }

    /// Adds the next command, or what to change.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl From<ServiceError> for CliError {
    fn from(error: ServiceError) -> Self {
        let exit = match error.kind {
            ServiceErrorKind::Failed => Exit::Failed,
            ServiceErrorKind::Usage => Exit::Usage,
            ServiceErrorKind::NotInstalled => Exit::NotRunning,
            ServiceErrorKind::StillStarting => Exit::StillBusy,
            ServiceErrorKind::Refused => Exit::Refused,
            ServiceErrorKind::Permission => Exit::Permission,
            ServiceErrorKind::Config => Exit::Config,
        };
        Self {
            help: error.next,
            ..Self::new(exit, error.message)
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let denied = matches!(&error, ConfigError::Unreadable { source, .. } if source.kind() == ErrorKind::PermissionDenied);
        Self::new(
            if denied {
                Exit::Permission
            } else {
                Exit::Config
            },
            error.to_string(),
        )
    }
}
