//! `owner.json`: who holds the lock, for people and for gatewayctl.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::{atomic_file, untrusted_file};
use crate::os::platform;
use crate::os::process::Stat;

/// Its name in the state directory.
pub const FILE: &str = "owner.json";

/// A longer record is not read: a real one has some hundred bytes for each drainer and listener.
const RECORD_MAX: u64 = 256 * 1024;

/// The process that holds the lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Owner {
    pub pid: u32,
    /// As [`Stat::start_time`]: it distinguishes the owner from a later process with its pid.
    pub start_time: u64,
    /// As [`boot_id`].
    pub boot_id: String,
    /// The first TCP port of the front door.
    #[serde(default)]
    pub port: Option<u16>,
    pub instance: String,
    /// The generation that serves; 0 before the first.
    #[serde(default)]
    pub generation: u64,
    /// They look stale but are not.
    #[serde(default)]
    pub drainers: Vec<Drainer>,
    /// The addresses of the front door.
    pub listeners: Vec<String>,
    /// A hash of the sidecar commands: a second start of the same gateway has the same one.
    pub command: String,
    /// The same without the values of variables; empty in a record that does not know it.
    #[serde(default)]
    pub program: String,
    /// The variables that its sidecars were given, each with so little of a hash of its value that it shows a
    /// change, and no value.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
    /// The directory it was started in, where a sidecar depends on it: the same command means
    /// another server elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub directory: Option<String>,
    /// Where its log goes: a file, or a terminal. None where that has no name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<PathBuf>,
}

/// A predecessor that handed over and finishes its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drainer {
    pub pid: u32,
    /// As [`Owner::start_time`].
    pub start_time: u64,
    /// When its budget ends, in milliseconds since the epoch; none when it has no end.
    pub until_ms: Option<u64>,
}

impl Owner {
    /// Reads the record of a state directory; none when there is none or it cannot be understood.
    pub fn read(state_dir: &Path) -> Option<Self> {
        let text = untrusted_file::read(&state_dir.join(FILE), RECORD_MAX).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Whether the process that wrote this is still there: same boot, same start, not a zombie.
    /// None where /proc does not show it.
    pub fn lives(&self) -> Option<bool> {
        // A container may show its sandboxed services another boot than other processes: then only
        // the start time counts.
        if is_other_boot(&self.boot_id) && self.start_time == 0 {
            Some(false)
        } else {
            lives(self.pid, self.start_time)
        }
    }

    pub fn write(&self, state_dir: &Path) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        atomic_file::write_for_this_boot(&state_dir.join(FILE), &text, 0o600)
    }
}

/// Whether process `pid` that started at `start` lives: none where /proc does not show it (hidepid,
/// or no /proc at all).
fn lives(pid: u32, start: u64) -> Option<bool> {
    match Stat::read(pid) {
        Some(stat) => Some(!stat.is_dead() && (start == 0 || stat.start_time == start)),
        // Without our own entry there is no /proc.
        None if Stat::read(std::process::id()).is_none() => None,
        None => (!signallable(pid)).then_some(false),
    }
}

/// Whether the kernel knows the pid; a process of another user counts.
fn signallable(pid: u32) -> bool {
    i32::try_from(pid).is_ok_and(|pid| kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH))
}

/// See [`Stat::start_time`].
pub fn start_time(pid: u32) -> Option<u64> {
    Stat::read(pid).map(|stat| stat.start_time)
}

/// Whether a record is of another boot than this one; false where one of the two is not known.
pub fn is_other_boot(recorded: &str) -> bool {
    let now = boot_id();
    !now.is_empty() && !recorded.is_empty() && now != recorded
}

/// The identity of this boot; empty where it is hidden.
pub fn boot_id() -> String {
    platform::boot_id().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(pid: u32, start_time: u64, boot_id: &str) -> Owner {
        Owner {
            pid,
            start_time,
            boot_id: boot_id.to_owned(),
            port: None,
            instance: "a".into(),
            generation: 0,
            drainers: vec![],
            listeners: vec![],
            command: String::new(),
            program: String::new(),
            variables: BTreeMap::new(),
            directory: None,
            output: None,
        }
    }

    #[test]
    fn round_trips_and_survives_garbage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Owner::read(dir.path()), None);
        let owner = Owner {
            port: Some(18789),
            generation: 3,
            drainers: vec![Drainer {
                pid: 7,
                start_time: 9,
                until_ms: None,
            }],
            ..owner(7, 9, "b")
        };
        owner.write(dir.path()).unwrap();
        assert_eq!(Owner::read(dir.path()), Some(owner));
        std::fs::write(dir.path().join("owner.json"), b"{").unwrap();
        assert_eq!(Owner::read(dir.path()), None);
    }

    #[test]
    fn a_record_of_an_older_version_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let text =
            br#"{"pid":1,"startTime":2,"bootId":"","instance":"a","listeners":[],"command":"x"}"#;
        std::fs::write(dir.path().join("owner.json"), text).unwrap();
        let owner = Owner::read(dir.path()).unwrap();
        assert_eq!(
            (owner.port, owner.generation, owner.drainers.len()),
            (None, 0, 0)
        );
    }

    #[test]
    fn a_recycled_pid_and_another_boot_are_not_the_owner() {
        let pid = std::process::id();
        let (start, boot) = (start_time(pid).unwrap(), &boot_id());
        assert_eq!(owner(pid, start, boot).lives(), Some(true));
        assert_eq!(owner(pid, start + 1, boot).lives(), Some(false));
        assert_eq!(owner(pid, start - 1, "another").lives(), Some(false));
        assert_eq!(owner(pid, 0, "another").lives(), Some(false));
        // systemd-nspawn shows a sandboxed service the boot of the machine, and other processes one
        // of the container.
        assert_eq!(owner(pid, start, "another").lives(), Some(true));
        // Above the largest pid that Linux gives.
        assert_eq!(owner(1 << 23, start, boot).lives(), Some(false));
    }
}
