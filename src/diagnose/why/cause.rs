//! Why a gateway ended, was restarted, or does not serve.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::state::terms::{RequestKindName, StrategyName};

/// Why it ended, was restarted, or does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    tag = "kind",
    deny_unknown_fields
)]
pub enum EndCause {
    /// It is installed and has not run yet.
    NeverRan,
    /// It has been running since its first start.
    NeverEnded,
    /// It was stopped on request.
    Stopped {
        /// What requested the stop, in words.
        by: String,
    },
    /// An unknown user or program sent a signal that requests a stop.
    Signalled {
        /// Its name.
        signal: String,
    },
    /// The service manager restarted it on request.
    RestartedByManager {
        /// The reason, where the restart was announced.
        reason: Option<String>,
    },
    /// The gateway restarted or reloaded on request.
    Requested {
        /// The id of the request in the history.
        request: String,
        /// What was requested.
        what: RequestKindName,
        /// The sidecar that it was about, where it was about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        sidecar: Option<String>,
        /// Who requested it, in words.
        by: String,
        /// The reason that was given.
        reason: String,
        /// Where the next generation runs.
        strategy: StrategyName,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// A restart or reload failed, and what ran before serves on.
    RequestFailed {
        /// The id of the request in the history.
        request: String,
        /// What was requested.
        what: RequestKindName,
        /// The sidecar that it was about, where it was about one.
        #[serde(skip_serializing_if = "Option::is_none")]
        sidecar: Option<String>,
        /// Who requested it, in words.
        by: String,
        /// The reason that was given.
        reason: String,
        /// Why it failed.
        said: Option<String>,
    },
    /// The kernel killed it because memory ran out.
    OutOfMemory,
    /// The service manager killed it because the watchdog got no ping.
    Watchdog {
        /// The time limit, in systemd's words.
        limit: Option<String>,
    },
    /// The service manager ended it because a start or stop took too long.
    Timeout {
        /// systemd's message.
        said: Option<String>,
    },
    /// A signal such as SIGKILL ended it.
    Killed {
        /// Its name.
        signal: String,
    },
    /// A fault in the program ended it.
    Crashed {
        /// The name of the signal.
        signal: String,
    },
    /// It did not start because its configuration is invalid.
    InvalidConfiguration {
        /// The place of the error, and the error.
        said: Option<String>,
    },
    /// The service manager did not get its program started, or the program gave up at once.
    NotStarted {
        /// What may be the reason, in words.
        said: String,
    },
    /// The kernel ended it, or did not let it start: its signature, or what its program needs.
    ByKernel {
        /// The reason, in words.
        said: String,
    },
    /// It exited by itself.
    Exited {
        /// The exit code.
        code: i32,
        /// Its last error message.
        said: Option<String>,
    },
    /// Another result of the service manager.
    Manager {
        /// systemd's word.
        result: String,
        /// systemd's message.
        said: Option<String>,
    },
    /// The machine shut down, rebooted or crashed.
    MachineDown,
    /// It ended without a message, and nothing recorded how.
    Died {
        /// What the next run found out about it.
        said: Option<String>,
    },
    /// The service manager has given up starting it.
    StartLimit {
        /// The number of starts that is too many…
        starts: u64,
        /// …within this many seconds.
        within_seconds: u64,
        /// Why the last run ended.
        because: Box<EndCause>,
    },
    /// It waits before it starts its sidecars, because earlier runs ended too soon.
    Throttled {
        /// The reason, in words.
        reason: String,
        /// Milliseconds until the next try.
        retry_ms: Option<u64>,
        /// Why the previous run ended.
        because: Box<EndCause>,
    },
    /// Only the front door and the control socket run.
    SafeMode {
        /// The reason, in words.
        reason: String,
        /// Milliseconds until the next try.
        retry_ms: Option<u64>,
        /// Why the previous run ended.
        because: Box<EndCause>,
    },
    /// It uses the last good configuration.
    LastGood {
        /// What is wrong with the current one.
        reason: String,
    },
    /// It is running, but not ready.
    NotReady {
        /// Its own explanation.
        said: String,
    },
    /// A sidecar ended, not the gateway.
    Sidecar {
        /// Its name.
        name: String,
        /// How it ended.
        said: String,
        /// Whether it is ready again.
        back: bool,
    },
}

/// The cause, and when it took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnosis {
    pub cause: EndCause,
    /// When the gateway ended, or when a restart was requested.
    pub at: Option<Timestamp>,
    /// When the next run began, where there was one.
    pub restarted_at: Option<Timestamp>,
}

impl Diagnosis {
    pub fn at(cause: EndCause, at: Option<Timestamp>) -> Self {
        Self {
            cause,
            at,
            restarted_at: None,
        }
    }
}
