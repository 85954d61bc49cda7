//! The commonest slip: a command without `--` before it.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Adds how the command line is written to an error whose cause is a missing `--`.
pub fn with_dashes(mut error: clap::Error, before: &str) -> clap::Error {
    let word = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(word))
            if error.kind() == ErrorKind::UnknownArgument && !word.starts_with('-') =>
        {
            word.clone()
        }
        _ => return error,
    };
    let tip = format!("put the command after `--`: {before} {word} …");
    error.insert(
        ContextKind::Suggested,
        ContextValue::StyledStrs(vec![tip.into()]),
    );
    error
}
