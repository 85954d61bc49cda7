//! Files that are whole or absent, never half written.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// How many names are tried for a temporary file: threads of one process and an earlier one with its
/// pid may have some.
const TRIES: u32 = 1_000;

/// Writes `bytes` to `path` so that a reader, or a machine that loses power, sees the old text or
/// the new one: temporary file beside it, fsync, rename, fsync of the directory. After an error the
/// old file is still there.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    write_for(path, bytes, mode, None)
}

/// As [`write()`] but without fsync, which waits for a busy disk: for a record that names its boot
/// and counts for nothing after a loss of power.
pub fn write_for_this_boot(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace(path, bytes, mode, None, |_| Ok(()))
}

/// As [`write()`], and gives the file to `owner` (user and group) before it has its name. Only root
/// can give files away.
pub fn write_for(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    replace(path, bytes, mode, owner, File::sync_all)
}

/// As [`write_for`], to `name` in this directory, whatever its path leads to by now.
pub fn write_in(
    directory: &File,
    name: &OsStr,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    replace_in(directory, name, bytes, mode, owner, File::sync_all)
}

/// Whether a disk takes nothing now, which may change.
pub fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    matches!(
        error.kind(),
        StorageFull | QuotaExceeded | ReadOnlyFilesystem
    )
}

fn replace(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
    sync: fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    // By descriptor: the owner of a directory above may put another one in its place meanwhile.
    let directory = open_parent(path)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    replace_in(&directory, name, bytes, mode, owner, sync)
}

fn replace_in(
    directory: &File,
    name: &OsStr,
    bytes: &[u8],
    mode: u32,
    owner: Option<(u32, u32)>,
    sync: fn(&File) -> io::Result<()>,
) -> io::Result<()> {
    let (temporary, mut file) = temporary_in(directory)?;
    let written = (|| {
        file.write_all(bytes)?;
        // Before the bits: until then, only its owner may read what may be secret.
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::fchown(&file, Some(uid), Some(gid))?;
        }
        file.set_permissions(Permissions::from_mode(mode))?;
        sync(&file)?;
        renameat(directory, temporary.as_str(), directory, name)?;
        sync(directory)
    })();
    if written.is_err() {
        // It has no name any more when only the last step failed.
        let _ = unlinkat(directory, temporary.as_str(), UnlinkatFlags::NoRemoveDir);
    }
    written
}

/// The directory that a file lies in.
pub fn open_parent(file: &Path) -> io::Result<File> {
    let directory = file
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    open_directory(directory.unwrap_or(Path::new(".")))
}

/// A directory, wherever symbolic links lead.
pub fn open_directory(directory: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(directory)
}

/// A new file in a directory, and its name.
fn temporary_in(directory: &File) -> io::Result<(String, File)> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    for number in 0..TRIES {
        let name = format!(".tmp-{}-{number}", std::process::id());
        match openat(
            directory,
            name.as_str(),
            flags,
            Mode::S_IRUSR | Mode::S_IWUSR,
        ) {
            Ok(file) => return Ok((name, file.into())),
            Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// Removes a file, if there is one.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The permission bits of a file or directory, for tests.
#[cfg(test)]
pub fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_the_file_whole_with_its_mode_and_leaves_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        write(&path, b"one", 0o600).unwrap();
        write(&path, b"two", 0o640).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(mode(&path), 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write(&dir.path().join("no/such"), b"x", 0o600).is_err());
    }
}
