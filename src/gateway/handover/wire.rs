//! The messages between predecessor and successor, each a line of JSON. The first is the offer,
//! which carries descriptors.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::control::protocol::{DrainStatus, GenerationInfo};
use crate::gateway::obituary::Obituary;
use crate::gateway::passage_wait::PassageReport;
use crate::os::port::ServerAddress;
use crate::state::trace::Carried;
use crate::supervisor::SupervisorVerdict;

/// The version of this protocol. Only processes with equal versions hand over to each other; others
/// restart through the service manager.
pub const VERSION: u32 = crate::control::protocol::HANDOVER_VERSION;

/// The environment variable with the number of the descriptor that the offer comes through.
pub const OFFER: &str = "GATEWAY_HANDOVER";

/// The environment variable with the number of the descriptor that leads to the waiter.
pub const LINK: &str = "GATEWAY_WAITER";

/// What the successor gets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Offer {
    /// [`VERSION`]; read before anything else.
    pub version: u32,
    pub pid: u32,
    /// The successor must be of the same instance.
    pub instance: String,
    /// The file that it reads its configuration from; none where there is none, and
    /// from a predecessor that did not tell yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<PathBuf>,
    /// The successor must use the same state directory.
    pub state_dir: PathBuf,
    /// The generation that the successor builds.
    pub generation: u64,
    /// The restart request that this is for.
    pub request: String,
    pub reason: String,
    /// When it was asked, RFC 3339.
    pub asked_at: String,
    #[serde(flatten)]
    pub enclosed: Enclosed,
    /// The notification socket of the service manager.
    pub notify: Option<String>,
    /// The watchdog interval in microseconds; 0 for none.
    pub watchdog_usec: u64,
    /// The successor cannot detect its supervisor, because its ancestors are others.
    pub verdict: SupervisorVerdict,
    /// Whether the request is answered with what the passages of the successor bring.
    #[serde(default)]
    pub asks_for_passages: bool,
    /// The trace of this restart, if tracing is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<Carried>,
}

/// What the descriptors are that come with an offer, in this order: the lock (if `lock`), the
/// listeners, a pidfd for each of `drainers` (and a pipe for one that `stays`), a pidfd for each
/// of `exclusive` that runs, and the way back (if `way_back`).
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Enclosed {
    /// Whether the lock comes along; it does not when the disk was full.
    pub lock: bool,
    /// For each listener, its name in the fd store of the service manager, if it is there.
    pub listeners: Vec<Option<String>>,
    /// The predecessor, and the processes before it that still drain.
    pub drainers: Vec<HandedDrainer>,
    /// The sidecars of the predecessor that must not run twice.
    pub exclusive: Vec<Exclusive>,
    /// Whether a stream comes along by which the successor may offer the service back.
    #[serde(default)]
    pub way_back: bool,
}

/// A sidecar that must not run twice.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Exclusive {
    pub name: String,
    /// Whether a process of it runs.
    pub runs: bool,
}

/// A process that finishes its work.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HandedDrainer {
    pub pid: u32,
    /// The generation that it finishes.
    pub generation: u64,
    /// The time that it has left, in milliseconds; none for no limit.
    pub left_ms: Option<u64>,
    /// Whether it stays in front of its successors when its work is done. Then a pipe comes after
    /// its pidfd, and is closed when the work is done.
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
        status: Vec<DrainStatus>,
        /// How often it has heard where the successor's sidecars are.
        #[serde(default)]
        heard: u64,
        /// How many requests and tunnels it has at sidecars of successors.
        #[serde(default)]
        borrowed: u64,
    },
    /// After it handed the service back: how its sidecars died.
    Relapsed(Obituary),
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
    /// A step, for the client that requested the restart.
    Progress {
        /// A [`ProgressStage`](crate::state::terms::ProgressStage); a later version may have
        /// others.
        stage: String,
        /// A sentence for people.
        text: String,
    },
    /// These sidecars must not run twice: end yours.
    Release { names: Vec<String> },
    Ready {
        info: GenerationInfo,
        /// Where its sidecars listen, for requests of clients that stay with the predecessor.
        sidecars: BTreeMap<String, Option<ServerAddress>>,
    },
    /// It accepts clients, and is the owner on record.
    Serving {
        /// Whether it will tell what comes of its passages.
        #[serde(default)]
        passages: bool,
    },
    /// What came of its passages, to a predecessor that asked for them.
    Passages(PassageReport),
    Sidecars {
        /// Where they listen; none while one is away.
        sidecars: BTreeMap<String, Option<ServerAddress>>,
    },
    Failed {
        why: String,
        /// Its configuration is not valid, or a file of variables cannot be used.
        #[serde(default)]
        invalid: bool,
    },
    /// It ends because it was asked to, or handed over itself.
    Bye,
    /// It has finished its work, and ends when the predecessor has.
    Finished,
}
