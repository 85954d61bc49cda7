//! Tests of the texts of this repository: what the README, the field map and the sources say of
//! themselves; and a short run of the fuzz targets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod field;
mod fuzz;
mod house;
mod layers;
#[path = "../support/pages.rs"]
#[allow(dead_code)]
mod pages;
mod readme;
mod sources;
