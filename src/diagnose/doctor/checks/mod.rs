//! The table of all checks, by subject. Each check is a pure function of the facts.
//!
//! To add a check: add its entry to the `CHECKS` in the file of its subject. The manual, `--fix` and
//! the tests find it there.

mod address;
mod config;
mod launchd;
mod machine;
mod program;
mod running;
mod service;
mod state_dir;
mod unit_files;
mod unit_limits;
mod unit_restart;

use super::finding::Check;

/// The chapters of the table, in the order of the manual.
pub const CHAPTERS: [(&str, &[Check]); 11] = [
    ("The unit files", unit_files::CHECKS),
    ("The unit: start, stop and restart", unit_restart::CHECKS),
    ("The unit: limits and environment", unit_limits::CHECKS),
    ("The service", service::CHECKS),
    ("The job of launchd", launchd::CHECKS),
    ("The programs", program::CHECKS),
    ("The configuration", config::CHECKS),
    ("The addresses", address::CHECKS),
    ("The state directory", state_dir::CHECKS),
    ("The running gateway", running::CHECKS),
    ("The machine", machine::CHECKS),
];

pub fn all() -> impl Iterator<Item = &'static Check> {
    CHAPTERS.iter().flat_map(|(_, checks)| checks.iter())
}
