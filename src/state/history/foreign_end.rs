//! The end of a process that could not write it itself, as the process that saw or caused it records
//! it.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use jiff::Timestamp;
use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use super::{History, HistoryEntry, Recorded, encoded, read};
use crate::state::owner::Owner;
use crate::state::terms::EndReason;
use crate::state::untrusted_file;

/// How a process ended, and why.
#[derive(Clone, Debug)]
pub struct ForeignEnd {
    /// The process.
    pub pid: u32,
    /// The exit code as a shell tells it: 128 plus the number of the signal.
    pub code: u8,
    /// Whether somebody wanted it: then it does not slow down the next start.
    pub planned: bool,
    /// Why.
    pub reason: EndReason,
}

impl ForeignEnd {
    /// The end by a signal that nobody of us sent.
    pub fn killed(pid: u32, signal: Signal) -> Self {
        Self {
            pid,
            code: 128_u8.saturating_add(signal as u8),
            planned: false,
            reason: EndReason::Signal(signal),
        }
    }
}

impl History {
    /// The line about an end; none when that process began no life in this boot, or its life has an
    /// end.
    pub fn foreign_end(&self, dir: &Path, end: ForeignEnd) -> Option<Recorded> {
        let mut lines = read(dir).filter(|line| line.pid == end.pid);
        let life = lines.rfind(|line| {
            matches!(
                line.entry,
                HistoryEntry::Started { .. } | HistoryEntry::Ended { .. }
            )
        })?;
        if matches!(life.entry, HistoryEntry::Ended { .. }) || life.boot_id != self.boot_id {
            return None;
        }
        let uptime = Timestamp::now().duration_since(life.at).as_millis();
        let entry = HistoryEntry::Ended {
            planned: end.planned,
            code: end.code,
            reason: end.reason,
            uptime_ms: u64::try_from(uptime).unwrap_or(0),
            cut: Vec::new(),
            trace: None,
        };
        Some(Recorded {
            pid: end.pid,
            ..self.line(entry)
        })
    }
}

/// Records in a state directory, which may be another user's, how its owner is ended; nothing where
/// that process is not the owner on record. `start_time` as [`super::super::owner::start_time`].
///
/// # Errors
/// Those of the disk, and when the history is not the plain file of the directory's owner.
pub fn record_foreign_end(dir: &Path, start_time: u64, end: ForeignEnd) -> io::Result<()> {
    let Some(owner) = Owner::read(dir) else {
        return Ok(());
    };
    if owner.pid != end.pid || owner.start_time != start_time {
        return Ok(());
    }
    let history = History {
        // That of a container is another one than ours.
        boot_id: owner.boot_id,
        ..History::open(dir)
    };
    let Some(line) = history.foreign_end(dir, end) else {
        return Ok(());
    };
    // It is neither made nor renamed here: a file of root would be in the gateway's way.
    let file = untrusted_file::open(&history.path, OFlag::O_RDWR | OFlag::O_APPEND)?;
    if file.metadata()?.nlink() != 1 {
        let why = "it has several names";
        return Err(io::Error::new(io::ErrorKind::InvalidData, why));
    }
    super::write_line(file, encoded(&line)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::history::PreviousEnd;
    use crate::state::owner::{boot_id, start_time};
    use crate::state::terms::RungName;

    /// A state directory with this process as its owner.
    fn owned() -> (tempfile::TempDir, u64) {
        let dir = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let started = start_time(pid).unwrap();
        let owner = Owner {
            pid,
            start_time: started,
            boot_id: boot_id(),
            port: None,
            instance: "a".into(),
            generation: 1,
            drainers: Vec::new(),
            listeners: Vec::new(),
            command: String::new(),
            program: String::new(),
            variables: Default::default(),
            directory: None,
            output: None,
        };
        owner.write(dir.path()).unwrap();
        let history = History::open(dir.path());
        let begun = HistoryEntry::Started {
            version: String::new(),
            supervisor: String::new(),
            rung: RungName::Normal,
            reason: None,
            before: PreviousEnd::Unknown,
            oom_kills: None,
        };
        history.append(&history.line(begun)).unwrap();
        (dir, started)
    }

    fn end() -> ForeignEnd {
        ForeignEnd::killed(std::process::id(), Signal::SIGKILL)
    }

    fn ends(dir: &Path) -> usize {
        let ended = |line: &Recorded| matches!(line.entry, HistoryEntry::Ended { .. });
        read(dir).filter(ended).count()
    }

    #[test]
    fn the_end_of_the_owner_is_written_once_and_of_no_other_process() {
        let (dir, started) = owned();
        record_foreign_end(dir.path(), started + 1, end()).unwrap();
        assert_eq!(ends(dir.path()), 0, "its number belongs to another by now");
        for _ in 0..2 {
            record_foreign_end(dir.path(), started, end()).unwrap();
            assert_eq!(ends(dir.path()), 1);
        }
        let nothing = tempfile::tempdir().unwrap();
        record_foreign_end(nothing.path(), started, end()).unwrap();
        assert_eq!(nothing.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn a_history_that_leads_to_another_file_is_not_written_to() {
        for link in [
            |from: &Path, to: &Path| std::fs::hard_link(from, to),
            |from: &Path, to: &Path| std::os::unix::fs::symlink(from, to),
        ] {
            let (dir, started) = owned();
            let (path, other) = (
                dir.path().join(super::super::FILE),
                dir.path().join("other"),
            );
            std::fs::rename(&path, &other).unwrap();
            let before = std::fs::read(&other).unwrap();
            link(&other, &path).unwrap();
            let _ = record_foreign_end(dir.path(), started, end());
            assert_eq!(std::fs::read(&other).unwrap(), before);
        }
    }
}
