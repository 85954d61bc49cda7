//! The ancestor rule: no process above this one is ever signalled, not even when the user names it.
//!
//! A command may run below the gateway that it cleans up after: a sidecar, or an agent behind the
//! front door, starts `gatewayctl`. It must not end the process that it was started from.

use crate::os::process;

/// The processes above one: its parent, that one's parent, and so on, process 1 included where it is
/// one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ancestors(Vec<u32>);

impl Ancestors {
    pub fn of(pid: u32) -> Self {
        Self(process::ancestors(pid))
    }

    /// Whether the rule protects a process.
    pub fn protect(&self, pid: u32) -> bool {
        self.0.contains(&pid)
    }
}

impl From<Vec<u32>> for Ancestors {
    fn from(pids: Vec<u32>) -> Self {
        Self(pids)
    }
}
