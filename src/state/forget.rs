//! The end of a state directory whose gateway has ended.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::lock::{Lock, LockError};
use super::paths::Paths;
use super::remove_tree::remove_tree;

/// Why a state directory stays.
#[derive(Debug, thiserror::Error)]
pub enum NotForgotten {
    #[error("it runs")]
    Runs,
    #[error("it is no directory of a gateway: it has no gateway.lock")]
    Foreign,
    #[error("it belongs to another user")]
    OfAnotherUser,
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Removes what a gateway left that has ended: its state directory, with the record, and the directory
/// of its control socket. Nobody can start it meanwhile: its lock is held to the end.
///
/// # Errors
/// Why it stays.
pub fn forget(paths: &Paths, dry_run: bool) -> Result<(), NotForgotten> {
    let facts = std::fs::symlink_metadata(&paths.state)?;
    // Where a link leads is not looked at.
    if !facts.is_dir() || !Lock::is_in(&paths.state) {
        return Err(NotForgotten::Foreign);
    }
    if facts.uid() != nix::unistd::geteuid().as_raw() {
        return Err(NotForgotten::OfAnotherUser);
    }
    let _lock = Lock::take(&paths.state).map_err(|error| match error {
        LockError::Held => NotForgotten::Runs,
        LockError::Io(error) => NotForgotten::Io(error),
        foreign @ LockError::Foreign(_) => NotForgotten::Io(io::Error::other(foreign)),
    })?;
    if dry_run {
        return Ok(());
    }
    let runtime = paths
        .control
        .parent()
        .filter(|dir| !dir.starts_with(&paths.state));
    if let Some(runtime) = runtime.filter(|dir| is_own_directory(dir)) {
        remove_tree(runtime)?;
    }
    // Under another name: who starts it now begins with a directory of its own, which is not removed.
    let aside = aside(&paths.state);
    std::fs::rename(&paths.state, &aside)?;
    Ok(remove_tree(&aside)?)
}

/// A name beside a directory that is the name of no instance.
fn aside(dir: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(dir.file_name().unwrap_or_default());
    name.push(format!(".forgotten-{}", std::process::id()));
    dir.with_file_name(name)
}

fn is_own_directory(dir: &Path) -> bool {
    let facts = std::fs::symlink_metadata(dir);
    facts.is_ok_and(|facts| facts.is_dir() && facts.uid() == nix::unistd::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_and_what_is_none_of_ours_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("a");
        let paths = Paths::in_state_dir(&state);
        std::fs::create_dir_all(state.join("bundles")).unwrap();
        assert!(matches!(forget(&paths, false), Err(NotForgotten::Foreign)));
        let runs = Lock::take(&state).unwrap();
        assert!(matches!(forget(&paths, false), Err(NotForgotten::Runs)));
        drop(runs);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&state, &link).unwrap();
        let by_link = Paths::in_state_dir(&link);
        assert!(matches!(
            forget(&by_link, false),
            Err(NotForgotten::Foreign)
        ));
        forget(&paths, true).unwrap();
        assert!(state.exists());
        forget(&paths, false).unwrap();
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            1,
            "the link"
        );
    }
}
