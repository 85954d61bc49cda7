//! Whose file system a systemd box begins with, and with it whose systemd.

use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Makes the root of the newer Debian where there is none yet, and prints where it is.
const NEWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/newer-systemd");

/// Whose file system a box begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// This machine's.
    Machine,
    /// That of a Debian whose systemd is newer.
    NewerDebian,
}

impl Base {
    /// The root directory; why there is none, if so.
    pub fn root(self) -> Result<PathBuf, String> {
        if self == Self::Machine {
            return Ok("/".into());
        }
        let made = Command::new(NEWER)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| format!("{NEWER}: {error}"))?;
        if made.status.success() {
            return Ok(String::from_utf8_lossy(&made.stdout).trim().into());
        }
        let said = String::from_utf8_lossy(&made.stderr);
        let last = said.lines().last().unwrap_or("it does not say why");
        Err(format!("no newer systemd: {last}"))
    }

    /// How systemd-nspawn is told to give a box cgroup v2, which it does not by itself where this
    /// machine mounts v1. A newer systemd is made for v2: on v1 it misses the end of processes that
    /// it killed.
    pub fn setting_of_groups(self) -> Option<(&'static str, &'static str)> {
        (self == Self::NewerDebian).then_some(("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1"))
    }
}
