//! The commands of gatewayctl, one file each.

pub mod bench;
pub mod clean;
pub mod completions;
pub mod config;
pub mod demo;
pub mod doctor;
mod event_text;
pub mod events;
pub mod history;
pub mod inhibit;
pub mod install;
pub mod list;
pub mod logs;
pub mod man;
pub mod presets;
pub mod recover;
pub mod restart;
pub mod sidecars;
pub mod start;
pub mod status;
pub mod stop;
pub mod uninstall;
pub mod update;
pub mod wait;
pub mod why;
