//! The control socket in the file system.

use std::io;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::oneshot;

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
    let own = own_name(path);
    let _ = std::fs::remove_file(&own);
    let listener = unix_socket::bind(&own, 0o600)?;
    std::fs::rename(&own, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The name that a socket is bound with before it takes its place: of this process, and of this socket,
/// for another one beside it may be made at the same time.
fn own_name(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!("-{}", std::process::id()));
    name.into()
}

/// How long a socket may take to be made before it is given up: its disk stands still by then, and
/// whoever wants it there has other trouble.
const GIVEN_UP: Duration = Duration::from_secs(600);

/// As [`bind`], by another thread: the disk that the socket lies on may not answer, and who decides does
/// not wait for it. The second value blocks for as long as it is asked to, until the socket is there or
/// cannot be made.
///
/// # Errors
/// Those of [`bind`]; also when the disk does not answer at all.
pub fn bind_aside(
    path: &Path,
) -> (
    impl Future<Output = io::Result<UnixListener>> + Send + use<>,
    impl FnOnce(Duration) + use<>,
) {
    let path = path.to_owned();
    let (done, is_done) = sync_channel::<()>(0);
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("bind".to_owned());
    let started = thread.spawn(move || {
        // Who gave up needs no socket.
        let _ = tell.send(bind(&path));
        drop(done);
    });
    let bound = async move {
        started?;
        let bound = tokio::time::timeout(GIVEN_UP, told).await;
        let bound = bound.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
        UnixListener::from_std(bound.map_err(|_| io::ErrorKind::BrokenPipe)??)
    };
    // Nothing is sent: the other end is dropped.
    let wait = move |limit| {
        let _ = is_done.recv_timeout(limit);
    };
    (bound, wait)
}

/// The names that a socket of [`bind`] may have: the kernel lists it with the one that it was bound
/// with.
pub fn names(bound: &Path) -> [PathBuf; 2] {
    [bound.with_extension("sock"), bound.to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They shared the name that they are bound with, so that one took the place of the other, and a
    /// gateway that took the service back could not be reached any more.
    #[tokio::test]
    async fn two_sockets_beside_each_other_are_made_at_once() {
        let dir = tempfile::tempdir().unwrap();
        for round in 0..200 {
            let paths = ["sock", "move"].map(|end| dir.path().join(format!("{round}.{end}")));
            let made = paths.each_ref().map(|path| bind_aside(path).0);
            for (made, path) in made.into_iter().zip(&paths) {
                let listener = made.await.unwrap();
                let client = std::os::unix::net::UnixStream::connect(path).unwrap();
                listener.accept().await.unwrap();
                drop(client);
                let bound = listener.local_addr().unwrap();
                let names = names(bound.as_pathname().unwrap());
                assert!(names.contains(&paths[0]), "{names:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_socket_made_aside_is_there_when_it_was_waited_for() {
        const LONG: Duration = Duration::from_secs(60);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("control.sock");
        let (bound, wait) = bind_aside(&path);
        wait(LONG);
        assert!(path.exists());
        bound.await.unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "").unwrap();
        let (bound, wait) = bind_aside(&path);
        wait(LONG);
        let error = bound.await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
