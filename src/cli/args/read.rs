//! Reads a command line. An error says what was meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser};

use super::{CtlCli, GatewayCli, tips};
use crate::config;

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
        let command = command_in(&line);
        let typed = line.iter().map(|word| word.to_string_lossy().into_owned());
        let typed: Vec<String> = typed.collect();
        let read = Self::try_parse_from(line).map_err(nearest_only);
        let read = read.map_err(|mut error| {
            tips::add(&mut error, &typed, command.as_deref());
            error
        });
        read.map_err(|error| match takes_command {
            Some(name) => with_dashes(error, &format!("gatewayctl {name} … --")),
            None => with_flag(error, command.as_deref()),
        })
    }
}

/// What was most likely meant by a word that is not known: that word in quotation marks, or what to type.
pub fn meant(error: &clap::Error) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let words = kinds.into_iter().find_map(|kind| error.get(kind));
    match words.or(error.get(ContextKind::Suggested))? {
        ContextValue::String(word) => Some(format!("'{word}'")),
        // The most similar one is the last.
        ContextValue::Strings(words) => words.last().map(|word| format!("'{word}'")),
        ContextValue::StyledStrs(tips) => {
            let tips: Vec<String> = tips.iter().map(ToString::to_string).collect();
            Some(tips.join("; "))
        }
        _ => None,
    }
}

/// Suggests the most similar command only: the others have little in common with what was typed.
fn nearest_only(mut error: clap::Error) -> clap::Error {
    let suggested = error.get(ContextKind::SuggestedSubcommand);
    if let Some(ContextValue::Strings(words)) = suggested
        && let Some(nearest) = words.last().cloned()
    {
        let nearest = ContextValue::Strings(vec![nearest]);
        error.insert(ContextKind::SuggestedSubcommand, nearest);
    }
    error
}

/// Names the program to which a command belongs, also one that is almost right. What is a program here is
/// most likely meant as one.
fn of_gatewayctl(mut error: clap::Error) -> clap::Error {
    let unknown = [ContextKind::InvalidSubcommand, ContextKind::InvalidArg];
    let word = unknown.into_iter().find_map(|kind| match error.get(kind) {
        Some(ContextValue::String(word)) if !word.starts_with('-') => Some(word.clone()),
        _ => None,
    });
    let (Some(word), None) = (word, meant(&error)) else {
        return error;
    };
    let (own, ctl) = (GatewayCli::command(), CtlCli::command());
    let names = |program: &'static str, command: &clap::Command| {
        let names = command.get_subcommands().map(clap::Command::get_name);
        let found = match command.find_subcommand(&word) {
            Some(known) => Some(known.get_name()),
            None if is_program(&word) => None,
            None => config::nearest(&word, names),
        };
        found.map(|name| format!("did you mean: {program} {name}"))
    };
    if let Some(tip) = names("gateway", &own).or_else(|| names("gatewayctl", &ctl)) {
        let tip = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}

fn is_program(word: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(word).is_file())
}

/// The command of a line.
fn command_in(line: &[OsString]) -> Option<String> {
    let words = line.iter().skip(1).filter_map(|word| word.to_str());
    let known = CtlCli::command();
    words
        .filter(|word| !word.starts_with('-'))
        .find_map(|word| Some(known.find_subcommand(word)?.get_name().to_owned()))
}

/// Adds the flag that takes a name to an error whose cause is a name without a flag.
fn with_flag(mut error: clap::Error, command: Option<&str>) -> clap::Error {
    let (Some(ContextValue::String(word)), Some(command)) =
        (error.get(ContextKind::InvalidArg), command)
    else {
        return error;
    };
    if error.kind() != ErrorKind::UnknownArgument
        || word.starts_with('-')
        || error.get(ContextKind::Suggested).is_some()
    {
        return error;
    }
    let gateway = format!("for the gateway {word}: gatewayctl {command} --instance {word}");
    let sidecar = match command {
        "restart" => Some(format!(
            "for one sidecar of several: no command restarts {word} alone; gatewayctl restart replaces all of them without losing a request, gatewayctl reload those whose configuration changed"
        )),
        "logs" => Some(format!("for one sidecar: gatewayctl logs --sidecar {word}")),
        _ => None,
    };
    let tips = std::iter::once(gateway).chain(sidecar);
    let tips = ContextValue::StyledStrs(tips.map(Into::into).collect());
    error.insert(ContextKind::Suggested, tips);
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
