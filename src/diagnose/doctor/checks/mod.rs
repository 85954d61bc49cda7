//! The table of everything that is looked at, by what it is about. Pure: facts go in, findings come
//! out.

mod config;
mod files;
mod life;
mod live;
mod machine;
mod port;
mod program;
mod settings;
mod state;

use super::finding::Check;

/// The chapters of the table, in the order of the manual.
pub const CHAPTERS: [(&str, &[Check]); 9] = [
    ("The unit's files", files::CHECKS),
    ("The unit's settings", settings::CHECKS),
    ("The service", life::CHECKS),
    ("The programs", program::CHECKS),
    ("The configuration", config::CHECKS),
    ("The addresses", port::CHECKS),
    ("The state directory", state::CHECKS),
    ("The running gateway", live::CHECKS),
    ("The machine", machine::CHECKS),
];

pub fn all() -> impl Iterator<Item = &'static Check> {
    CHAPTERS.iter().flat_map(|(_, checks)| checks.iter())
}
