//! The socket of a client connection with its place among the connections.

use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Mutex;

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::admission::ConnectionSlot;
use crate::os::mutex::lock;

/// Closed when the connection, its tunnel and what waits for them are gone.
#[derive(Debug)]
pub struct ClientSocket {
    pub stream: TcpStream,
    /// None for the watchdog, and when it was taken.
    slot: Mutex<Option<ConnectionSlot>>,
}

impl ClientSocket {
    pub fn new(stream: TcpStream, slot: Option<ConnectionSlot>) -> Self {
        Self {
            stream,
            slot: Mutex::new(slot),
        }
    }

    /// A descriptor of its own for who goes on with the connection, and the connection's place.
    ///
    /// # Errors
    /// When this process has none left.
    pub fn pass_on(&self) -> io::Result<(StdTcpStream, Option<ConnectionSlot>)> {
        let socket = self.stream.as_fd().try_clone_to_owned()?;
        Ok((socket.into(), lock(&self.slot).take()))
    }

    /// Waits until something can be read. Returns false when that is only the end.
    pub async fn arrived(&self) -> bool {
        // The runtime takes a new socket for readable until it was read in vain.
        let mut told = false;
        loop {
            match self.stream.ready(Interest::READABLE).await {
                Ok(ready) if told && !ready.is_read_closed() => return true,
                Ok(_) => told = true,
                // The runtime ends.
                Err(_) => return false,
            }
            let looked = self.stream.try_io(Interest::READABLE, || {
                let fd = self.stream.as_raw_fd();
                Ok(recv(fd, &mut [0], MsgFlags::MSG_PEEK)?)
            });
            match looked {
                Ok(count) => return count > 0,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return false,
            }
        }
    }
}
