//! Progress of a restart or reload, reported to the client that requested it.

use super::handover::{Predecessor, ToPredecessor};
use super::outbox::Outbox;
use crate::control::protocol::Progress;
use crate::state::terms::ProgressStage;

/// Reports the steps of one request; silent for the first start.
#[derive(Clone, Debug)]
pub struct Reporter {
    request: Option<String>,
    to: Outbox<Progress>,
    predecessor: Option<Predecessor>,
}

impl Reporter {
    pub fn new(request: Option<String>, to: Outbox<Progress>) -> Self {
        Self {
            request,
            to,
            predecessor: None,
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
