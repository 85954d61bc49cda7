//! Refusals that name the file, the line and the column.

use std::io;
use std::path::{Path, PathBuf};

use super::position::Position;

/// Why a configuration is refused. Exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is not valid, or contradicts itself.
    #[error("{}{message}{}", prefix(path.as_deref(), *place), suffix(help.as_deref()))]
    Invalid {
        /// The file, or none for flags and variables.
        path: Option<PathBuf>,
        /// Where in the file, as far as known.
        place: Option<Position>,
        /// What is wrong, in one sentence.
        message: String,
        /// What to write instead.
        help: Option<String>,
    },
}

impl ConfigError {
    /// A refusal at a place in a file.
    pub fn invalid(
        path: Option<&Path>,
        place: Option<Position>,
        message: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            path: path.map(Path::to_owned),
            place,
            message: message.into(),
            help: None,
        }
    }

    /// Adds what to write instead.
    #[must_use]
    pub fn with_help(self, text: impl Into<String>) -> Self {
        match self {
            Self::Invalid {
                path,
                place,
                message,
                ..
            } => Self::Invalid {
                path,
                place,
                message,
                help: Some(text.into()),
            },
            other => other,
        }
    }
}

fn prefix(path: Option<&Path>, place: Option<Position>) -> String {
    match (path, place) {
        (Some(path), Some(at)) => format!("{}:{}:{}: ", path.display(), at.line, at.column),
        (Some(path), None) => format!("{}: ", path.display()),
        (None, _) => String::new(),
    }
}

fn suffix(help: Option<&str>) -> String {
    help.map(|help| format!(" ({help})")).unwrap_or_default()
}
