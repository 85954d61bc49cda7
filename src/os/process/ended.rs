//! The end of a process, as a descriptor that becomes readable.
#![allow(
    unsafe_code,
    reason = "AsyncFd registers a descriptor that must stay the same"
)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

#[derive(Debug)]
pub struct Ended(AsyncFd<OwnedFd>);

impl Ended {
    /// The end of a process by its pidfd or kqueue, or the end of work by a pipe whose other side is
    /// closed when the work is done.
    pub fn of(read: OwnedFd) -> io::Result<Self> {
        // SAFETY: an OwnedFd always gives the same open descriptor, and AsyncFd owns it from here
        // on.
        Ok(Self(unsafe {
            AsyncFd::register_with_interest(read, Interest::READABLE)
        }?))
    }

    pub async fn wait(&self) {
        // An error means that the runtime ends, and with it this task.
        let _ = self.0.readable().await;
    }
}
