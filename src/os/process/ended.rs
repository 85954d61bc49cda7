//! The end of a process: by a descriptor that becomes readable, or by asking again and again.
#![allow(
    unsafe_code,
    reason = "AsyncFd registers a descriptor that must stay the same"
)]

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// How often the end is asked for where no event tells it: when the process has no descriptor left,
/// or the kernel no memory to watch one.
const ASK_EVERY: Duration = Duration::from_millis(100);

pub enum Ended {
    Watched(AsyncFd<OwnedFd>),
    /// Whether it has come.
    Asked(Box<dyn Fn() -> bool + Send + Sync>),
}

impl Ended {
    /// The end of what `watched` becomes readable for; where that cannot be watched, `has_ended` is
    /// asked.
    pub fn of(
        watched: io::Result<OwnedFd>,
        has_ended: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        // SAFETY: an OwnedFd always gives the same open descriptor, and AsyncFd owns it from here
        // on.
        let register = |read| unsafe { AsyncFd::register_with_interest(read, Interest::READABLE) };
        match watched.map(register) {
            Ok(Ok(watched)) => Self::Watched(watched),
            _ => Self::Asked(Box::new(has_ended)),
        }
    }

    /// The end of a process by its pidfd, or the end of work by a pipe whose other side is closed
    /// when the work is done.
    pub fn of_descriptor(read: &Arc<OwnedFd>) -> Self {
        let (watched, asked) = (read.try_clone(), Arc::clone(read));
        Self::of(watched, move || is_readable(&asked))
    }

    pub async fn wait(&self) {
        match self {
            // An error means that the runtime ends, and with it this task.
            Self::Watched(watched) => drop(watched.readable().await),
            Self::Asked(has_ended) => {
                while !has_ended() {
                    tokio::time::sleep(ASK_EVERY).await;
                }
            }
        }
    }
}

/// Whether there is something to read now, or the other side is closed.
pub(super) fn is_readable(read: &impl AsFd) -> bool {
    let mut asked = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
    poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ended")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::process::PidFd;

    #[tokio::test]
    async fn an_end_that_cannot_be_watched_is_waited_for_all_the_same() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let descriptor = PidFd::open(child.id())
            .unwrap()
            .as_fd()
            .try_clone_to_owned();
        let descriptor = Arc::new(descriptor.unwrap());
        let full = Err(io::Error::from_raw_os_error(libc::EMFILE));
        let asked = Ended::of(full, move || is_readable(&descriptor));
        assert!(matches!(asked, Ended::Asked(_)));
        let soon = tokio::time::timeout(ASK_EVERY * 2, asked.wait()).await;
        assert!(soon.is_err(), "it lives");
        child.kill().unwrap();
        asked.wait().await;
        child.wait().unwrap();
    }
}
