//! The announcement to a gateway that the SIGTERM of its service manager belongs to a restart.

use std::path::PathBuf;

use jiff::Timestamp;

use super::args::Wait;
use crate::state::owner::Owner;
use crate::state::restart_intent::{self, Intent};

/// An intent in the state directory: it says that the manager's SIGTERM belongs to a restart.
/// Removed when it is dropped.
pub(super) struct AnnouncedRestart(PathBuf);

impl AnnouncedRestart {
    /// In that of these directories which belongs to the process. None where no gateway runs that could read
    /// it, or it cannot be left: without it the stop is an ordinary one.
    pub(super) fn leave_in(
        dirs: &[PathBuf],
        pid: u32,
        reason: String,
        wait: Option<Wait>,
    ) -> Option<Self> {
        let dir = dirs.iter().find(|dir| {
            Owner::read(dir).is_some_and(|owner| owner.pid == pid && owner.lives() != Some(false))
        })?;
        let intent = Intent {
            pid,
            created_at_ms: u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default(),
            reason,
            force: false,
            wait_ms: wait.map(Wait::to_wire),
        };
        restart_intent::write(dir, &intent).ok()?;
        Some(Self(dir.clone()))
    }
}

impl Drop for AnnouncedRestart {
    fn drop(&mut self) {
        restart_intent::remove(&self.0);
    }
}
