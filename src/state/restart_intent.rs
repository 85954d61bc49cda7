//! `restart-intent.json`: the SIGTERM that follows is the first half of a restart.
//!
//! A service manager knows only one signal to end a process. Whoever restarts through it leaves
//! this file first, and the gateway takes the budget, the reason and the record of a restart for
//! its exit. It counts once, soon, and for one process.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tracing::warn;

use super::{atomic_file, owner};

const NAME: &str = "restart-intent.json";

/// What `kind` must say.
const KIND: &str = "gateway-restart";

/// The largest file that is read, in bytes.
const MAX_BYTES: usize = 1024;

/// The longest reason, in characters.
const MAX_REASON: usize = 200;

/// How long it counts, in milliseconds: from the call that wrote it to its SIGTERM pass
/// milliseconds, but a busy manager may take a while.
const TTL_MS: u64 = 60_000;

/// How far ahead a clock may have been that was set back since, in milliseconds.
const SKEW_MS: u64 = 1_000;

/// What the next SIGTERM means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intent {
    /// The gateway it is for.
    pub pid: u32,
    /// When it was written, in milliseconds since the epoch.
    pub created_at_ms: u64,
    /// Why; cut to 200 characters.
    pub reason: String,
    /// Cut what is under way.
    pub force: bool,
    /// The drain budget in milliseconds, 0 for as long as it takes; none for the configured one.
    pub wait_ms: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct IntentRecord {
    kind: String,
    pid: u32,
    created_at: u64,
    boot_id: String,
    /// When the gateway began, in clock ticks since boot: it counts where the boot has two
    /// identities.
    #[serde(default)]
    start_time: u64,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    force: bool,
    #[serde(default)]
    wait_ms: Option<u64>,
}

/// Writes the intent into a state directory. One that root writes belongs to the directory's owner,
/// who must be able to read it.
///
/// # Errors
/// Whatever the file system says.
pub fn write(dir: &Path, intent: &Intent) -> io::Result<()> {
    let mut reason: String = intent.reason.chars().take(MAX_REASON).collect();
    let text = loop {
        let text = serde_json::to_vec(&IntentRecord {
            kind: KIND.to_owned(),
            pid: intent.pid,
            created_at: intent.created_at_ms,
            boot_id: owner::boot_id(),
            start_time: owner::start_time(intent.pid).unwrap_or_default(),
            reason: reason.clone(),
            force: intent.force,
            wait_ms: intent.wait_ms,
        })?;
        // Control characters take six bytes each.
        if text.len() <= MAX_BYTES || reason.pop().is_none() {
            break text;
        }
    };
    let home = std::fs::metadata(dir)?;
    let ours = nix::unistd::geteuid();
    let owner = (ours.is_root() && home.uid() != 0).then(|| (home.uid(), home.gid()));
    atomic_file::write_for(&path(dir), &text, 0o600, owner)
}

/// Takes the intent, if there is one for process `pid` that still counts. It is gone afterwards,
/// whatever it was.
///
/// `now` in milliseconds since the epoch.
pub fn consume(dir: &Path, pid: u32, now: u64) -> Option<Intent> {
    let path = path(dir);
    let read = read(&path, pid, now);
    remove(dir);
    match read {
        Ok(intent) => Some(intent),
        Err(Unusable::Absent) => None,
        Err(Unusable::Because(why)) => {
            warn!("[gateway] {} does not count: {why}", path.display());
            None
        }
    }
}

/// Whether one lies there, counting or not; nothing is changed.
pub fn waits(dir: &Path) -> bool {
    std::fs::symlink_metadata(path(dir)).is_ok()
}

/// Removes the intent: the call that it belongs to failed.
pub fn remove(dir: &Path) {
    let path = path(dir);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warn!("[gateway] cannot remove {}: {error}", path.display())
        }
        _ => {}
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join(NAME)
}

enum Unusable {
    Absent,
    Because(String),
}

fn because(why: impl ToString) -> Unusable {
    Unusable::Because(why.to_string())
}

fn read(path: &Path, pid: u32, now: u64) -> Result<Intent, Unusable> {
    // Without waiting, should somebody have put a pipe there.
    let file = match OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path)
    {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Absent),
        Err(error) => return Err(because(error)),
    };
    trusted(&file).map_err(Unusable::Because)?;
    let mut text = Vec::new();
    file.take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut text)
        .map_err(because)?;
    if text.len() > MAX_BYTES {
        return Err(because(format!("it is longer than {MAX_BYTES} bytes")));
    }
    let record: IntentRecord = serde_json::from_slice(&text).map_err(because)?;
    counts(&record, pid, now).map_err(Unusable::Because)?;
    Ok(Intent {
        pid: record.pid,
        created_at_ms: record.created_at,
        reason: record.reason.chars().take(MAX_REASON).collect(),
        force: record.force,
        wait_ms: record.wait_ms,
    })
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

fn counts(record: &IntentRecord, pid: u32, now: u64) -> Result<(), String> {
    if record.kind != KIND {
        return Err(format!("its kind is not {KIND}"));
    }
    if record.pid != pid {
        return Err(format!("it is for pid {}", record.pid));
    }
    if record.boot_id != owner::boot_id()
        && (record.start_time == 0 || Some(record.start_time) != owner::start_time(pid))
    {
        return Err("it is from before the machine was booted".to_owned());
    }
    if record.created_at > now.saturating_add(SKEW_MS)
        || now.saturating_sub(record.created_at) > TTL_MS
    {
        return Err(format!("it is not from the last {} s", TTL_MS / 1000));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

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
        assert_eq!(consume(dir, PID, NOW), None);
        write(dir, &intent()).unwrap();
        assert_eq!(
            std::fs::metadata(path(dir)).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(consume(dir, PID, NOW + TTL_MS), Some(intent()));
        assert_eq!(consume(dir, PID, NOW), None, "it is gone");
        for (what, pid, now) in [
            ("another process", PID + 1, NOW),
            ("too old", PID, NOW + TTL_MS + 1),
            ("from the future", PID, NOW - SKEW_MS - 1),
        ] {
            write(dir, &intent()).unwrap();
            assert_eq!(consume(dir, pid, now), None, "{what}");
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
            assert_eq!(consume(dir, PID, NOW), None, "{what}");
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
        plant(
            &[good.trim_ascii_end(), &[b' '; MAX_BYTES][..]].concat(),
            0o600,
        );
        refused("too large");
        plant(
            &String::from_utf8_lossy(&good)
                .replace(KIND, "other")
                .into_bytes(),
            0o600,
        );
        refused("another kind");
        plant(
            &String::from_utf8_lossy(&good)
                .replace(&owner::boot_id(), "other")
                .into_bytes(),
            0o600,
        );
        refused("another boot");
        plant(&good, 0o600);
        assert_eq!(consume(dir, PID, NOW), Some(intent()));
    }

    #[test]
    fn a_long_reason_is_cut_and_always_fits() {
        let dir = tempfile::tempdir().unwrap();
        for (reason, length) in [
            ("x".repeat(300), Some(200)),
            ("\u{1F980}".repeat(300), Some(200)),
            ("\u{1}".repeat(300), None),
        ] {
            write(
                dir.path(),
                &Intent {
                    reason: reason.clone(),
                    ..intent()
                },
            )
            .unwrap();
            let read = consume(dir.path(), PID, NOW).unwrap();
            assert!(reason.starts_with(&read.reason) && !read.reason.is_empty());
            assert!(
                length.is_none_or(|length| read.reason.chars().count() == length),
                "{}",
                read.reason.chars().count()
            );
        }
    }

    #[test]
    fn what_root_writes_belongs_to_the_directory_s_owner() {
        let dir = tempfile::tempdir().unwrap();
        if std::os::unix::fs::chown(dir.path(), Some(12_345), Some(12_345)).is_err() {
            return; // only root can give a folder away
        }
        write(dir.path(), &intent()).unwrap();
        let facts = std::fs::metadata(path(dir.path())).unwrap();
        assert_eq!((facts.uid(), facts.gid()), (12_345, 12_345));
    }
}
