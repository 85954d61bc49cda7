//! A sidecar's own NOTIFY_SOCKET: `READY=1` and `STATUS=`, as sd_notify(3) sends them.

use std::io;
use std::path::{Path, PathBuf};

use tokio::net::UnixDatagram;

/// The longest message read; sd_notify messages are a few words.
const MESSAGE_MAX: usize = 4096;

/// A datagram socket that one run of a sidecar reports to.
#[derive(Debug)]
pub struct NotifySocket {
    socket: UnixDatagram,
    path: PathBuf,
}

impl NotifySocket {
    /// Binds a socket in `dir`.
    ///
    /// # Errors
    /// When it cannot be bound there.
    pub fn bind(dir: &Path, name: &str, port: u16) -> io::Result<Self> {
        let path = dir.join(format!("notify-{name}-{port}.sock"));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self { socket: UnixDatagram::bind(&path)?, path })
    }

    /// What `$NOTIFY_SOCKET` is for the sidecar.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Waits for `READY=1`.
    pub async fn ready(&self) {
        let mut buffer = vec![0; MESSAGE_MAX];
        while let Ok(count) = self.socket.recv(&mut buffer).await {
            if String::from_utf8_lossy(&buffer[..count]).lines().any(|line| line == "READY=1") {
                return;
            }
        }
        std::future::pending().await
    }
}

impl Drop for NotifySocket {
    fn drop(&mut self) {
        // Left behind, it would be replaced by the next run.
        let _ = std::fs::remove_file(&self.path);
    }
}
