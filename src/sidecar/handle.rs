//! The handle of a sidecar: its state can be read and followed, and it can be asked to stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::runner::Runner;
use super::state::{SidecarFailure, SidecarStart, SidecarState};
use crate::os::mutex::lock;

/// A sidecar, as others see it.
#[derive(Debug)]
pub struct Sidecar {
    state: watch::Receiver<SidecarState>,
    stop: CancellationToken,
    restarts: Arc<AtomicU64>,
    port: Arc<AtomicU64>,
    patience: Arc<AtomicU64>,
    task: std::sync::Mutex<Option<JoinHandle<()>>>,
}

impl Sidecar {
    /// Starts it. Must be called on the gateway's main thread: the kernel ends a child with the
    /// thread that made it.
    pub fn start(start: SidecarStart) -> Self {
        let (sender, state) = watch::channel(SidecarState::Starting { pid: 0, hint: None });
        let stop = CancellationToken::new();
        let restarts = Arc::new(AtomicU64::new(0));
        let port = Arc::new(AtomicU64::new(0));
        let patience = Arc::new(AtomicU64::new(start.spec.stop_timeout.0.as_millis() as u64));
        let runner = Runner {
            start,
            state: sender,
            stop: stop.clone(),
            restarts: Arc::clone(&restarts),
            port: Arc::clone(&port),
            patience: Arc::clone(&patience),
        };
        let task = tokio::spawn(runner.run());
        Self {
            state,
            stop,
            restarts,
            port,
            patience,
            task: std::sync::Mutex::new(Some(task)),
        }
    }

    pub fn state(&self) -> SidecarState {
        self.state.borrow().clone()
    }

    /// Follows where it stands.
    pub fn watch(&self) -> watch::Receiver<SidecarState> {
        self.state.clone()
    }

    /// Unplanned restarts so far.
    pub fn restarts(&self) -> u64 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// The port of its present run.
    pub fn port(&self) -> u16 {
        self.port.load(Ordering::Relaxed) as u16
    }

    /// Waits until the first start succeeded or failed.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn settled(&self) -> Result<SocketAddr, Arc<SidecarFailure>> {
        let mut state = self.state.clone();
        loop {
            match &*state.borrow_and_update() {
                SidecarState::Ready { address, .. } => return Ok(*address),
                SidecarState::Backoff { failure }
                | SidecarState::Stopped {
                    failure: Some(failure),
                } => return Err(Arc::clone(failure)),
                SidecarState::Stopped { failure: None } | SidecarState::Stopping { .. } => {
                    return Err(superseded());
                }
                SidecarState::Starting { .. } => {}
            }
            if state.changed().await.is_err() {
                return Err(superseded());
            }
        }
    }

    /// Asks it to end and waits until no process of it is left: at most its stop timeout, and at
    /// most `limit`.
    pub async fn stop(&self, limit: Duration) {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.patience.fetch_min(limit, Ordering::Relaxed);
        self.stop.cancel();
        let task = lock(&self.task).take();
        match task {
            // A task that panicked dropped its process, which kills it.
            Some(task) => drop(task.await),
            None => {
                let mut state = self.state.clone();
                // An error means that the task is gone, which is what we wait for.
                let _ = state
                    .wait_for(|state| matches!(state, SidecarState::Stopped { .. }))
                    .await;
            }
        }
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn superseded() -> Arc<SidecarFailure> {
    Arc::new(SidecarFailure {
        cause: "was stopped before it was ready".to_owned(),
        last_words: Vec::new(),
    })
}
