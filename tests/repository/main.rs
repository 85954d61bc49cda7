//! Tests of the texts of this repository: what the README, the field map and the sources say of
//! themselves.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod field;
mod house;
mod layers;
mod readme;
mod sources;
