//! A sidecar's own NOTIFY_SOCKET: `READY=1` and `STATUS=`, as sd_notify(3) sends them.

use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

/// The longest message read; sd_notify messages are a few words.
const MESSAGE_MAX: usize = 4096;

/// The path of a unix socket has 108 bytes on Linux, 104 on macOS, its end included.
const PATH_MAX: usize = 103;

/// A datagram socket that one run of a sidecar reports to.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
    /// The directory made for it, where the path in the usual one would be too long.
    _own: Option<tempfile::TempDir>,
}

impl NotifySocket {
    /// Binds a socket in `dir`, or in a private temporary directory where the path would be too long.
    ///
    /// # Errors
    /// When it cannot be bound there.
    pub fn bind(dir: &Path, name: &str, port: u16) -> io::Result<Self> {
        let mut path = dir.join(format!("notify-{name}-{port}.sock"));
        let own = (path.as_os_str().len() > PATH_MAX)
            .then(|| tempfile::Builder::new().prefix("gateway-").tempdir())
            .transpose()?;
        if let Some(own) = &own {
            path = own.path().join("notify.sock");
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self {
            socket: UnixDatagram::bind(&path)?,
            path,
            _own: own,
        })
    }

    /// What `$NOTIFY_SOCKET` is for the sidecar.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `READY=1`.
    pub async fn ready(&self) {
        let mut buffer = vec![0; MESSAGE_MAX];
        while let Ok(count) = self.socket.recv(&mut buffer).await {
            if String::from_utf8_lossy(&buffer[..count])
                .lines()
                .any(|line| line == "READY=1")
            {
                return;
            }
        }
        std::future::pending().await
    }

    /// Reads on for as long as the sidecar runs: one that sends its STATUS now and then would hang
    /// when the queue is full.
    pub async fn read_on(&self) -> Infallible {
        let mut buffer = [0; 1];
        while self.socket.recv(&mut buffer).await.is_ok() {}
        std::future::pending().await
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Left behind, it would be replaced by the next run.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_sidecar_that_talks_on_is_never_blocked_and_a_long_directory_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(90));
        std::fs::create_dir(&long).unwrap();
        let socket = NotifySocket::bind(&long, "web", 1).unwrap();
        let sidecar = UnixDatagram::unbound().unwrap();
        sidecar.connect(socket.path()).unwrap();
        sidecar.send(b"READY=1").await.unwrap();
        socket.ready().await;
        let talk = async {
            for _ in 0..5_000 {
                sidecar.send(b"STATUS=working").await.unwrap();
            }
        };
        tokio::select! {
            () = talk => {}
            never = socket.read_on() => match never {},
        }
        let path = socket.path().to_owned();
        drop(socket);
        assert!(!path.exists() && !path.parent().unwrap().exists());
    }
}
