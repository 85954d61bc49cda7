//! Which ports are free, and which processes listen on which.

mod free;
mod listening;
mod tree;

pub use free::private;
pub use listening::{Listening, listening_of};
pub use tree::{all, before_replaced, children, descendants, living_in_group, program, same_file};
