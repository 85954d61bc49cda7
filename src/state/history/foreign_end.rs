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

/// What a signal ended, and why it was sent.
#[derive(Clone, Debug)]
pub struct ForeignEnd {
    /// The process.
    pub pid: u32,
    /// The signal that ended it.
    pub signal: Signal,
    /// Whether somebody wanted it: then it does not slow down the next start.
    pub planned: bool,
    /// Why.
    pub reason: EndReason,
}

impl History {
    /// The line about an end; none unless the life of that process is the last on record and has no
    /// end yet.
    pub fn foreign_end(&self, dir: &Path, end: ForeignEnd) -> Option<Recorded> {
        let lines: Vec<Recorded> = read(dir).collect();
        let begun = |line: &Recorded| matches!(line.entry, HistoryEntry::Started { .. });
        let index = lines.iter().rposition(begun)?;
        let (life, now) = (&lines[index], Timestamp::now());
        let ended = lines[index..]
            .iter()
            .any(|line| line.pid == end.pid && matches!(line.entry, HistoryEntry::Ended { .. }));
        if life.pid != end.pid || life.boot_id != self.boot_id || ended {
            return None;
        }
        let uptime = now.duration_since(life.at).as_millis();
        let entry = HistoryEntry::Ended {
            planned: end.planned,
            code: 128_u8.saturating_add(end.signal as u8),
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
