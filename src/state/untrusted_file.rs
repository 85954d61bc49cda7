//! Files that may be damaged, or that a less privileged user may have put there to harm the reader.
//! A state file that cannot be understood is set aside with a warning, and never prevents a start.

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{UnlinkatFlags, geteuid, unlinkat};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::atomic_file::{open_directory, open_parent};
use crate::config::regular_file;
use crate::os::mapped_owner;

/// More names are not read: a state directory has a dozen, and 20 bundles.
const NAMES_MAX: usize = 10_000;

/// Reads a small JSON file of at most `limit` bytes. None when there is none, when it cannot be
/// read, or when it cannot be understood: then it is renamed to `NAME.corrupt`.
pub fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> Option<T> {
    match read(path, limit) {
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| quarantine(path, &error.to_string()))
            .ok(),
        Err(error) => {
            match error.kind() {
                io::ErrorKind::NotFound => {}
                io::ErrorKind::InvalidData => quarantine(path, &error.to_string()),
                _ => warn!(
                    "[gateway] cannot read {}: {error}; going on as if it were not there",
                    path.display()
                ),
            }
            None
        }
    }
}

fn invalid(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

/// Opens a regular file by the descriptor of its directory, without following a symbolic link, and
/// without waiting for the other side of a pipe. A file that is made has mode 0600.
///
/// # Errors
/// `InvalidData` when it is a symbolic link or no regular file, or when it belongs to somebody other
/// than the owner of the directory and this user. A file of this user in the directory of somebody else must
/// have no other name: not every system keeps that one from linking to any file there is.
pub fn open(path: &Path, flags: OFlag) -> io::Result<File> {
    let directory = open_parent(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let careful = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = match openat(&directory, name, flags | careful, mode) {
        Ok(file) => File::from(file),
        Err(Errno::ELOOP) => return Err(invalid("it is a symbolic link")),
        Err(error) => return Err(error.into()),
    };
    let facts = file.metadata()?;
    if !facts.is_file() {
        return Err(invalid("it is not a regular file"));
    }
    if facts.uid() == directory.metadata()?.uid() {
        Ok(file)
    } else if facts.uid() != geteuid().as_raw() {
        Err(invalid(&format!("it belongs to uid {}", facts.uid())))
    } else if has_other_name(&directory, name, &facts)? {
        Err(invalid("it is a hard link to a file of this user"))
    } else {
        Ok(file)
    }
}

/// Whether a file that was opened by this name has, or had meanwhile, another one. The name is looked at while it
/// is there: whoever removes it after the open leaves a file with one name, too.
fn has_other_name(directory: &File, name: &OsStr, opened: &Metadata) -> io::Result<bool> {
    let now = fstatat(directory, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    let same = (now.st_dev as u64, now.st_ino as u64) == (opened.dev(), opened.ino());
    Ok(!same || now.st_nlink as u64 > 1)
}

/// Reads a file of at most `limit` bytes, which [`open`] opens.
///
/// # Errors
/// `InvalidData` when it is longer, or as [`open`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    regular_file::bounded(&open(path, OFlag::O_RDONLY)?, limit)
}

/// The names in a directory, at most [`NAMES_MAX`].
///
/// # Errors
/// When it cannot be read.
pub fn names(directory: &Path) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(directory)?.take(NAMES_MAX);
    Ok(entries.flatten().map(|entry| entry.file_name()).collect())
}

/// Removes files by the descriptor of their directory, if that belongs to `owner` and nobody else may
/// write there. A file that is not there counts as removed.
///
/// # Errors
/// When the directory is another one than expected, or a file cannot be removed.
pub fn remove(directory: &Path, owner: u32, names: &[OsString]) -> io::Result<()> {
    let place = directory;
    let directory = open_directory(place)?;
    let facts = directory.metadata()?;
    if !mapped_owner::is_owner_by(place, &facts, owner) || facts.mode() & 0o022 != 0 {
        let (uid, mode) = (facts.uid(), facts.mode() & 0o777);
        return Err(invalid(&format!(
            "the directory belongs to uid {uid} with mode {mode:03o}, not to uid {owner} alone"
        )));
    }
    for name in names {
        match unlinkat(&directory, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Renames a file to `NAME.corrupt` and logs why.
pub fn quarantine(path: &Path, why: &str) {
    let aside = quarantine_path(path);
    let shown = path.display();
    match std::fs::rename(path, &aside) {
        Ok(()) => warn!(
            "[gateway] {shown} cannot be understood ({why}): set aside as {}",
            aside.display()
        ),
        Err(error) => warn!(
            "[gateway] {shown} cannot be understood ({why}), nor set aside: {error}; going on without it"
        ),
    }
}

/// The name under which a file that cannot be understood is kept.
pub fn quarantine_path(path: &Path) -> PathBuf {
    with_suffix(path, ".corrupt")
}

/// The path with `suffix` after the file's whole name.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_of_ours_is_set_aside_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        assert_eq!(read_json::<u32>(&path, 100), None);
        std::fs::write(&path, "7").unwrap();
        assert_eq!(read_json::<u32>(&path, 100), Some(7));
        for text in ["", "{", "-1", "\0\u{1b}[2J", &"7".repeat(101)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_json::<u32>(&path, 100), None, "{text}");
            assert!(!path.exists());
            assert_eq!(
                std::fs::read_to_string(quarantine_path(&path)).unwrap(),
                text
            );
        }
        let elsewhere = dir.path().join("elsewhere");
        std::fs::write(&elsewhere, "7").unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(read_json::<u32>(&path, 100), None, "links are not followed");
        assert!(elsewhere.exists() && !path.exists());
    }

    #[test]
    fn a_file_of_somebody_else_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        std::fs::write(&path, "7").unwrap();
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
            return; // Only root can give a file away.
        }
        assert!(read(&path, 10).unwrap_err().to_string().contains("12345"));
        std::os::unix::fs::chown(dir.path(), Some(12_345), None).unwrap();
        assert_eq!(read(&path, 10).unwrap(), b"7");
        let own = dir.path().join("own");
        std::fs::write(&own, "8").unwrap();
        assert_eq!(read(&own, 10).unwrap(), b"8");
        std::fs::hard_link(&own, dir.path().join("link")).unwrap();
        let linked = read(&dir.path().join("link"), 10).unwrap_err();
        assert!(linked.to_string().contains("hard link"), "{linked}");
    }

    #[test]
    fn files_are_removed_only_from_the_expected_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "").unwrap();
        let (uid, names) = (geteuid().as_raw(), ["a".into(), "gone".into()]);
        let mode = |mode| {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
            std::fs::set_permissions(dir.path(), mode).unwrap();
        };
        mode(0o700);
        remove(dir.path(), uid + 1, &names).unwrap_err();
        mode(0o777);
        remove(dir.path(), uid, &names).unwrap_err();
        assert!(path.exists());
        mode(0o700);
        remove(dir.path(), uid, &names).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn a_pipe_or_a_directory_in_its_place_stops_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(read_json::<u32>(&path, 100), None);
        assert!(!path.exists());
        std::fs::create_dir(&path).unwrap();
        assert_eq!(read_json::<u32>(&path, 100), None);
    }
}
