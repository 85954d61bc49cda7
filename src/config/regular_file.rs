//! The one way in which files are read that somebody else may have put there: a regular file, opened
//! without waiting, up to a limit.
//!
//! A plain open waits for the other side of a pipe for ever, and for 45 s for who has a write lease on a
//! file (fcntl(2), F_SETLEASE); to open a device can have effects, and to read one may have no end. A
//! test of the repository names the files that may open others by path.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

/// Opens a regular file for reading, wherever symbolic links lead. What is none is not opened.
///
/// # Errors
/// `InvalidData` when it is no regular file; `WouldBlock` when somebody has a write lease on it.
pub fn open(path: &Path) -> io::Result<File> {
    open_regular(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => {
            io::Error::new(error.kind(), "another process has a lease on it")
        }
        _ => error,
    })
}

/// Reads a file of at most `limit` bytes, which [`open`] opens.
///
/// # Errors
/// `InvalidData` when it is longer, or as [`open`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    bounded(&open(path)?, limit)
}

/// The text of a file of at most `limit` bytes, which [`open`] opens.
///
/// # Errors
/// `InvalidData` when it is longer or no UTF-8, or as [`open`].
pub fn read_text(path: &Path, limit: u64) -> io::Result<String> {
    text(read(path, limit)?)
}

/// The same for a file that this command's user named: also what that user gave it as a descriptor, as
/// in `--config <(COMMAND)`, and nothing, `/dev/null`.
///
/// # Errors
/// Those of [`read_text`].
pub fn read_named_text(path: &Path, limit: u64) -> io::Result<String> {
    let given =
        ["/dev/null", "/dev/stdin"].map(Path::new).contains(&path) || path.starts_with("/dev/fd");
    if given {
        text(bounded(&File::open(path)?, limit)?)
    } else {
        read_text(path, limit)
    }
}

/// Reads a file to its end.
///
/// # Errors
/// `InvalidData` when it is longer than `limit` bytes.
pub fn bounded(file: &File, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        Err(invalid("it is too long"))
    } else {
        Ok(bytes)
    }
}

/// Whether two files that [`open`] opens say the same, byte by byte.
///
/// # Errors
/// As [`open`], and what reading says.
pub fn same_content(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (open(one)?, open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (here, there) = (one.fill_buf()?, other.fill_buf()?);
        let length = here.len().min(there.len());
        if here[..length] != there[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(here.len() == there.len());
        }
        one.consume(length);
        other.consume(length);
    }
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| invalid("it is not UTF-8"))
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn no_file() -> io::Error {
    invalid("it is not a regular file")
}

#[cfg(target_os = "linux")]
fn open_regular(path: &Path) -> io::Result<File> {
    use std::fs::OpenOptions;
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = OpenOptions::new();
    let place = options.read(true).custom_flags(libc::O_PATH).open(path)?;
    if !place.metadata()?.is_file() {
        return Err(no_file());
    }
    options
        .custom_flags(libc::O_NONBLOCK)
        .open(format!("/proc/self/fd/{}", place.as_raw_fd()))
}

/// macOS opens a descriptor by its name only once more: a device may take the file's place meanwhile.
#[cfg(not(target_os = "linux"))]
fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    if !std::fs::metadata(path)?.is_file() {
        return Err(no_file());
    }
    let mut options = std::fs::OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(no_file()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_say_the_same_are_told_from_others() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let long = vec![b'x'; 100_000];
        let mut other = long.clone();
        other[99_999] = b'y';
        for (name, bytes) in [
            ("a", &long[..]),
            ("b", &long),
            ("c", &other),
            ("short", &long[1..]),
            ("empty", b""),
        ] {
            std::fs::write(path(name), bytes).unwrap();
        }
        let same = |one: &str, other: &str| same_content(&path(one), &path(other)).unwrap();
        assert!(same("a", "b") && same("empty", "empty"));
        assert!(!same("a", "c") && !same("a", "short") && !same("empty", "a"));
        assert!(same_content(&path("a"), &path("none")).is_err());
    }

    #[test]
    fn only_a_regular_file_of_bounded_length_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let (file, link) = (dir.path().join("a"), dir.path().join("link"));
        std::fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(read(&link, 4).unwrap(), b"text");
        assert_eq!(read_named_text(&link, 4).unwrap(), "text");
        assert!(read(&link, 3).is_err());
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &link).unwrap();
        assert!(read(&link, 3).is_err() && read_named_text(&link, 3).is_err());
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read(&file, 3).is_err() && read_named_text(&file, 3).is_err());
        assert_eq!(read_named_text(Path::new("/dev/null"), 3).unwrap(), "");
    }
}
