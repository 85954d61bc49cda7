//! A successor: a fresh process that takes the service over while this one finishes its work.
//!
//! The old process makes a socket pair, writes an [offer](wire::Offer) with the lock, the listeners and its
//! older predecessors into it, and starts the successor with the other end. The successor reads the
//! configuration, starts its sidecars, asks for those that must not run twice to be released, and
//! says that it is ready. Only then is it made the main process and given the service; it accepts
//! clients, and says that it serves; then the old one accepts none any more, passes on each client
//! that is between two requests, and ends when none is left. Until the successor is given the
//! service, its failure changes nothing: it is ended, and the old one serves on.
//!
//! Both hold the same sockets and the same lock (open file descriptions), so there is no moment
//! without either.
//!
//! Should the sidecars of the successor die soon, while those of the old process still run, it offers
//! the service [back](way_back) in the same way.
//!
//! Where our pid must survive ([`Waiter`]), the successor is our child and this process stays
//! behind it.

pub mod borrowed_upstreams;
mod channel;
pub mod failpoint;
mod in_front;
mod incoming;
pub mod migrate;
pub mod offer;
mod outgoing;
pub mod predecessor_side;
mod predecessors;
mod program;
mod spawn;
mod starting;
pub mod successor_side;
mod waiter;
mod way_back;
mod wire;

pub use incoming::{IncomingOffer, Predecessor};
pub use outgoing::News;
pub use predecessors::{PredecessorEnd, Stopping};
pub use program::Program;
pub use starting::StartedSuccessor;
pub use waiter::Waiter;
pub use way_back::OfferedBack;
pub use wire::{Enclosed, Offer, ToPredecessor, ToSuccessor};
