//! Tests of a gateway that is a service: each boots a real systemd in a box of its own, which needs
//! root.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod access_log;
mod addresses;
mod answers;
mod chaos;
mod clean;
mod control_ws;
mod doctor;
mod documented;
mod env_file;
mod fd_store;
mod field_cases;
mod first_hour;
mod handover;
mod impostor;
mod install;
mod install_again;
mod newer;
mod own_unit;
mod package;
mod restart;
mod service;
mod stalled;
mod stop;
#[path = "../support/mod.rs"]
mod support;
mod units;
mod update;
mod why;
