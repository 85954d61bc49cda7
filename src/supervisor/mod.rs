//! How the gateway speaks to whoever supervises it.

mod activation;
mod notify;

pub use activation::{Passed, take_passed};
pub use notify::Notifier;
