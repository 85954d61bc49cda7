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

/// Whether two paths lead to one file.
pub fn same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        std::fs::metadata(path)
            .map(|file| (file.dev(), file.ino()))
            .ok()
    };
    identity(one).is_some_and(|found| identity(other) == Some(found))
}
