//! A program file is exchanged: at every moment there is a whole one under its name, and the
//! previous one stays beside it.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, User, access};

use crate::cli::error::WITH_SUDO;
use crate::cli::{CliError, Exit};
use crate::os::process;

/// A new program in place of the previous one.
#[derive(Debug)]
pub struct Placed {
    program: PathBuf,
    previous: PathBuf,
    /// One update of a folder at a time: two would each keep the other's new program as the
    /// previous one.
    _lock: File,
}

/// Says early whether a program may be replaced; [`put`] says the same, later.
///
/// # Errors
/// [`Exit::Permission`] with the folder and who may.
pub fn may_replace(program: &Path) -> Result<(), CliError> {
    let dir = folder(program);
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| refusal(dir, error))
}

fn refusal(dir: &Path, error: Errno) -> CliError {
    let why = match error {
        Errno::EROFS => "its file system is read-only".to_owned(),
        Errno::EACCES | Errno::EPERM => format!("{} may", owner(dir)),
        error => error.desc().to_owned(),
    };
    let message = format!(
        "no permission to write in {}: {why}\nnothing was changed",
        dir.display()
    );
    let help = if error == Errno::EROFS {
        "install the new version the way that the running one was installed"
    } else {
        WITH_SUDO
    };
    Exit::Permission.error(message).with_help(help)
}

/// The owner of a folder, by name where there is one.
fn owner(dir: &Path) -> String {
    let Ok(metadata) = std::fs::metadata(dir) else {
        return "nobody".to_owned();
    };
    let uid = Uid::from_raw(metadata.uid());
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("only {} (uid {uid})", user.name),
        _ => format!("only uid {uid}"),
    }
}

/// Puts `candidate` in place of `program`, with its owner and mode. What `pid` runs is kept as
/// NAME.previous, also when the file was exchanged under it before.
///
/// # Errors
/// [`Exit::Permission`], [`Exit::Refused`] during another update, [`Exit::Failed`]; the program is
/// as before then.
pub fn put(candidate: &Path, program: &Path, pid: u32) -> Result<Placed, CliError> {
    let dir = folder(program);
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => refusal(dir, errno),
        _ => Exit::Failed.error(format!(
            "cannot put {} in place: {error}\nnothing was changed",
            program.display()
        )),
    };
    let lock = File::open(dir).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(
                Exit::Refused.error(format!("another update in {} is under way", dir.display()))
            );
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    let previous = beside(program);
    let running = PathBuf::from(format!("/proc/{pid}/exe"));
    // Not readable for us, it is what lies under the name.
    let kept = if running.exists() {
        running.as_path()
    } else {
        program
    };
    copy(kept, &previous, program).map_err(failed)?;
    if std::fs::canonicalize(candidate).map_err(failed)? != program {
        copy(candidate, program, program).map_err(failed)?;
    }
    Ok(Placed {
        program: program.to_owned(),
        previous,
        _lock: lock,
    })
}

impl Placed {
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// Where the previous program is kept.
    pub fn previous(&self) -> &Path {
        &self.previous
    }

    /// Puts the previous program back under its name.
    ///
    /// # Errors
    /// Whatever the file system says; the new one is then still in place.
    pub fn back(&self) -> io::Result<()> {
        std::fs::rename(&self.previous, &self.program)?;
        File::open(folder(&self.program))?.sync_all()
    }

    /// Whether a process runs what lies under the program's name now; where that cannot be seen, it
    /// does not.
    pub fn is_run_by(&self, pid: u32) -> bool {
        process::same_file(Path::new(&format!("/proc/{pid}/exe")), &self.program)
    }
}

/// Copies a program so that `to` is whole or as before, with owner and mode of `like`.
fn copy(from: &Path, to: &Path, like: &Path) -> io::Result<()> {
    let dir = folder(to);
    let model = std::fs::metadata(like)?;
    let file = tempfile::Builder::new()
        .prefix(".tmp-gateway-")
        .tempfile_in(dir)?;
    io::copy(&mut File::open(from)?, &mut file.as_file())?;
    let metadata = file.as_file().metadata()?;
    if (metadata.uid(), metadata.gid()) != (model.uid(), model.gid()) {
        chown(file.path(), Some(model.uid()), Some(model.gid()))?;
    }
    // After the owner: a change of owner may take bits away.
    file.as_file()
        .set_permissions(std::fs::Permissions::from_mode(
            model.permissions().mode() & 0o7777,
        ))?;
    file.as_file().sync_all()?;
    // Closed before it gets its name: a program that is open for writing cannot be executed.
    file.into_temp_path()
        .persist(to)
        .map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

fn folder(program: &Path) -> &Path {
    program
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("/"))
}

/// NAME.previous
fn beside(program: &Path) -> PathBuf {
    let mut name: OsString = program.as_os_str().to_owned();
    name.push(".previous");
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        let (program, candidate) = (home.join("gateway"), home.join("new"));
        std::fs::write(&program, "old").unwrap();
        std::fs::write(&candidate, "new").unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, program, candidate)
    }

    fn text(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn the_new_one_is_in_place_with_the_mode_of_the_old_and_can_be_taken_back() {
        let (dir, program, candidate) = files();
        let placed = put(&candidate, &program, u32::MAX).unwrap();
        assert_eq!(
            (text(&program), text(placed.previous())),
            ("new".into(), "old".into())
        );
        assert_eq!(
            std::fs::metadata(&program).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            put(&candidate, &program, u32::MAX).unwrap_err().exit,
            Exit::Refused,
            "one update at a time"
        );
        assert!(!placed.is_run_by(u32::MAX) && !placed.is_run_by(std::process::id()));
        placed.back().unwrap();
        assert_eq!(text(&program), "old");
        assert_eq!(
            std::fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing else is left"
        );
    }

    #[test]
    fn what_runs_is_kept_although_its_file_was_exchanged_before() {
        let (_dir, program, _) = files();
        let placed = put(&program, &program, std::process::id()).unwrap();
        assert_eq!(text(&program), "old");
        assert_eq!(
            std::fs::read(placed.previous()).unwrap(),
            std::fs::read(std::env::current_exe().unwrap()).unwrap()
        );
    }

    #[test]
    fn a_missing_permission_is_named_with_the_folder_and_who_may() {
        let error = refusal(Path::new("/"), Errno::EACCES);
        assert_eq!(error.exit, Exit::Permission);
        assert!(
            error
                .message
                .starts_with("no permission to write in /: only root (uid 0) may"),
            "{error:?}"
        );
        assert!(
            refusal(Path::new("/"), Errno::EROFS)
                .message
                .contains("read-only")
        );
        assert_eq!(
            may_replace(Path::new("/nonexistent/gateway"))
                .unwrap_err()
                .exit,
            Exit::Permission
        );
    }
}
