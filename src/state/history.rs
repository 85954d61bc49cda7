//! `history.jsonl`: every life and every restart, one line of JSON each: who, why, how long, what
//! clients saw.
//!
//! Each line is appended by one write. A torn line, as a full disk or a crash leaves it, does not
//! harm the others. At its limit the file is renamed to `history.jsonl.1` and a new one begun.
//! Nothing waits for the disk: a line survives the process, but not always a power failure.

mod foreign_end;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use nix::fcntl::OFlag;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::clients_seen::ClientsSeen;
use super::passage::Passage;
use super::terms::{
    EndReason, ProgressStage, RequestEnd, RequestKindName, RungName, SidecarStanding, StrategyName,
};
use super::trace::Carried;
use super::untrusted_file;
use crate::text::absent;

pub use foreign_end::{ForeignEnd, record_foreign_end};

/// Its name in the state directory.
pub const FILE: &str = "history.jsonl";

/// The longest file, in bytes: some thousand restarts.
const FILE_MAX: u64 = 1024 * 1024;

/// The longest line, in bytes.
const LINE_MAX: usize = 16 * 1024;

/// How many characters of a text are kept.
const TEXT_MAX: usize = 500;

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Requester {
    /// The user's number; absent when it is not known, as for a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The process; absent when it is not known, as for a signal.
    #[serde(skip_serializing_if = "absent::zero")]
    pub pid: u32,
    /// The name of its program, when it could still be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// Of a client of the front door: whose token it had, and from where it came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

/// One step of a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhaseTime {
    /// Its name, as in progress events.
    pub name: ProgressStage,
    /// Milliseconds after the request at which it began.
    pub at_ms: u64,
}

/// How the life before ended, as far as the one after can tell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", tag = "ended", content = "cause")]
pub enum PreviousEnd {
    /// There was none, or nothing is known of it.
    Unknown,
    /// A stop, a restart or a hand-over.
    Planned,
    /// It handed over, and may still be draining.
    HandedOver,
    /// With the machine.
    MachineDown,
    /// A crash or a kill; with what is known of the cause.
    Unplanned(Option<String>),
}

/// What is recorded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "camelCase",
    rename_all_fields = "camelCase",
    tag = "event"
)]
pub enum HistoryEntry {
    /// A life began.
    Started {
        /// The gateway's version.
        version: String,
        /// Its supervisor, in words.
        supervisor: String,
        /// Where it stands on the recovery ladder.
        rung: RungName,
        /// Why, when not at the bottom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// How the life before ended.
        before: PreviousEnd,
        /// How many processes of its control group the kernel had ended for want of memory.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oom_kills: Option<u64>,
    },
    /// A life ends.
    Ended {
        /// Whether the end was planned: a stop, a restart, a hand-over, or that `gatewayctl` ended it
        /// because it did not answer.
        planned: bool,
        /// Its exit code.
        code: u8,
        /// Why.
        reason: EndReason,
        /// How long it was.
        uptime_ms: u64,
        /// What was cut, when its time was over.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cut: Vec<String>,
        /// The restart trace that the next life goes on with.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        trace: Option<Carried>,
    },
    /// A process has handed over, its work is done, and it stays in front of the one that serves,
    /// because somebody follows its pid.
    HandedOver {
        /// The process that serves.
        to: u32,
        /// How long it was there until then.
        uptime_ms: u64,
        /// What was cut, when its time was over.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        cut: Vec<String>,
    },
    /// A restart or reload is accepted. Its end is a `Request` of the same id; where the process
    /// dies before, the life after writes that.
    Asked {
        /// Its id.
        id: String,
        /// What was asked for.
        kind: RequestKindName,
        /// The sidecar that it is about, where it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sidecar: Option<String>,
        /// Who asked.
        who: Requester,
        /// Why.
        reason: String,
        /// Where the next generation is to live.
        strategy: StrategyName,
    },
    /// A restart, reload or recovery that was asked for, at its end.
    Request {
        /// Its id.
        id: String,
        /// What was asked for.
        kind: RequestKindName,
        /// The sidecar that it is about, where it is about one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sidecar: Option<String>,
        /// Who asked.
        who: Requester,
        /// Why.
        reason: String,
        /// Where the next generation lives.
        strategy: StrategyName,
        /// Its steps.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        phases: Vec<PhaseTime>,
        /// How it ended.
        outcome: RequestEnd,
        /// How long it took.
        took_ms: u64,
        /// The streams and tunnels that it ended, each with its age.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        ended: Vec<String>,
        /// What clients saw meanwhile; absent where that was not counted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clients: Option<ClientsSeen>,
        /// What came of the readiness requests of the sidecars that were started or restarted, sent
        /// through the front door when the next generation served.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        passages: Vec<Passage>,
        /// How long new requests had to wait or were refused; absent when that was not measured.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        downtime_ms: Option<u64>,
    },
    /// The time of a drain in this process was over before the work was.
    Cut {
        /// The restart or reload that it belongs to.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        request: Option<String>,
        /// The sidecar that the work was at.
        sidecar: String,
        /// What was cut.
        cut: Vec<String>,
    },
    /// Something noteworthy about a sidecar.
    Sidecar {
        /// Its name.
        name: String,
        /// What.
        standing: SidecarStanding,
        /// Why.
        reason: String,
    },
    /// Another rung of the recovery ladder.
    Rung {
        /// The rung that was reached.
        rung: RungName,
        /// Why.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
}

/// A line of the history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// When it was written.
    pub at: Timestamp,
    /// The gateway's process.
    pub pid: u32,
    /// The boot it was written in ([`super::owner::boot_id`]).
    pub boot_id: String,
    /// What happened.
    #[serde(flatten)]
    pub entry: HistoryEntry,
}

/// The history of one state directory.
#[derive(Clone, Debug)]
pub struct History {
    path: PathBuf,
    boot_id: String,
}

impl History {
    /// The history in `dir`. Nothing is opened before something is written.
    pub fn open(dir: &Path) -> Self {
        Self {
            path: path(dir),
            boot_id: super::owner::boot_id(),
        }
    }

    /// The line that records an entry now.
    pub fn line(&self, entry: HistoryEntry) -> Recorded {
        Recorded {
            at: Timestamp::now(),
            pid: std::process::id(),
            boot_id: self.boot_id.clone(),
            entry,
        }
    }

    /// Writes a line, long texts clipped.
    ///
    /// # Errors
    /// Those of the disk; and when the line is too long.
    pub fn append(&self, line: &Recorded) -> io::Result<()> {
        let text = encoded(line)?;
        let mut file = self.file()?;
        // Two processes write during a hand-over. Without the lock a line is appended too, by one
        // write, but the file is not renamed.
        let alone = file.try_lock().is_ok();
        let length = file.metadata()?.len();
        if alone && length + text.len() as u64 > FILE_MAX {
            std::fs::rename(&self.path, older(&self.path))?;
            file = self.file()?;
        }
        write_line(file, text)
    }

    /// What is no file that can be written to is set aside.
    fn file(&self) -> io::Result<File> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_CREAT;
        let open = || untrusted_file::open(&self.path, flags);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                untrusted_file::quarantine(&self.path, &error.to_string());
                open()
            }
            opened => opened,
        }
    }
}

/// A line as it is written, with its end.
fn encoded(line: &Recorded) -> io::Result<String> {
    let mut value = serde_json::to_value(line)?;
    clip(&mut value);
    let mut text = value.to_string();
    if text.len() > LINE_MAX {
        let message = format!("a line of {} bytes is too long", text.len());
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    text.push('\n');
    Ok(text)
}

fn write_line(mut file: File, mut text: String) -> io::Result<()> {
    if file.metadata()?.len() > 0 && !ends_whole(&mut file)? {
        text.insert(0, '\n');
    }
    file.write_all(text.as_bytes())
}

/// Whether the last line was written to its end.
fn ends_whole(file: &mut File) -> io::Result<bool> {
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

/// Shortens every text in it.
fn clip(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Some((end, _)) = text.char_indices().nth(TEXT_MAX) {
                text.truncate(end);
                text.push('…');
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clip),
        Value::Object(fields) => fields.values_mut().for_each(clip),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// What is recorded in `dir`, the oldest first. A request that was accepted stands there only while
/// it has no end. Torn lines, lines of a later version, and files that
/// cannot be read are skipped.
pub fn read(dir: &Path) -> impl DoubleEndedIterator<Item = Recorded> {
    let path = path(dir);
    let mut lines: Vec<Recorded> = Vec::new();
    for path in [older(&path), path] {
        // A writer without the lock may have made it a little longer than the limit.
        let text = untrusted_file::read(&path, 2 * FILE_MAX).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        lines.extend(
            text.lines()
                .filter_map(|line| serde_json::from_str(line).ok()),
        );
    }
    without_ended(lines).into_iter()
}

/// Leaves out that a request was accepted where its end follows, and its end where that is corrected later:
/// a generation that dies soon takes back that it was done.
fn without_ended(lines: Vec<Recorded>) -> Vec<Recorded> {
    let mut ended = HashSet::new();
    let kept = lines.into_iter().rev().filter(|line| match &line.entry {
        HistoryEntry::Asked { id, .. } => !ended.remove(id),
        HistoryEntry::Request { id, .. } => ended.insert(id.clone()),
        HistoryEntry::Started { .. } => {
            // Another life of that pid counts its requests anew.
            ended.retain(|id| !is_of(id, line.pid));
            true
        }
        _ => true,
    });
    let mut kept: Vec<Recorded> = kept.collect();
    kept.reverse();
    kept
}

/// The id of the request of this number that a process was asked for.
pub fn request_id(pid: u32, number: u64) -> String {
    format!("r{pid}-{number}")
}

/// Whether a request was asked of this process.
fn is_of(id: &str, pid: u32) -> bool {
    let number = id.rsplit('-').next().and_then(|number| number.parse().ok());
    number.is_some_and(|number| request_id(pid, number) == id)
}

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

fn older(path: &Path) -> PathBuf {
    untrusted_file::with_suffix(path, ".1")
}

#[cfg(test)]
mod tests;
