//! What a sidecar is started with, and the state that others see.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::environment::Inherited;
use super::readiness::Hint;
use crate::config::SidecarSpec;
use crate::text::redact::Redactor;

/// What a start needs.
#[derive(Clone, Debug)]
pub struct SidecarStart {
    pub name: String,
    /// What to run and how.
    pub spec: SidecarSpec,
    /// The environment it gets.
    pub inherited: Arc<Inherited>,
    /// Hides secrets in what it prints.
    pub redactor: Redactor,
    /// Where its notify socket goes.
    pub run_dir: PathBuf,
    /// Whether a first start that fails is tried again, with growing delays.
    pub persist: bool,
}

/// Where a sidecar stands.
#[derive(Clone, Debug)]
pub enum SidecarState {
    /// Its process runs and is not ready.
    Starting {
        /// The process; 0 while it is being prepared.
        pid: u32,
        /// What is odd about it, if anything is.
        hint: Option<Hint>,
    },
    /// It can be used.
    Ready { pid: u32, address: SocketAddr },
    /// It died and will be started again.
    Backoff { failure: Arc<SidecarFailure> },
    /// It was asked to end.
    Stopping { pid: u32 },
    /// No process is left and none will be started.
    Stopped {
        /// Why, when nobody asked for it.
        failure: Option<Arc<SidecarFailure>>,
    },
}

/// Why a sidecar is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{cause}")]
pub struct SidecarFailure {
    pub cause: String,
    /// What it printed last.
    pub last_words: Vec<String>,
}
