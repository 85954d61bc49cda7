//! The file of a program: as it was before it was replaced, and whether two paths lead to it.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What the kernel appends to the name of a program whose file was replaced (proc(5),
/// /proc/PID/exe).
const DELETED: &str = " (deleted)";

/// The path of a program as it was before its file was replaced.
pub fn before_replaced(path: &Path) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    OsStr::from_bytes(bytes.strip_suffix(DELETED.as_bytes()).unwrap_or(bytes)).into()
}

/// Whether a user can put another file in the place of a program: it is theirs, or a directory above
/// it, or everybody may write there.
pub fn can_replace(uid: u32, program: &Path) -> bool {
    let writes = |place: &Path| {
        std::fs::symlink_metadata(place).is_ok_and(|facts| {
            let shared = facts.mode() & 0o002 != 0 && facts.mode() & 0o1000 == 0;
            facts.uid() == uid || shared
        })
    };
    let found = std::fs::canonicalize(program);
    uid != 0 && found.is_ok_and(|found| found.ancestors().any(writes))
}

/// Whether two paths lead to one file.
pub fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .map(|file| (file.dev(), file.ino()))
            .ok()
    };
    identity(one).is_some_and(|found| identity(other) == Some(found))
}

/// The file of this process's own program, as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct OwnProgram {
    path: PathBuf,
    /// Device, inode and time: a file that is written over keeps the first two.
    file: (u64, u64, i64),
}

impl OwnProgram {
    /// None where the system does not tell it.
    pub fn look() -> Option<Self> {
        let path = std::env::current_exe().ok()?;
        let file = Self::file(&path)?;
        Some(Self { path, file })
    }

    /// Whether its path does not lead to that file any more.
    pub fn is_replaced(&self) -> bool {
        Self::file(&self.path) != Some(self.file)
    }

    fn file(path: &Path) -> Option<(u64, u64, i64)> {
        let file = std::fs::metadata(path).ok()?;
        Some((file.dev(), file.ino(), file.mtime()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_directory_above_a_program_can_replace_it() {
        const USER: u32 = 54_321;
        let top = tempfile::tempdir().unwrap();
        let home = top.path().join("home");
        std::fs::create_dir(&home).unwrap();
        let program = home.join("gateway");
        std::fs::write(&program, "").unwrap();
        let me = nix::unistd::geteuid();
        assert_eq!(can_replace(me.as_raw(), &program), !me.is_root());
        if me.is_root() {
            assert!(!can_replace(USER, &program) && !can_replace(USER, Path::new("/bin/sh")));
            std::os::unix::fs::chown(&home, Some(USER), None).unwrap();
            assert!(can_replace(USER, &program));
        }
    }
}
