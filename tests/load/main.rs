//! Tests that keep the whole machine busy: each runs alone, so that none spoils the figures of
//! another.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bodies;
mod restart;
#[path = "../support/mod.rs"]
mod support;
