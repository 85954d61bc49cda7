//! Removes a directory with all that a less privileged user has put there.
//!
//! Directories may be nested deeper than descriptors or the stack allow. So nothing descends: what
//! lies in a directory below is brought up, until everything lies in the first one. No symbolic link
//! is followed.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

/// So many directories are removed: a process that makes new ones all the time would otherwise be
/// followed for ever.
const DIRECTORIES_MAX: usize = 1_000_000;

/// Removes a directory and everything in it. One that is not there is fine.
///
/// # Errors
/// When something cannot be removed, or more and more appears.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    let top = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
        .open(path);
    let top = match top {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        top => top?,
    };
    let mut brought_up = 0;
    loop {
        let names = names(&top)?;
        if names.is_empty() {
            return std::fs::remove_dir(path);
        }
        for name in names {
            if !remove_entry(&top, &name)? {
                empty(&top, &name, &mut brought_up)?;
            }
        }
    }
}

/// Removes what is no directory, or an empty one. False for a directory with something in it.
fn remove_entry(directory: &File, name: &OsStr) -> io::Result<bool> {
    match unlinkat(directory, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(true),
        // Linux says the one for a directory, POSIX the other.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(error) => return Err(error.into()),
    }
    match unlinkat(directory, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Empties a directory of `top`: the directories in it are brought up.
fn empty(top: &File, name: &OsStr, brought_up: &mut usize) -> io::Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let directory: File = openat(top, name, flags, Mode::empty())?.into();
    for inner in names(&directory)? {
        while !remove_entry(&directory, &inner)? {
            *brought_up += 1;
            if *brought_up > DIRECTORIES_MAX {
                let why = "directories are made there as fast as they are removed";
                return Err(io::Error::other(why));
            }
            let above = format!(".removed-{}-{brought_up}", std::process::id());
            match renameat(&directory, inner.as_os_str(), top, above.as_str()) {
                Ok(()) => break,
                // Somebody has put that name there.
                Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// The names in a directory that is open.
fn names(directory: &File) -> io::Result<Vec<OsString>> {
    let entries = std::fs::read_dir(format!("/proc/self/fd/{}", directory.as_raw_fd()))?;
    entries.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    use nix::sys::stat::mkdirat;

    use super::*;

    #[test]
    fn a_tree_deeper_than_there_are_descriptors_is_removed_and_no_link_is_followed() {
        let top = tempfile::tempdir().unwrap();
        let kept = top.path().join("kept");
        std::fs::create_dir(&kept).unwrap();
        std::fs::write(kept.join("file"), "").unwrap();
        let tree = top.path().join("tree");
        std::fs::create_dir(&tree).unwrap();
        std::os::unix::fs::symlink(&kept, tree.join("link")).unwrap();
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let descriptors = hard.min(1_000);
        setrlimit(Resource::RLIMIT_NOFILE, descriptors, hard).unwrap();
        let mut at = File::open(&tree).unwrap();
        for _ in 0..descriptors + 10 {
            mkdirat(&at, "d", Mode::S_IRWXU).unwrap();
            std::fs::write(format!("/proc/self/fd/{}/f", at.as_raw_fd()), "").unwrap();
            let below = openat(&at, "d", OFlag::O_RDONLY, Mode::empty()).unwrap();
            at = below.into();
        }
        drop(at);
        remove_tree(&tree).unwrap();
        assert!(!tree.exists() && kept.join("file").exists());
        remove_tree(&tree).unwrap();
        assert!(remove_tree(&kept.join("file")).is_err());
    }
}
