//! The control socket in the file system.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

/// Binds the control socket, 0600, its directory 0700 when it has to be made. An old socket is
/// replaced: the caller holds the lock, so no process serves it.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is something that is not a socket.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    if let Some(parent) = path.parent().filter(|parent| !parent.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            let message = format!(
                "{} is not a socket: remove it or choose another --state-dir",
                path.display()
            );
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    // The rename is atomic: a client that connects meanwhile reaches the old socket or this one.
    let own = path.with_extension(std::process::id().to_string());
    let _ = std::fs::remove_file(&own);
    let listener = StdListener::bind(&own)?;
    std::fs::set_permissions(&own, Permissions::from_mode(0o600))?;
    std::fs::rename(&own, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The names that a socket of [`bind`] may have: the kernel lists it with the one that it was bound
/// with.
pub fn names(bound: &Path) -> [PathBuf; 2] {
    [bound.with_extension("sock"), bound.to_owned()]
}
