//! The wait of a first start for other sidecars: `after` of `[sidecar.NAME]`.

use std::sync::Arc;

use tracing::info;

use super::readiness::Hint;
use super::runner::Runner;
use super::state::{SidecarFailure, SidecarState};

impl Runner {
    /// Waits for those that start before this one; false when it is stopped meanwhile. Where one that is
    /// required ends for good, so does the whole start, and this one is stopped.
    pub(super) async fn wait_for_others(&mut self) -> bool {
        for before in std::mem::take(&mut self.start.after) {
            let mut state = before.state.clone();
            let mut said = false;
            loop {
                let now = state.borrow_and_update().clone();
                if before.is_settled(&now) {
                    break;
                }
                if !std::mem::replace(&mut said, true) {
                    let (name, other) = (&self.start.name, &before.name);
                    info!(SIDECAR = name, "[gateway] sidecar {name} waits for {other}");
                    self.control.slow.send_replace(format!("waits for {other}"));
                }
                self.show_wait(&before.name, &now);
                let is_gone = tokio::select! {
                    () = self.control.stop.cancelled() => return false,
                    change = state.changed() => change.is_err(),
                };
                if is_gone {
                    // Whoever ended its task stops this one, too.
                    self.control.stop.cancelled().await;
                    return false;
                }
            }
        }
        true
    }

    /// Where the other one has failed and is tried again, so has this one: what is ready serves without both.
    fn show_wait(&self, other: &str, state: &SidecarState) {
        let shown = match state {
            SidecarState::Backoff { failure } if self.start.persist => SidecarState::Backoff {
                failure: Arc::new(SidecarFailure {
                    cause: format!("waits for {other}, which {}", failure.cause),
                    ..SidecarFailure::default()
                }),
            },
            _ => SidecarState::Starting {
                pid: 0,
                hint: Some(Hint {
                    text: format!("waits for {other}"),
                    hopeless: false,
                }),
            },
        };
        self.state.send_replace(shown);
    }
}
