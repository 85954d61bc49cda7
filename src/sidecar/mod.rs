//! The programs behind the front door: started, watched, restarted when they die, stopped by pidfd.
//!
//! [`Sidecar::start`] makes a task that owns one process at a time; outside only its [`State`] is
//! seen and only [`Sidecar::stop`] can be asked.

mod environment;
pub mod notice;
mod notify;
mod oneshot;
mod output;
mod policy;
mod probe;
mod process;
mod runner;

pub use environment::Inherited;
pub use oneshot::oneshot;
pub use runner::{Failure, Sidecar, Start, State};
