//! What the tests share: a gateway of one's own, clients, a load, servers to put behind it.
//!
//! Every test crate includes this module and uses a part of it, hence the allowance for dead code.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod base;
pub mod clean;
pub mod client;
pub mod gateway;
pub mod handover;
pub mod hold;
pub mod knock;
pub mod load;
pub mod machine;
pub mod namespace;
pub mod nobody;
pub mod packages;
pub mod pages;
pub mod part;
pub mod pod;
pub mod port;
pub mod random;
pub mod raw;
pub mod report;
pub mod schema;
pub mod servers;
pub mod site;
pub mod skip;
pub mod systemd_box;
pub mod upstream;
pub mod wait;
pub mod ws;
