//! Between a waiter and the processes behind it: one byte, with descriptors where needed.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::channel;
use super::incoming::inherited;
use super::spawn::Spawned;
use super::wire::LINK;
use crate::os::process::PidFd;

/// Start a successor with this descriptor.
pub(super) const SPAWN: u8 = b's';

pub(super) const CURRENT: u8 = b'c';

/// How long a waiter may take to start a process: it only forks and executes.
const ANSWER: Duration = Duration::from_secs(5);

/// The connection to the waiter in front of this process.
#[derive(Debug)]
pub struct Link(UnixStream);

impl Link {
    /// The link that this process has inherited, if any.
    pub fn take() -> Option<Self> {
        let stream = inherited(LINK)?;
        stream.set_read_timeout(Some(ANSWER)).ok()?;
        Some(Self(stream))
    }

    /// Tells the waiter that this process serves now.
    pub fn current(&self) {
        // If the waiter is gone, there is nothing to tell.
        let _ = channel::send_with(&self.0, &[CURRENT], &[]);
    }

    /// Whether the waiter is still alive.
    pub fn alive(&self) -> bool {
        use nix::sys::socket::{MsgFlags, recv};
        !matches!(
            recv(
                self.0.as_raw_fd(),
                &mut [0],
                MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT
            ),
            Ok(0)
        )
    }

    /// Asks the waiter to start a successor that inherits `end`.
    ///
    /// # Errors
    /// When it cannot, or when it is gone.
    pub fn spawn(&self, end: &UnixStream) -> io::Result<Spawned> {
        channel::send_with(&self.0, &[SPAWN], &[end.as_fd()])?;
        let mut number = [0; 4];
        let (length, mut descriptors) = channel::receive_with(&self.0, &mut number)?;
        match (length, descriptors.pop()) {
            (4, Some(pidfd)) => Ok(Spawned {
                pid: u32::from_ne_bytes(number),
                pidfd: PidFd::from(pidfd),
            }),
            (4, None) => Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number))),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Answers a request to spawn.
pub(super) fn answer(
    stream: &tokio::net::UnixStream,
    spawned: &io::Result<Spawned>,
) -> io::Result<()> {
    let stream: OwnedFd = stream.as_fd().try_clone_to_owned()?;
    let stream = UnixStream::from(stream);
    match spawned {
        Ok(spawned) => channel::send_with(
            &stream,
            &spawned.pid.to_ne_bytes(),
            &[spawned.pidfd.as_fd()],
        ),
        Err(error) => channel::send_with(
            &stream,
            &error.raw_os_error().unwrap_or(libc::EIO).to_ne_bytes(),
            &[],
        ),
    }
}
