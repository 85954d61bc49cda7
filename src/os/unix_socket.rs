//! Unix sockets at paths of any length.
//!
//! An address of the kernel holds about a hundred bytes. A longer path is reached through a
//! descriptor of its directory: a short name elsewhere, as in `/tmp`, could be taken by anybody.
//!
//! A socket has its permission bits from the moment when its name is there: the owner of the
//! directory could put another file in its place before a chmod by path.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{self, AddressFamily, UnixAddr};

use super::platform;

/// An address has 108 bytes on Linux and 104 on macOS, its end included; we stay below both.
const ADDRESS_MAX: usize = 100;

/// Listens at `path`, where there must be nothing, with these permission bits.
pub fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    with_address(path, |address| bind_address(address, mode))
}

/// Listens at a path that fits into an address, and is the name of the socket for everybody.
///
/// # Errors
/// Also when the path is too long.
pub fn bind_address(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let address = SocketAddr::from_pathname(path)?;
    let bind = || UnixListener::bind_addr(&address);
    match platform::with_umask(!mode & 0o777, bind) {
        Some(bound) => bound,
        // A container's system call filter, and macOS, know one umask for all threads.
        None => {
            let listener = bind()?;
            platform::set_socket_mode(path, mode)?;
            Ok(listener)
        }
    }
}

/// Calls `with` with a short path that leads to `path` through a descriptor of its directory: all
/// that is done there is done in this one directory, whatever its path leads to meanwhile.
pub fn in_directory_of<T>(path: &Path, with: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => platform::with_entry_of(dir, name, with),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
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
    if path.as_os_str().len() > ADDRESS_MAX {
        in_directory_of(path, with)
    } else {
        with(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        let facts = std::fs::symlink_metadata(path).unwrap();
        facts.permissions().mode() & 0o7777
    }

    #[test]
    fn a_socket_is_born_with_its_mode_and_the_process_keeps_its_umask() {
        let dir = tempfile::tempdir().unwrap();
        let before = std::fs::File::create(dir.path().join("before")).unwrap();
        for wanted in [0o600, 0o660, 0o666] {
            let path = dir.path().join(format!("{wanted:o}"));
            let listener = bind_address(&path, wanted).unwrap();
            assert_eq!(mode(&path), wanted);
            drop(listener);
        }
        let after = std::fs::File::create(dir.path().join("after")).unwrap();
        let bits = |file: &std::fs::File| file.metadata().unwrap().permissions().mode();
        assert_eq!(bits(&before), bits(&after));
    }

    #[test]
    fn where_the_mode_must_be_set_afterwards_it_is_set_on_a_socket_only() {
        let dir = tempfile::tempdir().unwrap();
        let (socket, file) = (dir.path().join("socket"), dir.path().join("file"));
        let _listener = UnixListener::bind(&socket).unwrap();
        platform::set_socket_mode(&socket, 0o660).unwrap();
        assert_eq!(mode(&socket), 0o660);
        std::fs::write(&file, "").unwrap();
        let before = mode(&file);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&socket, &link).unwrap();
        for other in [&file, &link] {
            assert!(platform::set_socket_mode(other, 0o666).is_err());
        }
        assert_eq!((mode(&file), mode(&socket)), (before, 0o660));
    }

    #[test]
    fn a_path_longer_than_any_address_is_bound_and_reached_where_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(150));
        std::fs::create_dir(&long).unwrap();
        for path in [dir.path().join("short"), long.join("long")] {
            let listener = bind(&path, 0o600).unwrap();
            assert_eq!(mode(&path), 0o600);
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
