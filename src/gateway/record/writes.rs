//! The thread that writes a life's record, so that nobody waits for the disk.

use std::io;
use std::time::Duration;

use tracing::warn;

use super::LifeRecord;
use crate::gateway::handover::failpoint;
use crate::state::atomic_file;

/// How long an answer that tells of what is recorded waits for the disk, and so does the end of the
/// process. A disk that is only busy is faster.
const WRITTEN: Duration = Duration::from_secs(1);

impl LifeRecord {
    /// Leaves a write to the thread.
    pub(super) fn write(&self, write: impl FnOnce(&Self) + Send + 'static) {
        let this = self.clone();
        self.left(self.writes.push(move || {
            reach_disk();
            write(&this);
        }));
    }

    /// The same for a part of `file`, which has to be there at last: it is written again while the
    /// disk is full.
    pub(super) fn write_at_last(
        &self,
        file: &'static str,
        write: impl Fn(&Self) -> io::Result<()> + Send + 'static,
    ) {
        let this = self.clone();
        let mut told = false;
        self.left(self.writes.push_until_done(move || {
            reach_disk();
            let Err(error) = write(&this) else {
                return true;
            };
            if !std::mem::replace(&mut told, true) {
                let dir = this.dir.display();
                warn!("[gateway] cannot write {file} in {dir}: {error}");
            }
            !atomic_file::is_full(&error)
        }));
    }

    /// Says that a write was not left to the thread, if so.
    fn left(&self, left: bool) {
        if !left {
            warn!(
                "[gateway] cannot write to {}: its disk does not answer",
                self.dir.display()
            );
        }
    }

    /// Ends when what was recorded until now can be read, or the disk does not answer.
    pub fn written(&self) -> impl Future<Output = ()> + Send + use<> {
        let written = self.writes.done();
        async move {
            let _ = tokio::time::timeout(WRITTEN, written).await;
        }
    }

    /// Calls `answer` after [`written`](Self::written).
    pub fn when_written(&self, answer: impl FnOnce() + Send + 'static) {
        let written = self.written();
        tokio::spawn(async move {
            written.await;
            answer();
        });
    }

    /// Blocks until what was recorded until now can be read, or the disk does not answer.
    pub fn flush(&self) {
        self.writes.flush(WRITTEN);
    }
}

/// Here a test build may stand still, as a disk that does not answer.
fn reach_disk() {
    failpoint::pass("record.write");
}
