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

/// Client connections. A drain waits only for those that were there when it began.
#[derive(Debug, Default)]
struct ClientTasks {
    before_drain: TaskTracker,
    current: TaskTracker,
}

impl WorkerTasks {
    /// Counts a client connection until it ends.
    pub fn client<F: Future>(&self, connection: F) -> TrackedFuture<F> {
        lock(&self.clients).current.track_future(connection)
    }

    /// The client connections of this moment. Those that come later are counted apart.
    pub fn begin_drain(&self) -> TaskTracker {
        let mut clients = lock(&self.clients);
        clients.before_drain = std::mem::take(&mut clients.current);
        clients.before_drain.clone()
    }

    /// Waits until every client connection has ended.
    pub async fn clients_ended(&self) {
        let before_drain = lock(&self.clients).before_drain.clone();
        ended(&before_drain).await;
        let current = lock(&self.clients).current.clone();
        ended(&current).await;
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
    async fn a_drain_waits_for_the_connections_of_before_and_a_close_for_all() {
        let tasks = WorkerTasks::default();
        let old = tasks.client(std::future::ready(()));
        let drained = tasks.begin_drain();
        let new = tasks.client(std::future::ready(()));
        let all = tasks.clients_ended();
        let drained = ended(&drained);
        tokio::pin!(all, drained);
        assert!(drained.as_mut().now_or_never().is_none());
        old.await;
        drained.await;
        assert!(all.as_mut().now_or_never().is_none());
        new.await;
        all.await;
    }
}
