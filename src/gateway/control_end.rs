//! The control server of this process. Its socket is opened when the service is ours; over WebSocket it is
//! reached by those whom the front door admits.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::control::server::{self, Call, PublicControl};

/// Calls on the control socket that may wait for the loop.
const CALLS: usize = 64;

/// How long the last answers on the control socket may take to be written; they are short, and
/// their readers wait for them.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

/// How long the socket is waited for, so that it is there when the gateway says that it is ready. Only a
/// disk that stands still takes longer; then it comes later.
const BOUND: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub struct ControlEnd {
    path: PathBuf,
    calls: mpsc::Sender<Call>,
    public: Arc<PublicControl>,
    stop: CancellationToken,
    /// They end when every request has its answer.
    answering: Vec<JoinHandle<()>>,
}

impl ControlEnd {
    /// A control socket that will be at `path`, beside the public one; the calls of both come out of the
    /// receiver.
    pub fn new(path: PathBuf, public: &Arc<PublicControl>) -> (Self, mpsc::Receiver<Call>) {
        let (calls, receiver) = mpsc::channel(CALLS);
        let stop = CancellationToken::new();
        let serving = server::serve_public(Arc::clone(public), calls.clone(), stop.clone());
        let end = Self {
            path,
            calls,
            public: Arc::clone(public),
            stop,
            answering: vec![tokio::spawn(serving)],
        };
        (end, receiver)
    }

    /// Puts the socket in place of whatever was there before. Again, when a successor had taken the
    /// place.
    pub fn open(&mut self) {
        let (bound, wait) = server::bind_aside(&self.path);
        let (calls, stop) = (self.calls.clone(), self.stop.clone());
        let (path, counters) = (self.path.clone(), Arc::clone(&self.public.counters));
        self.answering.push(tokio::spawn(async move {
            let bound = tokio::select! {
                bound = bound => bound,
                () = stop.cancelled() => return,
            };
            match bound {
                Ok(listener) => server::serve(listener, calls, counters, stop).await,
                Err(error) => warn!(
                    "[gateway] no control socket at {}: {error}; gatewayctl cannot reach this gateway",
                    path.display()
                ),
            }
        }));
        wait(BOUND);
    }

    /// Takes no further request.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Waits until the last answers are written; the receiver must be gone.
    pub async fn finish(self) {
        drop(self.calls);
        // The clients that still waited have just got their answers.
        let _ = tokio::time::timeout(LAST_ANSWERS, join_all(self.answering)).await;
    }
}
