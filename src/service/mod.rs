//! Installing a gateway as a service and driving it there.
//!
//! `install` looks and decides first (`plan`), shows or refuses, then proves, writes, enables and
//! starts; what fails is undone. Everything is asked of the manager itself over D-Bus; systemctl is
//! never run. Files are ours only as long as the hash in their first line fits ([`provenance`]).

mod addresses;
mod backup;
mod dbus_error;
pub mod drift;
mod drive;
mod error;
mod install;
pub mod launchd;
mod layout;
mod linger;
pub mod properties;
pub mod provenance;
mod quote;
mod ready;
pub mod sandbox;
mod secrets;
pub mod systemd;
mod uninstall;
pub mod unit;
mod user;

pub use addresses::scene;
pub use drive::{
    Driven, configuration, is_inside, last_words, program, restart, run_outside, select, start,
    state, stop,
};
pub use error::{Kind, ServiceError};
pub use install::{Report, Request, Supervisor, install};
pub use layout::{Installed, find, installed};
pub use systemd::UnitState;
pub use uninstall::uninstall;
