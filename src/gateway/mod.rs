//! Generations, their lifecycle and the loop that drives it.
//!
//! [`lifecycle`] decides, [`run_loop`] does (with `building` and `serving`): it owns the sockets, the
//! serving threads and the current [`generation`], and performs the machine's actions one by one.
//! Everything that takes time runs in a task of its own and comes back as a [`loop_event::LoopEvent`].

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
pub mod lifecycle;
mod listeners;
mod loop_event;
mod option_future;
mod outbox;
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
