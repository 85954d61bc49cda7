//! Which accept loops and client connections still run, so that a drain can wait for their end.

use std::future::Future;
use std::sync::Mutex;

use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TrackedFuture;

use crate::os::mutex::lock;

/// The running tasks of one set of workers.
#[derive(Debug, Default)]
pub struct WorkerTasks {
    pub accept_loops: TaskTracker,
    clients: Mutex<ClientTasks>,
}

/// Client connections. Who waits for those of one moment does not wait for later ones.
#[derive(Debug, Default)]
struct ClientTasks {
    /// Those of earlier moments, as far as they are still open.
    earlier: Vec<TaskTracker>,
    current: TaskTracker,
}

impl WorkerTasks {
    /// Counts a client connection until it ends.
    pub fn client<F: Future>(&self, connection: F) -> TrackedFuture<F> {
        lock(&self.clients).current.track_future(connection)
    }

    /// The client connections of this moment. Those that come later are counted apart.
    pub fn open_now(&self) -> Vec<TaskTracker> {
        let mut clients = lock(&self.clients);
        let current = std::mem::take(&mut clients.current);
        clients.earlier.push(current);
        clients.earlier.retain(|tasks| !tasks.is_empty());
        clients.earlier.clone()
    }
}

/// Waits until all tasks of these trackers have ended.
pub async fn all_ended(all: &[TaskTracker]) {
    for tasks in all {
        ended(tasks).await;
    }
}

/// Waits until all tasks of a tracker have ended.
pub async fn ended(tasks: &TaskTracker) {
    tasks.close();
    tasks.wait().await;
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_connections_of_one_moment_does_not_wait_for_later_ones() {
        let tasks = WorkerTasks::default();
        let old = tasks.client(std::future::ready(()));
        let drained = tasks.open_now();
        let new = tasks.client(std::future::ready(()));
        let both = tasks.open_now();
        let later = tasks.client(std::future::ready(()));
        let (drained, both) = (all_ended(&drained), all_ended(&both));
        tokio::pin!(drained, both);
        assert!(drained.as_mut().now_or_never().is_none());
        old.await;
        drained.await;
        assert!(both.as_mut().now_or_never().is_none());
        new.await;
        both.await;
        drop(later);
        assert!(tasks.open_now().is_empty(), "what has ended is forgotten");
    }
}
