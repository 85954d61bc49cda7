//! One owner: `gateway.lock`, locked with flock for life.
//!
//! The file is empty and is never renamed, unlinked or unlocked, only closed: if a lock file is
//! renamed or unlinked, a third process can take a lock in between.

use std::fs::{File, TryLockError};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::untrusted_file;

const NAME: &str = "gateway.lock";

/// Held for as long as it lives, here or in a process that got the same description. Close-on-exec,
/// so no sidecar can keep it.
#[derive(Debug)]
pub struct Lock(File);

/// Why the lock was not taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("another gateway holds the lock")]
    Held,
    /// A descriptor that was passed on does not lead to this directory's lock.
    #[error("the lock that was passed on is not {0}")]
    Foreign(std::path::PathBuf),
    /// The file cannot be opened or locked.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Lock {
    /// Takes the lock in `state_dir`, without waiting.
    pub fn take(state_dir: &Path) -> Result<Self, LockError> {
        Self::locked(open(state_dir)?)
    }

    /// Waits in the kernel's queue until the lock is free; blocks its thread.
    pub fn wait(state_dir: &Path) -> io::Result<Self> {
        let file = open(state_dir)?;
        loop {
            match file.lock() {
                Ok(()) => return Ok(Self(file)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Takes over the file description that a predecessor holds: the lock is free when both
    /// processes have closed it.
    ///
    /// # Errors
    /// [`LockError::Foreign`] when `fd` is not the lock of `state_dir`; [`LockError::Held`] when it
    /// is another description than the one that is locked.
    pub fn from_fd(fd: OwnedFd, state_dir: &Path) -> Result<Self, LockError> {
        let path = state_dir.join(NAME);
        let file = File::from(fd);
        let (passed, here) = (file.metadata()?, std::fs::symlink_metadata(&path)?);
        if (passed.dev(), passed.ino()) != (here.dev(), here.ino()) {
            return Err(LockError::Foreign(path));
        }
        // Locking a locked description again changes nothing; on any other one it fails.
        Self::locked(file)
    }

    fn locked(file: File) -> Result<Self, LockError> {
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::Held),
            Err(TryLockError::Error(error)) => Err(error.into()),
        }
    }
}

/// Anything but a regular file of ours may have been put there to keep every gateway from starting.
fn open(state_dir: &Path) -> io::Result<File> {
    let path = state_dir.join(NAME);
    // For reading too, which opens a pipe without waiting for its other side, so that it is named.
    let opened = untrusted_file::open(&path, OFlag::O_RDWR | OFlag::O_CREAT);
    opened.map_err(|error| match error.kind() {
        kind @ (io::ErrorKind::InvalidData | io::ErrorKind::WouldBlock) => {
            io::Error::new(kind, format!("its {NAME} cannot be opened: {error}"))
        }
        _ => error,
    })
}

/// For handing the description to a successor.
impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Held)));
        drop(first);
        Lock::take(dir.path()).unwrap();
        assert!(dir.path().join(NAME).exists());
    }

    #[test]
    fn a_description_that_was_passed_on_keeps_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let old = Lock::take(dir.path()).unwrap();
        let new = Lock::from_fd(old.as_fd().try_clone_to_owned().unwrap(), dir.path()).unwrap();
        drop(old);
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Held)));

        let another = open(dir.path()).unwrap();
        assert!(matches!(
            Lock::from_fd(another.into(), dir.path()),
            Err(LockError::Held)
        ));
        let stranger = tempfile::tempfile().unwrap();
        assert!(matches!(
            Lock::from_fd(stranger.into(), dir.path()),
            Err(LockError::Foreign(_))
        ));

        drop(new);
        Lock::take(dir.path()).unwrap();
    }
}
