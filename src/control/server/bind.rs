//! The control socket in the file system.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};

use crate::os::unix_socket;
use crate::state::private_dir;

/// Binds the control socket, 0600, in a directory where only this user can write. An old socket is
/// replaced: the caller holds the lock, so no process serves it.
///
/// # Errors
/// [`io::ErrorKind::AlreadyExists`] when there is something that is not a socket.
pub fn bind(path: &Path) -> io::Result<StdListener> {
    if let Some(parent) = path.parent() {
        private_dir::make(parent)?;
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
    let listener = unix_socket::bind(&own, 0o600)?;
    std::fs::rename(&own, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The names that a socket of [`bind`] may have: the kernel lists it with the one that it was bound
/// with.
pub fn names(bound: &Path) -> [PathBuf; 2] {
    [bound.with_extension("sock"), bound.to_owned()]
}
