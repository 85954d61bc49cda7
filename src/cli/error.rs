//! How a command ends: its exit code, the same for every command, and the error that goes with it.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::process::ExitCode;

use super::downtime_probe::Downtime;
use crate::config::ConfigError;
use crate::service::{ServiceError, ServiceErrorKind};
use crate::stale::CleanReport;
use crate::state::clients_seen::ClientsSeen;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// It was tried and failed. `status`: failed, degraded, throttled or in safe mode.
    Failed,
    /// The command line is wrong, or does not say which instance is meant.
    Usage,
    /// The gateway is not running or not installed.
    NotRunning,
    /// It was still starting or draining when the limit ended; not a failure.
    StillBusy,
    /// Refused, because it could harm something healthy.
    Refused,
    /// Missing permission (EX_NOPERM of sysexits.h).
    Permission,
    /// The configuration is invalid (EX_CONFIG of sysexits.h).
    Config,
    /// That of a command that was run on behalf of the user.
    Command(u8),
}

impl Exit {
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::NotRunning => 3,
            Self::StillBusy => 4,
            Self::Refused => 5,
            Self::Permission => 77,
            Self::Config => 78,
            Self::Command(code) => code,
        }
    }

    /// The error that ends a command with this exit code.
    pub fn error(self, message: impl Into<String>) -> CliError {
        CliError {
            exit: self,
            message: message.into(),
            lines: Vec::new(),
            help: None,
            clean: None,
            probe: None,
            clients: None,
            choices: Box::default(),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// A gateway that may be meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub instance: String,
    /// Its control socket.
    pub control: PathBuf,
}

/// Why a command did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub exit: Exit,
    /// Cause and place, in one sentence. It is printed as one line, whatever names in it contain.
    pub message: String,
    /// What else is to be known, each on a line of its own.
    pub lines: Vec<String>,
    /// The next command, or what to change.
    pub help: Option<String>,
    /// What was found and done at the address; only `--json` shows it.
    pub clean: Option<Box<CleanReport>>,
    /// What a client saw during the restart; only `--json` shows it.
    pub probe: Option<Box<Downtime>>,
    /// What clients saw during the restart; only `--json` shows it.
    pub clients: Option<Box<ClientsSeen>>,
    /// The gateways of which one must be named; they are listed below the message.
    pub choices: Box<[Choice]>,
}

impl CliError {
    /// Adds the next command, or what to change.
    #[must_use]
    pub fn with_help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds a line below the message.
    pub fn add_line(&mut self, line: impl std::fmt::Display) {
        self.lines.push(line.to_string());
    }

    /// With a line below the message.
    #[must_use]
    pub fn and_line(mut self, line: impl std::fmt::Display) -> Self {
        self.add_line(line);
        self
    }

    /// With the lines of a text of somebody else below the message, each marked as such: none can pass
    /// for one of ours.
    #[must_use]
    pub fn quoting<'a>(mut self, lines: impl IntoIterator<Item = &'a str>) -> Self {
        let quoted = lines.into_iter().map(|line| format!("  | {line}"));
        self.lines.extend(quoted);
        self
    }

    /// The message and the lines below it.
    pub fn all_lines(&self) -> impl Iterator<Item = &str> {
        std::iter::once(&self.message)
            .chain(&self.lines)
            .map(String::as_str)
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
            lines: error.lines,
            help: error.next,
            ..exit.error(error.message)
        }
    }
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let exit = match &error {
            ConfigError::Unreadable { source, .. }
                if source.kind() == ErrorKind::PermissionDenied =>
            {
                Exit::Permission
            }
            _ => Exit::Config,
        };
        exit.error(error.to_string())
    }
}
