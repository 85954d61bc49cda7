//! Who has a port: what it takes us and others to tell, measured in one run, in alternation.
//!
//! ```sh
//! cargo bench --bench owner                      # all of it, some minutes
//! cargo bench --bench owner -- --quick           # fewer rounds
//! cargo bench --bench owner -- --only lookup --json
//! ```
//!
//! Parts: `lookup` (the holder of a port among 10, 1,000 and 5,000 other processes, by the library,
//! by `gatewayctl clean --dry-run`, by lsof, ss and fuser; those four are whole processes, as a
//! script would start them), `restart` (`gatewayctl restart --force` in five situations under a
//! real systemd, against a script of lsof, kill and systemctl; needs root).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod lookup;
#[path = "../shared/parts.rs"]
mod parts;
mod restart;
#[path = "../../tests/support/mod.rs"]
mod support;

fn main() {
    parts::run(
        "owner",
        false,
        true,
        &[("lookup", lookup::measure), ("restart", restart::measure)],
    );
}

/// The middle of some measurements.
fn middle(values: &mut [f64]) -> f64 {
    gateway::internals::middle_and_most(values).0
}
