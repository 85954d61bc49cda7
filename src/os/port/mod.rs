//! Ports: which are free, which sockets listen, and which processes hold those.

#[cfg(target_os = "linux")]
pub mod diag;
mod free;
mod holders;
#[cfg(target_os = "linux")]
#[path = "linux.rs"]
mod kernel;
#[cfg(target_os = "macos")]
#[path = "macos.rs"]
mod kernel;
mod listening;
mod socket;
mod sockets;
#[cfg(target_os = "linux")]
pub mod table;
mod who;

pub use free::{can_be_had, knock, private};
pub use holders::{Depth, holders};
pub use kernel::{sockets_of, unix};
pub use listening::listening_of;
pub use socket::Socket;
pub use sockets::in_the_way_of;
pub use who::{Holder, who};
