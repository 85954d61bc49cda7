//! Who supervises the gateway.

mod detect;
mod evidence;
mod verdict;

pub use detect::detect;
pub use evidence::{Evidence, HINTS};
#[cfg(test)]
pub use verdict::SupervisorKind;
pub use verdict::{Supervisor, SupervisorText, SupervisorVerdict};
