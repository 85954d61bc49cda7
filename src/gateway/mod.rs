//! Generations, their lifecycle and the loop that drives it.
//!
//! [`lifecycle`] decides, [`run_loop`] does (with `building` and `serving`): it owns the sockets, the
//! serving threads and the current [`generation`], and performs the machine's actions one by one.
//! Everything that takes time runs in a task of its own and comes back as a [`Happening`].

mod address_wait;
pub mod alert;
pub mod budget;
mod building;
pub mod changed;
mod config_source;
mod context;
mod control_end;
mod drain;
mod fdstore_clients;
mod generation;
mod handover;
mod lease;
mod leftover;
pub mod lifecycle;
mod listeners;
mod option_future;
mod ownership;
mod pending_requests;
mod progress;
mod prove;
pub mod record;
pub mod recovery;
mod run_loop;
mod serving;
mod signals;
mod slot;
mod standby;
mod start;
mod status;
pub mod strategy;
mod supervision;
mod traces;
mod watchdog;

pub use prove::prove;
pub use signals::{hold as hold_signals, release as release_signals};
pub use start::run;

use crate::control::protocol::Progress;
use generation::{BuildError, Generation};

/// What the driver's tasks report back.
#[derive(Debug)]
enum Happening {
    /// A step of a request.
    Progress(Progress),
    /// A generation was built, or not.
    Built(u64, Box<Result<Generation, BuildError>>),
    /// A sidecar of the current generation changed its state.
    SidecarChanged,
    /// An older generation is gone.
    Drained(u64),
    /// A step on the way to an end is done.
    Step(&'static str),
    /// A stop is done.
    Quiet,
    /// The front door was asked whether it works.
    Checked(Result<(), String>),
    /// The successor of this generation says something, or is gone.
    Successor(u64, handover::News),
    /// What the successor of this generation must not run beside has ended.
    Released(u64),
    /// A successor that did not take over is gone, and its sidecars with it.
    SuccessorEnded,
    /// The predecessor says something, or is gone.
    Predecessor(Option<handover::ToSuccessor>),
    /// A process that came before has ended.
    PredecessorEnded(u32),
    /// What systemd says about our unit.
    Supervised(Option<Box<crate::systemd::unit::UnitFacts>>),
    /// A SIGTERM was the first half of a restart; whether the whole machine stops.
    Leaving(crate::state::restart_intent::Intent, bool),
    /// After a hand-over, the last client is gone.
    ClientsGone,
    /// In safe mode: the configuration file is another one.
    ConfigurationChanged,
}

/// Where the sidecars of a generation listen; none while one is away.
type Addresses = std::collections::BTreeMap<String, Option<std::net::SocketAddr>>;
