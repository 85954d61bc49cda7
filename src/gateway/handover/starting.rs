//! The start of a successor, for which nobody waits.

use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::failpoint;
use super::offer::Offered;
use super::spawn::{Executing, Spawned};
use super::waiter::Link;
use crate::gateway::outbox::Outbox;
use crate::os::jobs::aside;

/// How long the program of a successor may take to be loaded; a disk that is only busy is faster.
const LOADED: Duration = Duration::from_secs(10);

/// A successor that was started, and whether it is behind a waiter.
#[derive(Debug)]
pub struct StartedSuccessor(pub(super) io::Result<(Spawned, bool)>);

/// A start under way. When this is dropped, it is given up, and a successor that starts all the same
/// is called off.
#[derive(Debug)]
pub(super) struct Starting {
    /// Our end of the stream to it.
    offered: Offered,
    /// Waits until it is started.
    _task: AbortOnDropHandle<()>,
}

impl Starting {
    /// By the waiter before us. `started` hears how that went.
    pub fn by_waiter(
        link: Arc<Link>,
        offered: Offered,
        theirs: UnixStream,
        started: Outbox<StartedSuccessor>,
    ) -> Self {
        Self::begin(offered, async move {
            // A waiter that was stopped does not answer; the link knows how long to wait.
            let spawned = aside(Duration::MAX, move || link.spawn(&theirs)).await;
            let spawned = spawned.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into()));
            started.send(StartedSuccessor(spawned.map(|spawned| (spawned, true))));
        })
    }

    /// By this process, `behind` it as a waiter or not. `started` hears how that went.
    pub fn here(
        executing: Executing,
        offered: Offered,
        behind: bool,
        started: Outbox<StartedSuccessor>,
    ) -> Self {
        Self::begin(offered, async move {
            let spawned = executing.done(LOADED).await;
            failpoint::pass("old.spawned");
            started.send(StartedSuccessor(spawned.map(|spawned| (spawned, behind))));
        })
    }

    /// Of a process that runs already, and has the offer.
    pub fn there(process: Spawned, offered: Offered, started: Outbox<StartedSuccessor>) -> Self {
        Self::begin(offered, async move {
            started.send(StartedSuccessor(Ok((process, false))));
        })
    }

    fn begin(offered: Offered, starts: impl Future<Output = ()> + Send + 'static) -> Self {
        Self {
            offered,
            _task: AbortOnDropHandle::new(tokio::spawn(starts)),
        }
    }

    /// Our end of the stream to a successor that was started.
    ///
    /// # Errors
    /// When it was claimed before.
    pub fn claim(self) -> io::Result<UnixStream> {
        self.offered.claim()
    }
}
