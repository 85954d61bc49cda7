//! The fault matrix: every fault at every moment of a restart, generated from the failpoints.
//!
//! ```sh
//! cargo nextest run --test matrix                         # each fault at one moment
//! cargo nextest run --test matrix --run-ignored only      # all; writes target/fault-matrix.md
//! FAULT_MATRIX="new server" cargo nextest run --test matrix --run-ignored only --no-capture
//! ```
//!
//! With `FAULT_MATRIX` only the rows and columns are run whose name contains that text.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod cell;
mod expected;
mod faults;
mod lanes;
mod moments;
mod scene;
mod site;
mod strike;
#[path = "../support/mod.rs"]
mod support;
mod table;

use std::fs;
use std::path::Path;

use expected::expected;
use faults::Fault;
use moments::Moment;

/// All that make sense.
fn cells() -> Vec<(Fault, Moment)> {
    let all = Fault::ALL.into_iter().flat_map(|fault| {
        let row = Moment::all().into_iter();
        row.map(move |moment| (fault, moment))
    });
    all.filter(|(fault, moment)| expected(*fault, *moment).is_ok())
        .collect()
}

/// Each fault at one moment, and each moment with some fault.
fn slice() -> Vec<(Fault, Moment)> {
    // It has no divisor in common with the number of moments, so that it comes by all of them.
    const STRIDE: usize = 7;
    let moments = Moment::all();
    let rows = Fault::ALL.into_iter().enumerate();
    rows.filter_map(|(row, fault)| {
        let from = moments.iter().cycle().skip(row * STRIDE);
        let mut from = from.take(moments.len());
        let moment = from.find(|moment| expected(fault, **moment).is_ok())?;
        Some((fault, *moment))
    })
    .collect()
}

#[test]
fn nothing_is_lost_whatever_goes_wrong_at_one_moment_of_a_restart() {
    lanes::run(slice());
}

#[test]
#[ignore = "it takes minutes"]
fn nothing_is_lost_whatever_goes_wrong_at_any_moment_of_a_restart() {
    let only = std::env::var("FAULT_MATRIX").unwrap_or_default();
    let mut cells = cells();
    cells.retain(|(fault, moment)| fault.name().contains(&only) || moment.name().contains(&only));
    lanes::run(cells);
}

#[test]
fn the_matrix_has_at_least_200_cells_and_its_table_is_up_to_date() {
    assert!(cells().len() >= 200, "{}", cells().len());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fault-matrix.md");
    let page = fs::read_to_string(&path).unwrap();
    let table = table::render(expected::words);
    assert!(page.ends_with(&table), "it must end with\n{table}");
}
