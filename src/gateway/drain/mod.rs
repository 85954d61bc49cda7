//! The drains: work that is under way finishes within a budget.
//!
//! Each has its own order: [`old_generation`] (its sidecars end), [`after_handover`] (clients go to
//! the successor), [`before_exit`] (the service manager starts the next process) and [`shutdown`] (a
//! stop); the last two end what [`process_end`] lists. [`super::slot`] drains a sidecar that is replaced behind its door. All of them
//! share [`budget`]; [`clients`] sends silent clients to another process.

pub mod after_handover;
pub mod before_exit;
pub mod budget;
pub mod clients;
pub mod holds;
pub mod old_generation;
pub mod process_end;
pub mod shutdown;
