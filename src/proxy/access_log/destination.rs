//! Where the access log goes: a file, which may be moved away meanwhile, standard error, or the
//! journal.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tracing::{Dispatch, error, warn};

use super::entry::AccessEntry;
use super::line::Lines;
use crate::config::AccessLogTarget;
use crate::text::log;

/// Who runs the gateway writes, a group (adm, as elsewhere) reads.
const MODE: u32 = 0o640;

/// How much is written to a file at once.
const CHUNK: usize = 64 * 1024;

/// An open destination.
#[derive(Debug)]
pub enum Destination {
    None,
    File(LogFile),
    Stderr,
    Journal(Dispatch),
}

/// Lines that were lost, and why.
#[derive(Debug)]
pub struct WriteFailure {
    pub lost: u64,
    pub why: String,
}

/// Whether the log could be written to `target`, without a trace: who asks may be another user than
/// the one that the gateway runs as.
///
/// # Errors
/// Why not.
pub fn check(target: &AccessLogTarget) -> Result<(), String> {
    let AccessLogTarget::File(path) = target else {
        return open(target).map(drop);
    };
    match LogFile::options(false).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().unwrap_or(Path::new("/"));
            let writable = nix::unistd::AccessFlags::W_OK | nix::unistd::AccessFlags::X_OK;
            nix::unistd::access(parent, writable).map_err(|error| {
                let error = io::Error::from(error);
                format!("no file can be made in {}: {error}", parent.display())
            })
        }
        opened => opened
            .and_then(regular)
            .map(drop)
            .map_err(|error| unusable(path, &error)),
    }
}

/// Opens `target`, and makes the file if there is none.
///
/// # Errors
/// Why it cannot be written.
pub fn open(target: &AccessLogTarget) -> Result<Destination, String> {
    match target {
        AccessLogTarget::Off => Ok(Destination::None),
        AccessLogTarget::Stderr => Ok(Destination::Stderr),
        AccessLogTarget::Journal => log::access_journal()
            .map(Destination::Journal)
            .map_err(|error| format!("there is no journal here: {error}")),
        AccessLogTarget::File(path) => LogFile::open(path)
            .map(Destination::File)
            .map_err(|error| unusable(path, &error)),
    }
}

fn unusable(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    if error.raw_os_error() == Some(libc::ELOOP) {
        return format!("{path} is a symbolic link: name the file that it leads to, or \"stderr\"");
    }
    format!("{path} cannot be opened for writing: {error}")
}

fn regular(file: File) -> io::Result<File> {
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("it is no regular file")),
    }
}

impl Destination {
    /// The destination that the configuration names now. One that cannot be opened leaves the one
    /// before: what is written there is not lost.
    pub fn change(self, target: &AccessLogTarget) -> Self {
        match open(target) {
            Ok(opened) => opened,
            Err(why) => {
                error!("[gateway] the access log stays as it was: {why}");
                self
            }
        }
    }

    /// Writes the lines of `entries`.
    pub fn write(&mut self, lines: &mut Lines, entries: &[AccessEntry]) -> Option<WriteFailure> {
        match self {
            Self::None => None,
            // One by one: other processes may write to the same pipe, which keeps only short writes
            // in one piece.
            Self::Stderr => each(lines, entries, log::print_line),
            Self::Journal(journal) => each(lines, entries, |line| {
                log::to_access_journal(journal, line);
                Ok(())
            }),
            Self::File(file) => file.write(lines, entries),
        }
    }
}

/// Writes line by line.
fn each(
    lines: &mut Lines,
    entries: &[AccessEntry],
    mut write: impl FnMut(&str) -> io::Result<()>,
) -> Option<WriteFailure> {
    let mut failure: Option<WriteFailure> = None;
    let mut line = String::new();
    for entry in entries {
        line.clear();
        lines.add(&mut line, entry);
        if let Err(error) = write(&line) {
            let why = error.to_string();
            failure.get_or_insert(WriteFailure { lost: 0, why }).lost += 1;
        }
    }
    failure
}

/// A log file. Several processes may append to it: each write is whole lines.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Whether the last write ended within a line.
    torn: bool,
    /// Whether it was said that the file cannot be opened again.
    stuck: bool,
}

impl LogFile {
    fn options(create: bool) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.append(true).create(create).mode(MODE);
        // Without waiting for the reader of a pipe; std adds O_CLOEXEC.
        options.custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        options
    }

    fn open(path: &Path) -> io::Result<Self> {
        let file = regular(Self::options(true).open(path)?)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            torn: false,
            stuck: false,
        })
    }

    fn write(&mut self, lines: &mut Lines, entries: &[AccessEntry]) -> Option<WriteFailure> {
        if entries.is_empty() {
            return None;
        }
        self.follow();
        let mut failure: Option<WriteFailure> = None;
        let mut text = String::with_capacity(CHUNK + CHUNK / 4);
        for (index, entry) in entries.iter().enumerate() {
            lines.add(&mut text, entry);
            if text.len() < CHUNK && index + 1 < entries.len() {
                continue;
            }
            if let Err((lost, error)) = self.append(text.as_bytes()) {
                let why = format!("{}: {error}", self.path.display());
                failure.get_or_insert(WriteFailure { lost: 0, why }).lost += lost;
            }
            text.clear();
        }
        failure
    }

    /// Appends whole lines. After a write that failed halfway the next one begins on a line of its
    /// own.
    ///
    /// # Errors
    /// How many lines are not whole, and why.
    fn append(&mut self, text: &[u8]) -> Result<(), (u64, io::Error)> {
        let lines = |text: &[u8]| memchr::memchr_iter(b'\n', text).count() as u64;
        if self.torn {
            let ended = self.file.write_all(b"\n");
            ended.map_err(|error| (lines(text), error))?;
            self.torn = false;
        }
        let mut rest = text;
        while !rest.is_empty() {
            match self.file.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let done = &text[..text.len() - rest.len()];
                    self.torn = done.last().is_some_and(|last| *last != b'\n');
                    return Err((lines(rest), error));
                }
            }
        }
        Ok(())
    }

    /// Opens the file again when its path leads to another one, or to none: it was moved away, as
    /// logrotate does.
    fn follow(&mut self) {
        let here = self.file.metadata().map(|file| (file.dev(), file.ino()));
        let there = std::fs::symlink_metadata(&self.path).map(|file| (file.dev(), file.ino()));
        if matches!((here, there), (Ok(here), Ok(there)) if here == there) {
            self.stuck = false;
            return;
        }
        match Self::open(&self.path) {
            Ok(opened) => *self = opened,
            Err(error) if !self.stuck => {
                self.stuck = true;
                let why = unusable(&self.path, &error);
                warn!(
                    "[gateway] the access log was moved, and is written to where it is now: {why}"
                );
            }
            Err(_) => {}
        }
    }
}
