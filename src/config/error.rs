//! Refusals that name the file, the line and the column.

use std::io;
use std::path::{Path, PathBuf};

use super::position::Position;

/// Why a configuration is refused. Exit code 78.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// The file is not valid, or contradicts itself.
    #[error("{}{message}", prefix(path.as_deref(), *place))]
    Invalid {
        /// The file, or none for flags and variables.
        path: Option<PathBuf>,
        /// Where in the file, as far as known.
        place: Option<Position>,
        /// What is wrong, and in parentheses what to write instead.
        message: String,
    },
}

impl ConfigError {
    pub fn invalid(
        path: Option<&Path>,
        place: Option<Position>,
        message: impl Into<String>,
    ) -> Self {
        Self::Invalid {
            path: path.map(Path::to_owned),
            place,
            message: message.into(),
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
