//! (theory to come)
pub mod cli;
pub mod config;
pub mod control;
pub mod front;
pub mod gateway;
pub mod log;
pub mod port;
pub mod redact;
pub mod service;
pub mod sidecar;
pub mod state;
pub mod supervisor;
