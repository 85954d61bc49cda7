//! `restart-intent.json`: the signal that follows, SIGTERM, SIGUSR1 or SIGUSR2, belongs to this
//! restart.
//!
//! A service manager has only one signal to end a process. A restart through it writes this file
//! first, so that the gateway ends with the budget, the reason and the record of a restart; a
//! restart by SIGUSR1 gets them in the same way. It counts once, for a minute, and for one process.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use tracing::warn;

use super::terms::cut_reason;
use super::{atomic_file, owner, untrusted_file};
use crate::os::{mapped_owner, process};

const NAME: &str = "restart-intent.json";

const KIND: &str = "gateway-restart";

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 1024;

/// How long it counts, in milliseconds. Its SIGTERM follows within milliseconds, later if the
/// manager is busy.
const TTL_MS: u64 = 60_000;

/// How far the clock may have been set back since, in milliseconds.
const SKEW_MS: u64 = 1_000;

/// What the next signal means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// The gateway it is for.
    pub pid: u32,
    /// When it was written, in milliseconds since the epoch.
    #[serde(rename = "createdAt")]
    pub created_at_ms: u64,
    /// Why; cut to 200 characters.
    #[serde(default)]
    pub reason: String,
    /// Cut what is under way.
    #[serde(default)]
    pub force: bool,
    /// The drain budget in milliseconds, 0 for as long as it takes; none for the configured one.
    #[serde(default)]
    pub wait_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntentRecord {
    kind: String,
    /// Empty where a script wrote it that does not know: then process and time tell enough.
    #[serde(default)]
    boot_id: String,
    /// As [`owner::start_time`]: it counts where the boot has two identities.
    #[serde(default)]
    start_time: u64,
    #[serde(flatten)]
    intent: Intent,
}

/// Writes the intent into a state directory. One that root writes belongs to the directory's owner,
/// who must be able to read it.
///
/// # Errors
/// Also when the directory belongs to a user who is neither this one nor that of the process: whoever
/// may write above it can put another directory in its place.
pub fn write(dir: &Path, intent: &Intent) -> io::Result<()> {
    let mut record = IntentRecord {
        kind: KIND.to_owned(),
        boot_id: owner::boot_id(),
        start_time: owner::start_time(intent.pid).unwrap_or_default(),
        intent: intent.clone().shortened(),
    };
    let text = loop {
        let text = serde_json::to_vec(&record)?;
        // Control characters take six bytes each.
        if text.len() <= MAX_BYTES || record.intent.reason.pop().is_none() {
            break text;
        }
    };
    // All by one descriptor: what is checked is what is written to.
    let directory = atomic_file::open_directory(dir)?;
    let home = directory.metadata()?;
    let ours = nix::unistd::geteuid();
    let is_theirs = || {
        process::user(intent.pid).is_some_and(|user| mapped_owner::is_owner_by(dir, &home, user))
    };
    if home.uid() != ours.as_raw() && !is_theirs() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!(
                "{} belongs to uid {}, and pid {} does not",
                dir.display(),
                home.uid(),
                intent.pid
            ),
        ));
    }
    let owner = (ours.is_root() && home.uid() != 0).then(|| (home.uid(), home.gid()));
    atomic_file::write_in(&directory, OsStr::new(NAME), &text, 0o600, owner)
}

/// Takes the intent, if there is one for one of these processes that still counts at `now`, in
/// milliseconds since the epoch. The file is removed in any case.
pub fn consume(dir: &Path, pids: &[u32], now: u64) -> Option<Intent> {
    let path = path(dir);
    let read = read(&path, pids, now);
    if !matches!(read, Ok(None)) {
        remove(dir);
    }
    read.unwrap_or_else(|why| {
        warn!("[gateway] {} does not count: {why}", path.display());
        None
    })
}

/// The intent, if there is one for process `pid` that another process is to take.
pub fn look(dir: &Path, pid: u32, now: u64) -> Option<Intent> {
    // Who takes it says why it does not count.
    read(&path(dir), &[pid], now).ok().flatten()
}

/// Whether there is one, counting or not; nothing is changed.
pub fn waits(dir: &Path) -> bool {
    std::fs::symlink_metadata(path(dir)).is_ok()
}

/// Removes the intent: the call that it belongs to failed.
pub fn remove(dir: &Path) {
    let path = path(dir);
    if let Err(error) = atomic_file::remove(&path) {
        warn!("[gateway] cannot remove {}: {error}", path.display());
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

impl Intent {
    fn shortened(mut self) -> Self {
        self.reason = cut_reason(&self.reason);
        self
    }
}

/// None where there is no file; an error says why it does not count.
fn read(path: &Path, pids: &[u32], now: u64) -> Result<Option<Intent>, String> {
    let file = match untrusted_file::open(path, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    trusted(&file)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let record: IntentRecord = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    counts(&record, pids, now)?;
    Ok(Some(record.intent.shortened()))
}

/// The file is one that only root or we can have written.
fn trusted(file: &File) -> Result<(), String> {
    let facts = file.metadata().map_err(|error| error.to_string())?;
    if !facts.is_file() || facts.nlink() != 1 {
        return Err("it is not a plain file with one name".to_owned());
    }
    if facts.uid() != 0 && facts.uid() != nix::unistd::geteuid().as_raw() {
        return Err(format!("it belongs to uid {}", facts.uid()));
    }
    if facts.mode() & 0o077 != 0 {
        return Err(format!(
            "others may use it (mode {:o})",
            facts.mode() & 0o777
        ));
    }
    Ok(())
}

fn counts(record: &IntentRecord, pids: &[u32], now: u64) -> Result<(), String> {
    if record.kind != KIND {
        return Err(format!("its kind is not {KIND}"));
    }
    let pid = record.intent.pid;
    if !pids.contains(&pid) {
        return Err(format!("it is for pid {pid}"));
    }
    if !record.boot_id.is_empty()
        && record.boot_id != owner::boot_id()
        && (record.start_time == 0 || Some(record.start_time) != owner::start_time(pid))
    {
        return Err("it is from before the machine was booted".to_owned());
    }
    let created = record.intent.created_at_ms;
    if created > now.saturating_add(SKEW_MS) || now.saturating_sub(created) > TTL_MS {
        return Err(format!("it is not from the last {} s", TTL_MS / 1000));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;

    use super::*;
    use crate::state::atomic_file::mode;

    const NOW: u64 = 1_800_000_000_000;
    const PID: u32 = 4242;

    fn intent() -> Intent {
        Intent {
            pid: PID,
            created_at_ms: NOW,
            reason: "new certificate".into(),
            force: false,
            wait_ms: Some(5_000),
        }
    }

    #[test]
    fn it_counts_once_soon_and_for_one_process() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        assert_eq!(consume(dir, &[PID], NOW), None);
        write(dir, &intent()).unwrap();
        assert_eq!(mode(&path(dir)), 0o600);
        assert_eq!(look(dir, PID, NOW), Some(intent()), "and it stays");
        assert_eq!(consume(dir, &[PID], NOW + TTL_MS), Some(intent()));
        assert_eq!(consume(dir, &[PID], NOW), None, "it is gone");
        write(dir, &intent()).unwrap();
        assert_eq!(consume(dir, &[PID - 1, PID], NOW), Some(intent()));
        for (what, pid, now) in [
            ("another process", PID + 1, NOW),
            ("too old", PID, NOW + TTL_MS + 1),
            ("from the future", PID, NOW - SKEW_MS - 1),
        ] {
            write(dir, &intent()).unwrap();
            assert_eq!(consume(dir, &[pid], now), None, "{what}");
            assert!(!path(dir).exists(), "{what}: removed all the same");
        }
    }

    #[test]
    fn links_other_modes_large_files_and_garbage_do_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let aside = dir.join("aside");
        write(dir, &intent()).unwrap();
        std::fs::rename(path(dir), &aside).unwrap();
        let good = std::fs::read(&aside).unwrap();
        let plant = |text: &[u8], mode: u32| {
            std::fs::write(path(dir), text).unwrap();
            std::fs::set_permissions(path(dir), std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = |what: &str| {
            assert_eq!(consume(dir, &[PID], NOW), None, "{what}");
            assert!(
                std::fs::symlink_metadata(path(dir)).is_err(),
                "{what}: removed"
            );
        };

        std::os::unix::fs::symlink(&aside, path(dir)).unwrap();
        refused("a symlink");
        std::fs::hard_link(&aside, path(dir)).unwrap();
        refused("a hard link");
        assert!(aside.exists(), "what the links lead to is left alone");
        nix::unistd::mkfifo(&path(dir), nix::sys::stat::Mode::S_IRWXU).unwrap();
        refused("a pipe");
        plant(&good, 0o644);
        refused("readable by others");
        plant(b"{", 0o600);
        refused("garbage");
        plant(&[good.trim_ascii_end(), &[b' '; MAX_BYTES]].concat(), 0o600);
        refused("too large");
        for (what, part) in [("another kind", KIND), ("another boot", &owner::boot_id())] {
            let text = String::from_utf8_lossy(&good).replace(part, "other");
            plant(text.as_bytes(), 0o600);
            refused(what);
        }
        plant(&good, 0o600);
        assert_eq!(consume(dir, &[PID], NOW), Some(intent()));
        let script = format!(r#"{{"kind":"{KIND}","pid":{PID},"createdAt":{NOW}}}"#);
        plant(script.as_bytes(), 0o600);
        let short = consume(dir, &[PID], NOW).unwrap();
        assert_eq!((short.reason.as_str(), short.wait_ms), ("", None));
    }

    #[test]
    fn a_long_reason_is_cut_and_always_fits() {
        let dir = tempfile::tempdir().unwrap();
        for (reason, length) in [
            ("x".repeat(300), Some(200)),
            ("\u{1F980}".repeat(300), Some(200)),
            ("\u{1}".repeat(300), None),
        ] {
            let long = Intent {
                reason: reason.clone(),
                ..intent()
            };
            write(dir.path(), &long).unwrap();
            let read = consume(dir.path(), &[PID], NOW).unwrap();
            assert!(reason.starts_with(&read.reason) && !read.reason.is_empty());
            let kept = read.reason.chars().count();
            assert!(length.is_none_or(|length| kept == length), "{kept}");
        }
    }

    #[test]
    fn what_root_writes_belongs_to_the_directory_s_owner() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_345)).is_err() {
            return; // only root can give a directory away
        }
        let refused = write(dir.path(), &intent()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied, "{refused}");
        assert!(!path(dir.path()).exists());
        let mut command = std::process::Command::new("sleep");
        let mut child = command.arg("60").uid(12_345).spawn().unwrap();
        let its = Intent {
            pid: child.id(),
            ..intent()
        };
        write(dir.path(), &its).unwrap();
        let facts = std::fs::metadata(path(dir.path())).unwrap();
        assert_eq!((facts.uid(), facts.gid()), (12_345, 12_345));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
