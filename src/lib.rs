//! (theory to come)
pub mod config;
pub mod control;
pub mod front;
pub mod state;
