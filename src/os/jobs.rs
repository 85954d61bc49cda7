//! Work that waits for what may stand still, such as a disk or a service manager. A thread of its own
//! does it, so that who decides or serves never waits.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use tokio::sync::oneshot;

/// How long after a failure a job is tried again, where no other job comes before.
const AGAIN: Duration = Duration::from_secs(1);

type Attempt = Box<dyn FnMut() -> bool + Send>;

enum QueuedJob {
    Once(Box<dyn FnOnce() + Send>),
    UntilDone(Attempt),
}

/// A thread that does jobs in their order. It ends with the last of these.
#[derive(Clone, Debug)]
pub struct Jobs(Option<SyncSender<QueuedJob>>);

impl Jobs {
    /// Starts the thread, for which at most `most` jobs wait.
    pub fn start(name: &str, most: usize) -> Self {
        let (sender, jobs) = sync_channel::<QueuedJob>(most);
        let thread = std::thread::Builder::new().name(name.to_owned());
        let started = thread.spawn(move || work(&jobs, most));
        Self(started.ok().map(|_| sender))
    }

    /// Leaves a job to the thread; false when too many wait already, or the system gave no thread.
    #[must_use]
    pub fn push(&self, job: impl FnOnce() + Send + 'static) -> bool {
        self.send(QueuedJob::Once(Box::new(job)))
    }

    /// The same for a job that is tried again until it is done, which is when it returns true. Such
    /// jobs are done in their order, too; the others do not wait for them. What is not done when the
    /// process ends is lost.
    #[must_use]
    pub fn push_until_done(&self, job: impl FnMut() -> bool + Send + 'static) -> bool {
        self.send(QueuedJob::UntilDone(Box::new(job)))
    }

    fn send(&self, job: QueuedJob) -> bool {
        let sender = self.0.as_ref();
        sender.is_some_and(|sender| sender.try_send(job).is_ok())
    }

    /// Ends when everything that was pushed before this call is done.
    pub fn done(&self) -> impl Future<Output = ()> + Send + use<> {
        let (tell, told) = oneshot::channel();
        // A job that is not taken is dropped, and `tell` with it.
        let _ = self.push(move || {
            let _ = tell.send(());
        });
        async move {
            let _ = told.await;
        }
    }

    /// Blocks until everything that was pushed before is done, at most for `limit`.
    pub fn flush(&self, limit: Duration) {
        let (tell, told) = sync_channel(1);
        let pushed = self.push(move || {
            let _ = tell.try_send(());
        });
        if pushed {
            let _ = told.recv_timeout(limit);
        }
    }
}

/// Does the jobs until no more can come. Of those that failed, `most` are kept, the latest.
fn work(jobs: &Receiver<QueuedJob>, most: usize) {
    let mut failed: VecDeque<Attempt> = VecDeque::new();
    loop {
        let job = match failed.is_empty() {
            true => jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
            false => jobs.recv_timeout(AGAIN),
        };
        while failed.front_mut().is_some_and(|attempt| attempt()) {
            failed.pop_front();
        }
        match job {
            Ok(QueuedJob::Once(job)) => job(),
            Ok(QueuedJob::UntilDone(mut attempt)) => {
                if !failed.is_empty() || !attempt() {
                    failed.push_back(attempt);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        failed.drain(..failed.len().saturating_sub(most));
    }
}

/// Does one job in a thread of its own and waits for its result, at most for `limit`. None when it
/// takes longer, panics, or when the system gives no thread.
pub async fn aside<T: Send + 'static>(
    limit: Duration,
    job: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let thread = std::thread::Builder::new().name("aside".to_owned());
    // Who gave up waiting needs no result.
    thread.spawn(move || drop(tell.send(job()))).ok()?;
    tokio::time::timeout(limit, told).await.ok()?.ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::channel;
    use std::time::Instant;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn jobs_that_stand_still_stop_nobody_and_are_done_in_order() {
        let (go, held) = channel::<()>();
        let (note, notes) = channel();
        let jobs = Jobs::start("test", 3);
        let second = note.clone();
        assert!(jobs.push(move || {
            let _ = held.recv();
            note.send(1).unwrap();
        }));
        assert!(jobs.push(move || second.send(2).unwrap()));
        let begun = Instant::now();
        jobs.flush(SHORT);
        let done = jobs.done();
        assert!(tokio::time::timeout(SHORT, done).await.is_err());
        assert!(begun.elapsed() < LONG);
        while jobs.push(|| {}) {}
        drop(go);
        assert_eq!(notes.iter().collect::<Vec<_>>(), [1, 2]);
        tokio::time::timeout(LONG, jobs.done()).await.unwrap();
    }

    #[test]
    fn a_job_that_fails_is_tried_again_before_the_next_of_its_kind() {
        let (note, notes) = channel();
        let full = Arc::new(AtomicBool::new(true));
        let jobs = Jobs::start("test", 3);
        let job = |name: u32| {
            let (note, full) = (note.clone(), Arc::clone(&full));
            move || {
                let done = !full.load(Ordering::Relaxed);
                if done {
                    note.send(name).unwrap();
                }
                done
            }
        };
        assert!(jobs.push_until_done(job(1)));
        assert!(jobs.push_until_done(job(2)));
        jobs.flush(LONG);
        assert!(notes.try_recv().is_err());
        full.store(false, Ordering::Relaxed);
        // By itself, or before the next.
        assert_eq!(notes.recv_timeout(LONG), Ok(1));
        assert!(jobs.push_until_done(job(3)));
        jobs.flush(LONG);
        assert_eq!(notes.try_iter().collect::<Vec<_>>(), [2, 3]);
    }

    #[tokio::test]
    async fn a_job_aside_is_waited_for_no_longer_than_its_limit() {
        let (go, held) = channel::<()>();
        assert_eq!(aside(LONG, || 7).await, Some(7));
        assert_eq!(aside(SHORT, move || held.recv().is_ok()).await, None);
        drop(go);
    }
}
