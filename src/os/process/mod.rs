//! Processes: what the kernel tells about them, how they are related, and descriptors that cannot
//! refer to another process.

mod facts;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod kernel;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod kernel;
#[cfg(target_os = "linux")]
mod pidfd;
#[cfg(target_os = "macos")]
#[path = "kqueue.rs"]
mod pidfd;
pub mod stat;
mod tree;

pub use facts::{Process, is_within};
pub use kernel::{all, executable, group_of, program, user};
pub use pidfd::{Ended, PidFd};
pub use stat::Stat;
pub use tree::{ancestors, before_replaced, children, descendants, living_in_group, same_file};
