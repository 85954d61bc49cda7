//! Reads a command line. An error says what was meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use super::{CtlCli, GatewayCli};

impl GatewayCli {
    /// Reads a command line. For a command without `--` before it, the error says how to write it.
    ///
    /// # Errors
    /// What clap says, `--help` and `--version` included: print it and use its exit code.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(line)
            .map_err(|error| with_dashes(of_gatewayctl(error), "gateway run --"))
    }
}

impl CtlCli {
    /// Reads a command line. For `inhibit` and `install` without `--` before the command, the error
    /// says how to write it.
    ///
    /// # Errors
    /// What clap says, `--help` and `--version` included: print it and use its exit code.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let line: Vec<OsString> = line.into_iter().map(Into::into).collect();
        let takes_command = ["inhibit", "install"]
            .into_iter()
            .find(|name| line.iter().skip(1).any(|word| word == name));
        Self::try_parse_from(line).map_err(|error| match takes_command {
            Some(name) => with_dashes(error, &format!("gatewayctl {name} … --")),
            None => error,
        })
    }
}

/// Names the program to which a command belongs.
fn of_gatewayctl(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && CtlCli::command().find_subcommand(word).is_some()
    {
        let tip = format!("did you mean: gatewayctl {word}");
        let tip = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

/// Adds how the command line is written to an error whose cause is a missing `--`.
fn with_dashes(mut error: clap::Error, before: &str) -> clap::Error {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && error.kind() == ErrorKind::UnknownArgument
        && !word.starts_with('-')
        && error.get(ContextKind::Suggested).is_none()
    {
        let tip = format!("put the command after `--`: {before} {word} …");
        let tip = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}
