//! `owner.json`: who holds the lock, for people and for gatewayctl.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::atomic;

/// The process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    /// Its process id.
    pub pid: u32,
    /// Field 22 of /proc/PID/stat, in clock ticks since boot: tells a recycled pid from the owner.
    pub start_time: u64,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// The instance's name.
    pub instance: String,
    /// The addresses of the front door.
    pub listeners: Vec<String>,
    /// A hash of the sidecar commands, to tell a second start of the same from a start of another.
    pub command: String,
}

impl Owner {
    /// Reads the record of a state directory; none when there is none or it cannot be understood.
    pub fn read(state_dir: &Path) -> Option<Self> {
        let text = std::fs::read(state_dir.join("owner.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        atomic::write(&state_dir.join("owner.json"), &text, 0o600)
    }
}

/// When a process started, in clock ticks since boot (proc(5), field 22 of stat).
pub fn start_time(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name is in parentheses and may hold anything, parentheses too: count from the last one.
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// The identity of this boot; empty where the kernel does not tell.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trips_and_survives_garbage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Owner::read(dir.path()), None);
        let owner = Owner {
            pid: std::process::id(),
            start_time: start_time(std::process::id()).unwrap(),
            boot_id: boot_id(),
            instance: "a".into(),
            listeners: vec![],
            command: "x".into(),
        };
        owner.write(dir.path()).unwrap();
        assert_eq!(Owner::read(dir.path()), Some(owner));
        std::fs::write(dir.path().join("owner.json"), b"{").unwrap();
        assert_eq!(Owner::read(dir.path()), None);
    }
}
