//! What a sidecar is started with, the state that others see, and what its handle and its runner share.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, AtomicU64};
use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::environment::Inherited;
use super::readiness::Hint;
use super::secret_lines::SecretLines;
use crate::config::SidecarSpec;
use crate::os::port::Server;
use crate::proxy::OtherProtocol;
use crate::state::terms::SidecarStanding;
use crate::text::last_words;
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
    /// Those to wait for before its first start.
    pub after: Vec<StartsBefore>,
    /// Takes what somebody must know of it besides its state.
    pub news: mpsc::UnboundedSender<SidecarNews>,
}

/// What somebody must know of a sidecar besides its state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SidecarNews {
    pub name: String,
    pub standing: SidecarStanding,
    /// Why, as "it …".
    pub reason: String,
    /// Whether people are to be alerted: once in a series of deaths.
    pub alert: bool,
}

/// What the handle of a sidecar and its runner share.
#[derive(Debug, Default)]
pub struct SidecarControl {
    pub stop: CancellationToken,
    /// Unplanned restarts so far.
    pub restarts: AtomicU64,
    /// The port of the present run.
    pub port: AtomicU16,
    /// The addresses beyond loopback at which the present run listens on that port.
    pub exposed: Mutex<Vec<IpAddr>>,
    /// How long the process may take to end after SIGTERM, in milliseconds.
    pub patience: AtomicU64,
    pub backoff: Mutex<Backoff>,
    /// How it ended when it last died, with its last words.
    pub last_failure: Mutex<Option<Arc<SidecarFailure>>>,
    /// Ends the wait before the next start.
    pub retry: Notify,
    pub secrets: Arc<SecretLines>,
    /// What was said last of a start that takes long, as "is still starting …".
    pub slow: watch::Sender<String>,
    /// A restart by its own means that somebody waits for.
    pub own_restart: Mutex<Option<OwnRestartCall>>,
    /// Such a restart is asked for.
    pub own_restart_asked: Notify,
}

/// Asks a sidecar to restart by its own means.
#[derive(Debug)]
pub struct OwnRestartCall {
    /// Comes, or is dropped, when the restart may begin; taken then.
    pub go: Option<oneshot::Receiver<()>>,
    /// Takes what came of it.
    pub done: oneshot::Sender<Result<(), Arc<SidecarFailure>>>,
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
    Ready {
        pid: u32,
        server: Arc<Server>,
        /// What it speaks, if that was found not to be HTTP/1.
        other: Option<OtherProtocol>,
    },
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

/// A sidecar of the same generation that is to be ready before another one starts.
#[derive(Clone, Debug)]
pub struct StartsBefore {
    pub name: String,
    pub state: watch::Receiver<SidecarState>,
    /// Whether nothing goes without it. For another one, its first attempt is waited for.
    pub required: bool,
}

impl StartsBefore {
    /// Whether the other one need not wait any more, as far as this one is concerned.
    pub(super) fn is_settled(&self, state: &SidecarState) -> bool {
        match state {
            SidecarState::Starting { .. } => false,
            SidecarState::Ready { .. } => true,
            SidecarState::Backoff { .. }
            | SidecarState::Stopping { .. }
            | SidecarState::Stopped { .. } => !self.required,
        }
    }
}

/// Why a sidecar is not there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{cause}")]
pub struct SidecarFailure {
    pub cause: String,
    /// Its process ended by itself.
    pub exited: bool,
    /// What it printed last.
    pub last_words: Vec<String>,
}

impl SidecarFailure {
    /// Whether a copy of it that ran may be why it ended: by itself, without a word of another reason.
    pub fn may_blame_another(&self) -> bool {
        self.exited && last_words::may_blame_another(&self.last_words)
    }
}
