//! The drains: work that is under way finishes within a budget.
//!
//! Each has its own order: [`old_generation`] (its sidecars end), [`after_handover`] (clients go to
//! the successor), [`before_exit`] (the service manager starts the next process) and [`shutdown`] (a
//! stop). [`super::slot`] drains a sidecar that is replaced behind its door. What is the same in all
//! of them lies in [`budget`], the way of silent clients to somebody else in [`clients`].

pub mod after_handover;
pub mod before_exit;
pub mod budget;
pub mod clients;
pub mod old_generation;
pub mod shutdown;
