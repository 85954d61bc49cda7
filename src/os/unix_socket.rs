//! Unix sockets at paths of any length.
//!
//! An address of the kernel holds about a hundred bytes. A longer path is reached through a
//! descriptor of its directory: a short name elsewhere, as in `/tmp`, could be taken by anybody.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{self, AddressFamily, UnixAddr};

use super::platform;

/// An address has 108 bytes on Linux and 104 on macOS, its end included; we stay below both.
const ADDRESS_MAX: usize = 100;

/// Listens at `path`, where there must be nothing.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    with_address(path, |address| UnixListener::bind(address))
}

/// Connects without waiting; the stream does not block.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when the queue of the listener is full: its process accepts nobody.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    let socket = platform::stream_socket(AddressFamily::Unix)?;
    with_address(path, |address| {
        Ok(socket::connect(
            socket.as_raw_fd(),
            &UnixAddr::new(address)?,
        )?)
    })?;
    Ok(socket.into())
}

/// Calls `with` with a path that leads to `path` and fits into an address, for as long as the call
/// takes.
fn with_address<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) if path.as_os_str().len() > ADDRESS_MAX => {
            platform::with_entry_of(dir, name, with)
        }
        _ => with(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn a_path_longer_than_any_address_is_bound_and_reached_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(150));
        std::fs::create_dir(&long).unwrap();
        for path in [dir.path().join("short"), long.join("long")] {
            let listener = bind(&path).unwrap();
            assert!(path.exists());
            let mut client = connect(&path).unwrap();
            client.write_all(b"x").unwrap();
            let mut byte = [0];
            listener.accept().unwrap().0.read_exact(&mut byte).unwrap();
            drop(listener);
            let refused = connect(&path).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        }
        let missing = connect(&long.join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
        let missing = connect(&dir.path().join("y".repeat(150)).join("none")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
