//! What predecessor and successor tell each other: one line of JSON each. The offer comes first and
//! carries descriptors.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::protocol::{DrainStatus, GenerationInfo};
use crate::state::trace::Carried;
use crate::supervisor::SupervisorVerdict;

/// The version of this protocol. Only equal versions hand over to each other; others restart
/// through the service manager.
pub const VERSION: u32 = crate::control::protocol::HANDOVER_VERSION;

/// The environment variable with the number of the descriptor that the offer comes through.
pub const OFFER: &str = "GATEWAY_HANDOVER";

/// The environment variable with the number of the descriptor that leads to the waiter.
pub const LINK: &str = "GATEWAY_WAITER";

/// What the successor gets. With it come, in this order: the lock (if `lock`), the listeners, a
/// pidfd for each of `drainers` (and a pipe for one that `stays`), and one for each of `exclusive`
/// that runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// [`VERSION`]; read before anything else.
    pub version: u32,
    pub pid: u32,
    /// Its instance: the successor must be the same.
    pub instance: String,
    /// Its state directory: the successor must use the same.
    pub state_dir: PathBuf,
    /// The number of the generation to construct.
    pub generation: u64,
    /// The request that this is for.
    pub request: String,
    /// Why it was asked.
    pub reason: String,
    /// When, RFC 3339.
    pub asked_at: String,
    /// Whether the lock comes along; not where the disk had no room for one.
    pub lock: bool,
    /// The listeners: the name under which the service manager keeps each, if it does.
    pub listeners: Vec<Option<String>>,
    /// The predecessor and those before it that still drain.
    pub drainers: Vec<HandedDrainer>,
    /// The sidecars of the predecessor that must not run twice.
    pub exclusive: Vec<Exclusive>,
    /// Where the service manager listens to its main process.
    pub notify: Option<String>,
    /// How often it wants to hear from it, in microseconds; 0 for never.
    pub watchdog_usec: u64,
    /// Who supervises: what is seen of it from a successor is its ancestors' business.
    pub verdict: SupervisorVerdict,
    /// The trace of this restart, where it is switched on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Carried>,
}

/// A sidecar that must not run twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exclusive {
    pub name: String,
    /// Whether a process of it runs.
    pub runs: bool,
}

/// A process that finishes its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedDrainer {
    pub pid: u32,
    /// The generation that it serves to the end.
    pub generation: u64,
    /// Milliseconds that it has left; none without limit.
    pub left_ms: Option<u64>,
    /// It stays in front of its successors when its work is done. The end of a pipe that comes
    /// after its pidfd tells of that.
    pub stays: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "say")]
pub enum ToSuccessor {
    /// Its exclusive sidecars have stopped.
    Released,
    /// The service is yours.
    Go,
    Abort {
        /// Whether the service manager may have heard already that this is the main process: its
        /// end would take the predecessor along. It then finishes what it has, says so, and ends
        /// after the predecessor.
        main: bool,
    },
    /// What it still has to do.
    Draining {
        /// In words and numbers.
        status: Vec<DrainStatus>,
        /// How often it has heard where the successor's sidecars are.
        #[serde(default)]
        heard: u64,
        /// How many requests and tunnels it has at sidecars of successors.
        #[serde(default)]
        borrowed: u64,
    },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "say")]
pub enum ToPredecessor {
    /// It has read the offer.
    Hello {
        /// [`VERSION`]
        version: u32,
        pid: u32,
    },
    /// It is not ready yet, and its loop turns.
    Alive,
    /// A step, for whoever asked for the restart.
    Progress {
        /// A [`ProgressStage`](crate::state::terms::ProgressStage); a later version may have
        /// others.
        stage: String,
        /// A sentence for people.
        text: String,
    },
    /// These sidecars must not run twice: end yours.
    Release {
        names: Vec<String>,
    },
    Ready {
        info: GenerationInfo,
        /// Where its sidecars listen, for requests of clients that stay with the predecessor.
        sidecars: BTreeMap<String, Option<SocketAddr>>,
    },
    /// It accepts clients, and is the owner on record.
    Serving,
    Sidecars {
        /// Where they listen; none while one is away.
        sidecars: BTreeMap<String, Option<SocketAddr>>,
    },
    Failed {
        why: String,
    },
    /// It ends because it was asked to, or handed over itself.
    Bye,
    /// It has finished its work, and ends when the predecessor has.
    Finished,
}
