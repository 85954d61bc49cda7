//! Generations, their lifecycle and the loop that drives it.
//!
//! [`lifecycle`] decides, [`driver`] does (with `building` and `serving`): it owns the sockets, the serving threads and the current [`generation`], and
//! performs the machine's actions one by one. Everything that takes time runs in a task of its own and comes back as a
//! [`Happening`].

mod answers;
pub mod budget;
mod building;
mod context;
mod drain;
mod driver;
mod generation;
pub mod lifecycle;
mod listeners;
mod ownership;
mod progress;
mod prove;
mod report;
mod serving;
mod signals;
mod standby;
mod start;
pub mod strategy;
mod unit;
mod watchdog;
mod wind;

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
    /// A stop is done.
    Quiet,
    /// The front door was asked whether it works.
    Checked(Result<(), String>),
}
