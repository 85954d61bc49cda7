//! Replaces a program file: its name refers to a complete program at every moment, and the previous
//! one is kept in the same directory.

use std::ffi::OsString;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::{AccessFlags, Uid, User, access};

use crate::cli::{CliError, Exit};
use crate::config::regular_file;
use crate::os::process;
use crate::service::{as_user, more_rights};
use crate::state::atomic_file;
use crate::text::shell;

/// Below an error: how things stand.
const UNCHANGED: &str = "nothing was changed";

/// A new program in place of the previous one.
#[derive(Debug)]
pub struct Placed {
    pub program: PathBuf,
    /// Where the previous program is kept.
    pub previous: PathBuf,
    /// One update in a directory at a time: two would each keep the other's new program as the
    /// previous one.
    _lock: File,
}

/// Says early whether a program may be replaced; [`put`] says the same, later.
///
/// # Errors
/// [`Exit::Permission`] with the directory and who may write there.
pub fn may_replace(program: &Path) -> Result<(), CliError> {
    let dir = directory(program);
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| refusal(dir, error))?;
    let Some((place, uid)) = Uid::effective().is_root().then(|| strangers(dir)).flatten() else {
        return Ok(());
    };
    // Whoever can change it could put another directory in its place while root writes there.
    let shown = place.display();
    let (why, help) = match uid {
        0 => (
            format!("everybody can write to {shown}"),
            format!("chmod o-w {}", shell::word(&place)),
        ),
        uid => (
            format!("{shown} belongs to uid {uid}"),
            as_user(uid, "gatewayctl update FILE"),
        ),
    };
    let dir = dir.display();
    let message = format!("root does not write in {dir}: {why}");
    let error = Exit::Refused.error(message).and_line(UNCHANGED);
    Err(error.with_help(help))
}

/// The first directory on the way to `dir` that somebody other than root can change, and its owner.
fn strangers(dir: &Path) -> Option<(PathBuf, u32)> {
    dir.ancestors().find_map(|place| {
        let facts = std::fs::symlink_metadata(place).ok()?;
        // In a sticky directory nobody can move what belongs to root.
        let is_open = facts.mode() & 0o1002 == 0o002;
        (facts.uid() != 0 || is_open).then(|| (place.to_owned(), facts.uid()))
    })
}

fn refusal(dir: &Path, error: Errno) -> CliError {
    let why = match error {
        Errno::EROFS => "its file system is read-only".to_owned(),
        Errno::EACCES | Errno::EPERM => format!("{} may", owner(dir)),
        error => error.desc().to_owned(),
    };
    let message = format!("no permission to write in {}: {why}", dir.display());
    let help = if error == Errno::EROFS {
        "install the new version the way that the running one was installed"
    } else {
        more_rights()
    };
    let error = Exit::Permission.error(message).and_line(UNCHANGED);
    error.with_help(help)
}

/// The owner of a directory, by name where there is one.
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

/// Puts `candidate` in place of `program`, with its owner and mode. The program that `pid` runs is
/// kept as NAME.previous, even if its file was replaced before; without `pid` it is the file.
///
/// # Errors
/// [`Exit::Permission`], [`Exit::Refused`] during another update, [`Exit::Failed`]; the program is
/// as before then.
pub fn put(candidate: &Path, program: &Path, pid: Option<u32>) -> Result<Placed, CliError> {
    let dir = directory(program);
    let failed = |error: io::Error| match error.raw_os_error().map(Errno::from_raw) {
        Some(errno @ (Errno::EACCES | Errno::EPERM | Errno::EROFS)) => refusal(dir, errno),
        _ => {
            let message = format!("cannot put {} in place: {error}", program.display());
            Exit::Failed.error(message).and_line(UNCHANGED)
        }
    };
    let lock = atomic_file::open_directory(dir).map_err(failed)?;
    lock.try_lock().map_err(|error| match error {
        TryLockError::WouldBlock => {
            Exit::Refused.error(format!("another update in {} is under way", dir.display()))
        }
        TryLockError::Error(error) => failed(error),
    })?;
    let mut previous = OsString::from(program);
    previous.push(".previous");
    let previous = PathBuf::from(previous);
    let running = pid.map(|pid| PathBuf::from(format!("/proc/{pid}/exe")));
    // Where this user may not read the running program, its file has to do.
    let running = running.filter(|running| running.exists());
    let kept = running.as_deref().unwrap_or(program);
    // The file may be the new program already, as after an update that was cut off: what was kept then
    // is the way back.
    let is_new = || regular_file::same_content(kept, candidate).unwrap_or(false);
    // Before the running program takes its name: it may be the previous one, on the way back.
    let mut new = regular_file::open(candidate).map_err(failed)?;
    if !previous.is_file() || !is_new() {
        let mut kept = regular_file::open(kept).map_err(failed)?;
        copy(&mut kept, &previous, program).map_err(failed)?;
    }
    if std::fs::canonicalize(candidate).map_err(failed)? != program {
        copy(&mut new, program, program).map_err(failed)?;
    }
    Ok(Placed {
        program: program.to_owned(),
        previous,
        _lock: lock,
    })
}

impl Placed {
    /// Puts the previous program back under its name.
    ///
    /// # Errors
    /// When the file cannot be renamed; the new one is then still in place.
    pub fn back(&self) -> io::Result<()> {
        std::fs::rename(&self.previous, &self.program)?;
        atomic_file::open_directory(directory(&self.program))?.sync_all()
    }

    /// Whether a process runs the file that has the program's name now; false where that cannot be
    /// seen.
    pub fn is_run_by(&self, pid: u32) -> bool {
        process::same_file(Path::new(&format!("/proc/{pid}/exe")), &self.program)
    }
}

/// Copies a program, with owner and mode of `like`. If that fails, `to` is as before.
fn copy(from: &mut File, to: &Path, like: &Path) -> io::Result<()> {
    let dir = directory(to);
    let model = std::fs::metadata(like)?;
    let temporary = tempfile::Builder::new()
        .prefix(".tmp-gateway-")
        .tempfile_in(dir)?;
    let mut file = temporary.as_file();
    io::copy(from, &mut file)?;
    let metadata = file.metadata()?;
    if (metadata.uid(), metadata.gid()) != (model.uid(), model.gid()) {
        fchown(file, Some(model.uid()), Some(model.gid()))?;
    }
    // After the owner: a change of owner may clear mode bits.
    file.set_permissions(model.permissions())?;
    file.sync_all()?;
    // Closed before it gets its name: a program that is open for writing cannot be executed.
    temporary.into_temp_path().persist(to)?;
    atomic_file::open_directory(dir)?.sync_all()
}

fn directory(program: &Path) -> &Path {
    program
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

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
    fn the_new_program_is_in_place_with_the_mode_of_the_old_and_can_be_taken_back() {
        let (dir, program, candidate) = files();
        let placed = put(&candidate, &program, None).unwrap();
        assert_eq!(text(&program), "new");
        assert_eq!(text(&placed.previous), "old");
        assert_eq!(
            std::fs::metadata(&program).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert_eq!(
            put(&candidate, &program, None).unwrap_err().exit,
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
    fn the_running_program_is_kept_even_if_its_file_was_replaced_before() {
        let (_dir, program, _) = files();
        let placed = put(&program, &program, Some(std::process::id())).unwrap();
        assert_eq!(text(&program), "old");
        assert_eq!(
            std::fs::read(&placed.previous).unwrap(),
            std::fs::read(std::env::current_exe().unwrap()).unwrap()
        );
    }

    #[test]
    fn the_same_file_again_does_not_take_the_place_of_the_previous_program() {
        let (_dir, program, candidate) = files();
        drop(put(&candidate, &program, None).unwrap());
        let again = put(&candidate, &program, None).unwrap();
        assert_eq!(text(&again.previous), "old");
        again.back().unwrap();
        assert_eq!(text(&program), "old");
    }

    #[test]
    fn the_previous_program_can_be_put_in_place_again() {
        let (_dir, program, candidate) = files();
        let placed = put(&candidate, &program, None).unwrap();
        let previous = placed.previous.clone();
        drop(placed);
        let back = put(&previous, &program, None).unwrap();
        assert_eq!(
            (text(&program), text(&back.previous)),
            ("old".into(), "new".into())
        );
    }

    #[test]
    fn a_missing_permission_is_named_with_the_directory_and_who_may_write_there() {
        let error = refusal(Path::new("/"), Errno::EACCES);
        assert_eq!(error.exit, Exit::Permission);
        let expected = "no permission to write in /: only root (uid 0) may";
        assert!(error.message.starts_with(expected), "{error:?}");
        let read_only = refusal(Path::new("/"), Errno::EROFS).message;
        assert!(read_only.contains("read-only"), "{read_only}");
        let error = may_replace(Path::new("/nonexistent/gateway")).unwrap_err();
        assert_eq!(error.exit, Exit::Permission);
    }
}
