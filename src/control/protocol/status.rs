//! `status`: what a gateway is doing.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::lease::LeaseStatus;
use super::restart::{LastRestart, PlannedStrategy};
use crate::state::terms::RungName;
use crate::supervisor::SupervisorText;
use crate::text::absent;
use crate::text::words::words;

words! {
    /// What a gateway is doing.
    pub enum Stage {
        /// The first generation is being built.
        Starting = "starting",
        /// The current generation serves.
        Ready = "ready",
        /// It serves, but a sidecar is down or failing.
        Degraded = "degraded",
        /// The next generation is being built.
        Restarting = "restarting",
        /// It finishes its work before it ends; another process serves, or will.
        Draining = "draining",
        /// It ends.
        Stopping = "stopping",
        /// The first generation failed and is tried again.
        Failed = "failed",
        /// Earlier lives ended too soon: the sidecars wait before they are started, the front door
        /// answers 503.
        Throttled = "throttled",
        /// Front door and control only: the sidecars are off until a trial or `recover`.
        SafeMode = "safe_mode",
        /// Another gateway serves; this one waits for its end.
        StandingBy = "standing_by",
    }
}

impl Stage {
    /// Whether `/readyz` says that it is ready.
    pub fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Draining | Self::Restarting)
    }
}

/// `status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The version of this protocol.
    pub protocol: u32,
    /// The gateway's version.
    pub version: String,
    /// The instance's name.
    pub instance: String,
    /// The gateway's process id.
    pub pid: u32,
    /// The version of the hand-over between an old and a new process; 0 of a
    /// gateway that knows none.
    #[serde(default)]
    pub handover: u32,
    /// The program that it was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// What it is doing.
    pub stage: Stage,
    /// The same in words, with reasons.
    pub detail: String,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// The current generation; absent while the first is being built.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub generation: u64,
    /// Who restarts the gateway when it dies, and how that is known.
    pub supervisor: SupervisorText,
    /// How a restart would be done now, and why.
    pub strategy: PlannedStrategy,
    /// The addresses of the front door.
    pub listeners: Vec<String>,
    /// The configuration file, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// When it and the files of variables were read for the current generation, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_read_at: Option<String>,
    /// The state directory.
    pub state_dir: String,
    /// Client connections open now.
    pub connections: u64,
    /// Requests being answered or held now.
    pub requests: u64,
    /// Tunnels open now.
    pub tunnels: u64,
    /// Requests waiting for a sidecar now.
    pub held: u64,
    /// The sidecars of the current generation.
    pub sidecars: Vec<SidecarStatus>,
    /// Older generations that finish their work.
    pub drainers: Vec<DrainStatus>,
    /// Work besides requests that a restart or stop would wait for.
    #[serde(default)]
    pub leases: Vec<LeaseStatus>,
    /// Why it does not serve as configured, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryStatus>,
    /// The last restart or reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<LastRestart>,
}

words! {
    /// Why it does not serve as configured.
    pub enum RecoveryRung {
        /// Earlier lives ended too soon: it waits before it starts the sidecars.
        Throttled = "throttled",
        /// Front door and control only.
        SafeMode = "safe_mode",
        /// It serves the last configuration that worked.
        LastGood = "last_good",
    }
}

impl RecoveryRung {
    /// None where it serves as configured.
    pub fn of(rung: RungName) -> Option<Self> {
        match rung {
            RungName::Normal => None,
            RungName::Throttled => Some(Self::Throttled),
            RungName::SafeMode => Some(Self::SafeMode),
            RungName::LastGood => Some(Self::LastGood),
        }
    }
}

/// A rung of the recovery ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// The rung.
    pub rung: RecoveryRung,
    /// Why, in a sentence.
    pub reason: String,
    /// Milliseconds until it is tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

words! {
    /// What the process of a sidecar does.
    pub enum SidecarStateName {
        /// It was started and is not ready.
        Starting = "starting",
        /// It is ready.
        Ready = "ready",
        /// It ended, and is started again after a wait.
        Backoff = "backoff",
        /// It was asked to end.
        Stopping = "stopping",
        /// It does not run.
        Stopped = "stopped",
    }
}

/// So many second copies that ended by themselves while the first one ran are no accident.
pub const REFUSED_COPIES: u32 = 2;

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs and is ready.
    pub state: SidecarStateName,
    /// Why it is not ready, or what is odd about one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Its process id; absent when none runs.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub pid: u32,
    /// Its port on loopback; absent before it has one.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub port: u16,
    /// Where it listens on that port beyond loopback: there it is reached past the front door.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exposed: Vec<String>,
    /// The generation for which it was started or restarted last; those after it have kept it.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub generation: u64,
    /// Since when it is in this state, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Unplanned restarts of that copy.
    pub restarts: u64,
    /// How often it ended unplanned, each time within half an hour of the time before.
    #[serde(default)]
    pub deaths: u32,
    /// How it ended when it last ended unplanned, as "it …".
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_death: Option<String>,
    /// When that was, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_death_at: Option<String>,
    /// What it printed last, the oldest line first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_words: Vec<String>,
    /// Whether it ended unplanned again and again, and has not been ready for ten minutes since.
    #[serde(default)]
    pub failing: bool,
    /// How many of the last restarts failed because its second copy ended by itself while the first one
    /// ran.
    #[serde(default)]
    pub refused_copies: u32,
    /// The resident memory of its processes, in bytes; what they share counts for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// The processor time that its processes have used, and children of theirs that have ended, in
    /// milliseconds; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Its command line, secrets hidden.
    pub command: String,
}

/// An older generation that finishes its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Its number.
    pub generation: u64,
    /// The process that it lives in, where that is an older one.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub pid: u32,
    /// Requests that it still answers.
    pub requests: u64,
    /// Tunnels that it still carries.
    pub tunnels: u64,
    /// Leases that it still waits for.
    #[serde(default)]
    pub leases: u64,
    /// The resident memory of its sidecars, in bytes; what their processes share counts for each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    /// Milliseconds until what is left is cut; absent without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// What blocks it, at most 8 and "+N more".
    pub blockers: Vec<String>,
}
