//! The two service managers.

use clap::ValueEnum;

/// Who starts the services of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ServiceManagerKind {
    /// Linux
    Systemd,
    /// macOS
    Launchd,
}

impl Default for ServiceManagerKind {
    fn default() -> Self {
        if cfg!(target_os = "macos") {
            Self::Launchd
        } else {
            Self::Systemd
        }
    }
}
