//! The control socket of this process: opened when the service is ours.

use std::path::PathBuf;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::control::server::{self, Call};

/// Calls on the control socket that may wait for the loop.
const CALLS: usize = 64;

/// How long the last answers on the control socket may take to be written; they are short, and
/// their readers wait for them.
const LAST_ANSWERS: Duration = Duration::from_millis(500);

#[derive(Debug)]
pub struct ControlEnd {
    path: PathBuf,
    calls: mpsc::Sender<Call>,
    stop: CancellationToken,
    /// Ends when every request has its answer.
    answering: Option<JoinHandle<()>>,
}

impl ControlEnd {
    /// A control socket that will be at `path`; its calls come out of the receiver.
    pub fn new(path: PathBuf) -> (Self, mpsc::Receiver<Call>) {
        let (calls, receiver) = mpsc::channel(CALLS);
        let end = Self {
            path,
            calls,
            stop: CancellationToken::new(),
            answering: None,
        };
        (end, receiver)
    }

    /// Puts the socket in place of whatever was there before. Again, when a successor had taken the
    /// place.
    pub fn open(&mut self) {
        match server::bind(&self.path).and_then(UnixListener::from_std) {
            Ok(listener) => {
                let serving = server::serve(listener, self.calls.clone(), self.stop.clone());
                self.answering = Some(tokio::spawn(serving));
            }
            Err(error) => warn!(
                "[gateway] no control socket at {}: {error}; gatewayctl cannot reach this gateway",
                self.path.display()
            ),
        }
    }

    /// Takes no further request.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Waits until the last answers are written; the receiver must be gone.
    pub async fn finish(self) {
        drop(self.calls);
        if let Some(answering) = self.answering {
            // The clients that still waited have just got their answers.
            let _ = tokio::time::timeout(LAST_ANSWERS, answering).await;
        }
    }
}
