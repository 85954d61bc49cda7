//! (theory to come)
pub mod config;
pub mod control;
pub mod service;
pub mod state;
