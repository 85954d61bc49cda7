//! Why installing or driving a service did not work, each with its exit code.

use std::io;
use std::path::{Path, PathBuf};

/// A refusal or a failure; the text names the cause, the place and the next command.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// It was tried and did not work. Exit code 1.
    #[error("{0}")]
    Failed(String),
    /// The command line asks for something that has no meaning. Exit code 2.
    #[error("{0}")]
    Usage(String),
    /// There is no such service. Exit code 3.
    #[error("{0}")]
    NotInstalled(String),
    /// The limit ended before the gateway was ready. Exit code 4, not a failure.
    #[error("{0}")]
    StillStarting(String),
    /// Refused, because it would destroy or cut something. Exit code 5.
    #[error("{0}")]
    Refused(String),
    /// The caller may not do this. Exit code 77.
    #[error("{0}")]
    Permission(String),
    /// The configuration is invalid. Exit code 78.
    #[error("{0}")]
    Config(String),
}

impl ServiceError {
    /// The exit code that stands for it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::NotInstalled(_) => 3,
            Self::StillStarting(_) => 4,
            Self::Refused(_) => 5,
            Self::Permission(_) => 77,
            Self::Config(_) => 78,
        }
    }

    /// What was done to which file, and why it failed; a missing permission is told apart.
    pub(crate) fn file(doing: &str, path: &Path, error: &io::Error) -> Self {
        let text = format!("cannot {doing} {}: {error}", path.display());
        match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission(text),
            _ => Self::Failed(text),
        }
    }

    /// The refusal for a file that is not ours to change.
    pub(crate) fn not_ours(path: &Path, why: &str, diff: &str) -> Self {
        let path: PathBuf = path.to_owned();
        let diff = if diff.is_empty() { String::new() } else { format!("\n{}", diff.trim_end()) };
        Self::Refused(format!("{} {why}; nothing was changed{diff}", path.display()))
    }
}
