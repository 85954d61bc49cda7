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
mod server;
mod socket;
#[cfg(target_os = "linux")]
pub mod table;
mod who;

pub use free::{bound, can_be_had, is_here, is_private, knock, private};
pub use holders::{Depth, holders, listening_of};
pub use kernel::{listener_at, sockets_of, unix, unprivileged_start};
pub use server::{Server, ServerAddress, Stranger};
pub use socket::Socket;
pub use who::{Holder, UNSEEN, holder, in_the_way_of, who};
