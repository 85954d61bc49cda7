//! The handle of a sidecar: its state can be read and followed, and it can be asked to stop.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::runner::Runner;
use super::state::{OwnRestartCall, SidecarControl, SidecarFailure, SidecarStart, SidecarState};
use crate::os::mutex::lock;
use crate::os::task::caught;

/// A sidecar, as others see it.
#[derive(Debug)]
pub struct Sidecar {
    state: watch::Receiver<SidecarState>,
    control: Arc<SidecarControl>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sidecar {
    /// Starts it.
    pub fn start(start: SidecarStart) -> Self {
        let (sender, state) = watch::channel(SidecarState::Starting { pid: 0, hint: None });
        let patience = start.spec.stop_timeout.0.as_millis() as u64;
        let control = Arc::new(SidecarControl {
            patience: patience.into(),
            ..SidecarControl::default()
        });
        let runner = Runner {
            start,
            state: sender.clone(),
            control: Arc::clone(&control),
        };
        let task = Mutex::new(Some(tokio::spawn(async move {
            if let Err(cause) = caught(runner.run()).await {
                let failure = SidecarFailure {
                    cause,
                    ..SidecarFailure::default()
                };
                sender.send_replace(SidecarState::Stopped {
                    failure: Some(Arc::new(failure)),
                });
            }
        })));
        Self {
            state,
            control,
            task,
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
        self.control.restarts.load(Ordering::Relaxed)
    }

    /// The port of its present run.
    pub fn port(&self) -> u16 {
        self.control.port.load(Ordering::Relaxed)
    }

    /// Where its present run listens beyond loopback: past the front door.
    pub fn exposed(&self) -> Vec<SocketAddr> {
        let port = self.port();
        let exposed = lock(&self.control.exposed);
        exposed
            .iter()
            .map(|ip| SocketAddr::new(*ip, port))
            .collect()
    }

    /// How often it has died, each time soon after the time before.
    pub fn deaths(&self) -> u32 {
        lock(&self.control.backoff).deaths(Instant::now())
    }

    /// How it ended when it last died, while that was not long ago.
    pub fn last_death(&self) -> Option<String> {
        lock(&self.control.backoff).last_cause().map(str::to_owned)
    }

    /// How long ago that was.
    pub fn last_death_age(&self) -> Option<Duration> {
        let at = lock(&self.control.backoff).last_at();
        at.map(|at| at.elapsed())
    }

    /// The same with its last words, however long ago it was.
    pub fn last_failure(&self) -> Option<Arc<SidecarFailure>> {
        lock(&self.control.last_failure).clone()
    }

    /// The lines of its output in which the log hides a secret.
    pub fn secret_lines(&self) -> Vec<String> {
        self.control.secrets.all()
    }

    /// Why it is failing, as "it has …"; none when it is not.
    pub fn failing(&self) -> Option<String> {
        lock(&self.control.backoff).failing()
    }

    /// Forgets its deaths, and starts it now if it waits for that.
    pub fn retry(&self) {
        lock(&self.control.backoff).forget();
        self.control.retry.notify_waiters();
    }

    /// Waits until the first start succeeded or failed; `slow` hears now and then of one that takes long, as
    /// "is still starting …".
    ///
    /// # Errors
    /// Why it failed.
    pub async fn settled_telling(
        &self,
        mut slow: impl FnMut(&str),
    ) -> Result<SocketAddr, Arc<SidecarFailure>> {
        let mut told = self.control.slow.subscribe();
        let settled = self.settled();
        tokio::pin!(settled);
        loop {
            tokio::select! {
                settled = &mut settled => return settled,
                // The handle has the sender, so this is no error.
                Ok(()) = told.changed() => slow(&told.borrow_and_update()),
            }
        }
    }

    /// Waits until the first start succeeded or failed.
    ///
    /// # Errors
    /// Why it failed.
    pub async fn settled(&self) -> Result<SocketAddr, Arc<SidecarFailure>> {
        let mut state = self.state.clone();
        let settled = state
            .wait_for(|state| !matches!(state, SidecarState::Starting { .. }))
            .await;
        match settled.as_deref() {
            Ok(SidecarState::Ready { server, .. }) => Ok(server.at.address),
            Ok(
                SidecarState::Backoff { failure }
                | SidecarState::Stopped {
                    failure: Some(failure),
                },
            ) => Err(Arc::clone(failure)),
            _ => Err(Arc::new(SidecarFailure {
                cause: "was stopped before it was ready".to_owned(),
                ..SidecarFailure::default()
            })),
        }
    }

    /// Asks it to restart by its own means, and waits until it is ready again. It does not count as
    /// ready meanwhile; its restart begins when `go` is done.
    ///
    /// # Errors
    /// Why it is not: it serves on as it was, or is started again by the gateway.
    pub async fn restart_itself(
        &self,
        go: impl Future<Output = ()>,
    ) -> Result<(), Arc<SidecarFailure>> {
        let (begin, begins) = oneshot::channel();
        let (done, result) = oneshot::channel();
        let call = OwnRestartCall {
            go: Some(begins),
            done,
        };
        *lock(&self.control.own_restart) = Some(call);
        self.control.own_restart_asked.notify_one();
        let begin = async {
            go.await;
            // An error means that it ended meanwhile, which the result tells.
            let _ = begin.send(());
        };
        let (result, ()) = tokio::join!(result, begin);
        result.unwrap_or_else(|_| {
            Err(Arc::new(SidecarFailure {
                cause: "was stopped before it had restarted".to_owned(),
                ..SidecarFailure::default()
            }))
        })
    }

    /// Asks it to end and waits until no process of it is left: at most its stop timeout, and at
    /// most `limit`.
    pub async fn stop(&self, limit: Duration) {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.control.patience.fetch_min(limit, Ordering::Relaxed);
        self.control.stop.cancel();
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
        self.control.stop.cancel();
    }
}
