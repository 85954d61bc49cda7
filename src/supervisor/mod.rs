//! Who supervises the gateway, and how it speaks to systemd.

mod activation;
mod detect;
mod evidence;
pub mod launchd;
mod notify;
mod verdict;

pub use activation::{Passed, take_passed};
pub use detect::detect;
pub use evidence::{Evidence, HINTS, Parent, Platform};
pub use notify::{Notifier, STANDING_BY, WAITING};
pub use verdict::{Supervisor, Verdict};
