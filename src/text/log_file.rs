//! Standard error that leads to a file, as with `2>>FILE` or `StandardError=append:FILE`: it is followed
//! when it is moved away, as logrotate does, and a file that is cut to nothing, as with its copytruncate,
//! goes on at its beginning. No signal is needed for either.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, FcntlArg, OFlag, fcntl, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};
use nix::unistd::{dup2_stderr, dup2_stdout};

/// Names the file to the process that takes over: until this one has written a line, the descriptor that
/// it gives away may lead to where the file was moved.
pub const VARIABLE: &str = "GATEWAY_HANDOVER_LOG";

/// The bits of a file that say who may read and write it.
const ACCESS: libc::mode_t = 0o666;

/// The file that standard error leads to.
#[derive(Debug)]
pub struct StderrFile {
    /// Where it lies: whoever can move this directory, or a link on the way to it, does not choose where
    /// the next file is made.
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
    /// The file that is written.
    file: FileStat,
    /// Whether it was said that the next file cannot be opened.
    stuck: bool,
}

impl StderrFile {
    /// None where standard error is no file, or one without a known name.
    pub fn find() -> Option<Self> {
        let stderr = io::stderr();
        let file = fstat(stderr.as_fd()).ok()?;
        if !is_regular(&file) {
            return None;
        }
        let given = std::env::var_os(VARIABLE).map(PathBuf::from);
        let is_given = given.is_some();
        let path = given.map_or_else(file_of_stderr, Ok).ok()?;
        let flags = OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let found = Self {
            directory: open(path.parent()?, flags, Mode::empty()).ok()?,
            name: path.file_name()?.to_owned(),
            path,
            file,
            stuck: false,
        };
        if !is_given && !found.is_there() {
            return None;
        }
        // What is written behind the end of a file that was cut begins with zeros.
        let flags = fcntl(stderr.as_fd(), FcntlArg::F_GETFL).ok()?;
        let flags = OFlag::from_bits_truncate(flags) | OFlag::O_APPEND;
        fcntl(stderr.as_fd(), FcntlArg::F_SETFL(flags)).ok()?;
        Some(found)
    }

    /// Where it is meant to lie.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the next file where this one was moved away or removed. Why it cannot, in a sentence, once.
    pub fn follow(&mut self) -> Option<String> {
        if self.is_there() {
            self.stuck = false;
            return None;
        }
        let why = match self.open_next() {
            Ok(()) => {
                self.stuck = false;
                return None;
            }
            Err(why) => why,
        };
        let path = self.path.display();
        (!std::mem::replace(&mut self.stuck, true)).then(|| {
            format!(
                "the log {path} was moved, and is written to where it is now, because the next file cannot be opened: {why} (logrotate's copytruncate needs no other file)"
            )
        })
    }

    fn is_there(&self) -> bool {
        let there = fstatat(
            &self.directory,
            self.name.as_os_str(),
            AtFlags::AT_SYMLINK_NOFOLLOW,
        );
        there.is_ok_and(|there| is_same(&there, &self.file))
    }

    fn open_next(&mut self) -> io::Result<()> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_APPEND
            | OFlag::O_CREAT
            | OFlag::O_NOFOLLOW
            | OFlag::O_NONBLOCK
            | OFlag::O_CLOEXEC;
        let mode = Mode::from_bits_truncate(self.file.st_mode & ACCESS);
        let next = openat(&self.directory, self.name.as_os_str(), flags, mode)?;
        let file = fstat(&next)?;
        if !is_regular(&file) {
            return Err(io::Error::other("it is no regular file"));
        }
        let stdout = fstat(io::stdout().as_fd());
        if stdout.is_ok_and(|stdout| is_same(&stdout, &self.file)) {
            dup2_stdout(&next)?;
        }
        dup2_stderr(&next)?;
        self.file = file;
        Ok(())
    }
}

/// Where standard error leads to, as the kernel has it.
///
/// # Errors
/// When the kernel has no path for it.
#[cfg(not(target_os = "macos"))]
pub fn file_of_stderr() -> io::Result<PathBuf> {
    std::fs::read_link("/proc/self/fd/2")
}

/// Where standard error leads to, as the kernel has it.
///
/// # Errors
/// When the kernel has no path for it.
#[cfg(target_os = "macos")]
pub fn file_of_stderr() -> io::Result<PathBuf> {
    let mut path = PathBuf::new();
    fcntl(io::stderr().as_fd(), FcntlArg::F_GETPATH(&mut path))?;
    Ok(path)
}

fn is_regular(file: &FileStat) -> bool {
    SFlag::from_bits_truncate(file.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG
}

fn is_same(one: &FileStat, other: &FileStat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}
