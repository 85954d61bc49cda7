//! Processes: what the kernel tells of them, their kin, and descriptors that cannot mean another one.

mod facts;
mod pidfd;
pub mod stat;
mod tree;

pub use facts::{Process, group_of, is_within};
pub use pidfd::{Ended, PidFd};
pub use stat::Stat;
pub use tree::{all, ancestors, before_replaced, children, descendants, living_in_group, program, same_file};
