//! State files that may be damaged: one that cannot be understood is set aside with a warning, and
//! never prevents a start.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tracing::warn;

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

/// Opens a regular file without following a symbolic link, and without waiting for the other side
/// of a pipe.
///
/// # Errors
/// `InvalidData` when it is a symbolic link or no regular file.
pub fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = options.custom_flags(flags).open(path).map_err(|error| {
        if error.raw_os_error() == Some(libc::ELOOP) {
            invalid("it is a symbolic link")
        } else {
            error
        }
    })?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(invalid("it is not a regular file"))
    }
}

/// Reads a file of at most `limit` bytes, which [`open`] opens.
///
/// # Errors
/// `InvalidData` when it is longer, or as [`open`].
pub fn read(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let file = open(path, OpenOptions::new().read(true))?;
    let mut text = Vec::new();
    file.take(limit + 1).read_to_end(&mut text)?;
    if text.len() as u64 > limit {
        Err(invalid("it is too long"))
    } else {
        Ok(text)
    }
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
