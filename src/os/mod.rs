//! The calls of the kernel: one place for each, with the macOS twin beside it.

pub mod accept_queue;
pub mod child;
pub mod credentials;
#[cfg(any(test, target_os = "macos"))]
pub mod darwin;
pub mod descriptors;
pub mod file_access;
mod file_identity;
pub mod heap;
pub mod jobs;
pub mod mapped_owner;
pub mod mutex;
pub mod oom;
pub mod platform;
pub mod port;
pub mod process;
pub mod program_run;
pub mod quarantine;
mod record;
pub mod send_queue;
pub mod task;
pub mod terminal;
pub mod unix_socket;
pub mod working_directory;

/// A number that no other process is likely to draw. Not for secrets.
pub fn random() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new()
        .build_hasher()
        .finish()
}
