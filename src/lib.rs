//! (theory to come)
pub mod config;
pub mod control;
pub mod log;
pub mod redact;
pub mod state;
