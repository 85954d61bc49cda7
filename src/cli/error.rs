//! The error that a command ends with.

use std::io::ErrorKind;

use serde::Serialize;
use serde_json::Value;

use super::exit::Exit;
use crate::config::ConfigError;
use crate::service::{ServiceError, ServiceErrorKind};

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub exit: Exit,
    /// Cause and place, in one sentence.
    pub message: String,
    /// The next command, or what to change.
    pub help: Option<String>,
    /// What else `--json` shows.
    pub details: Vec<(String, Value)>,
}

impl CliError {
    /// An error of this exit code.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            help: None,
            details: Vec::new(),
        }
    }

    /// Adds the next command, or what to change.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds something that only `--json` shows.
    #[must_use]
    pub fn with_detail(mut self, key: &str, value: &impl Serialize) -> Self {
        self.details.push((
            key.to_owned(),
            serde_json::to_value(value).unwrap_or_default(),
        ));
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
            exit,
            message: error.message,
            help: error.next,
            details: Vec::new(),
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
