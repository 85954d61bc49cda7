//! (theory to come)
pub mod cli;
pub mod config;
pub mod control;
pub mod log;
pub mod redact;
pub mod service;
pub mod state;
