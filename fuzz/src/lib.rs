//! What each fuzz target does with an input, and what must hold then. The programs in
//! `fuzz_targets/` call these functions with inputs that libFuzzer makes, and
//! `tests/repository/fuzz.rs` with the inputs kept here and fixed changes of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod control_frames;
mod http_progress;
#[cfg(target_os = "linux")]
mod netlink;
#[cfg(target_os = "linux")]
mod proc_files;
mod property_list;
mod proxy_header;
mod quoting;
mod systemd;
mod toml_config;
mod websocket;

pub use control_frames::control_frames;
pub use http_progress::http_progress;
#[cfg(target_os = "linux")]
pub use netlink::netlink;
#[cfg(target_os = "linux")]
pub use proc_files::proc_files;
pub use property_list::property_list;
pub use proxy_header::proxy_header;
pub use quoting::quoting;
pub use toml_config::toml_config;
pub use websocket::websocket;

/// A fuzz target: it panics when a property does not hold.
pub type Target = fn(&[u8]);

/// The targets by name: that of the program in `fuzz_targets/` and of the directories with inputs.
pub const TARGETS: &[(&str, Target)] = &[
    ("control_frames", control_frames),
    ("http_progress", http_progress),
    #[cfg(target_os = "linux")]
    ("netlink", netlink),
    #[cfg(target_os = "linux")]
    ("proc_files", proc_files),
    ("property_list", property_list),
    ("proxy_header", proxy_header),
    ("quoting", quoting),
    ("toml_config", toml_config),
    ("websocket", websocket),
];

/// Ways to cut an input into pieces: at once, in pieces of some sizes, and in two at each of some
/// places.
fn cuts(input: &[u8]) -> Vec<Vec<&[u8]>> {
    let sizes = [usize::MAX, 1, 2, 3, 7, 64, 1000];
    let mut ways: Vec<Vec<&[u8]>> = sizes
        .iter()
        .filter(|size| **size > 1 || input.len() <= 4096)
        .map(|size| input.chunks(*size).collect())
        .collect();
    for part in 1..8 {
        let (one, two) = input.split_at(input.len() * part / 8);
        ways.push(vec![one, two]);
    }
    ways
}
