//! Progress of a restart or reload, reported to the client that requested it, and what it cuts.

use std::time::Duration;

use tracing::info;

use super::handover::{Predecessor, ToPredecessor};
use super::outbox::Outbox;
use crate::control::protocol::Progress;
use crate::state::terms::ProgressStage;

/// Work at one sidecar that the end of a drain ended.
#[derive(Clone, Debug)]
pub struct CutWork {
    /// The restart or reload that this is about.
    pub request: Option<String>,
    pub sidecar: String,
    /// What was cut: requests with their age, and leases.
    pub cut: Vec<String>,
    /// Streams and tunnels that were ended in their time, each with its age.
    pub ended: Vec<String>,
    /// Nobody wanted to wait for it.
    pub forced: bool,
}

/// Reports the steps of one request; silent for the first start.
#[derive(Clone, Debug)]
pub struct Reporter {
    request: Option<String>,
    to: Outbox<Progress>,
    cuts: Outbox<CutWork>,
    predecessor: Option<Predecessor>,
}

impl Reporter {
    pub fn new(request: Option<String>, to: Outbox<Progress>, cuts: Outbox<CutWork>) -> Self {
        Self {
            request,
            to,
            cuts,
            predecessor: None,
        }
    }

    /// The work at a sidecar that was cut after `time`, none for ever, and the streams and tunnels
    /// that were `ended` before; nothing is to tell when all of it was finished.
    pub fn cut(&self, sidecar: &str, time: Option<Duration>, cut: Vec<String>, ended: Vec<String>) {
        if !ended.is_empty() {
            info!(
                SIDECAR = sidecar,
                "[gateway] {sidecar} is replaced; ended {}",
                ended.join(", ")
            );
        }
        if !cut.is_empty() || !ended.is_empty() {
            // When the loop has ended, the process has told what it cuts.
            self.cuts.send(CutWork {
                request: self.request.clone(),
                sidecar: sidecar.to_owned(),
                cut,
                ended,
                forced: time == Some(Duration::ZERO),
            });
        }
    }

    /// The same reporter, which also reports to a predecessor: the client is connected there.
    pub fn passing_on(self, predecessor: Option<Predecessor>) -> Self {
        Self {
            predecessor,
            ..self
        }
    }

    pub fn tell(&self, stage: ProgressStage, text: String) {
        if let Some(predecessor) = &self.predecessor {
            predecessor.send(ToPredecessor::Progress {
                stage: stage.to_string(),
                text: text.clone(),
            });
        }
        if let Some(request) = &self.request {
            let progress = Progress {
                request: request.clone(),
                stage,
                text,
            };
            // When the loop has ended, no client listens any more.
            self.to.send(progress);
        }
    }
}
