//! Who waits for the passages of a generation: the answers of the requests that it fulfils. Those of a
//! generation in a successor come from there.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use super::clients_watch::ClientsWatch;
use crate::state::clients_seen::ClientsSeen;
use crate::state::passage::Passage;

/// How long an answer may take. The sidecar answered the same request a moment ago, within 2 s where it
/// has a path for that; it may now have the requests that were held before this one. Nobody who waits
/// for the verdict of a restart should wait much longer for that.
pub const ANSWER: Duration = Duration::from_secs(5);

/// How long the passages of a successor may take, from when it serves: theirs, and the way here.
const REPORT: Duration = ANSWER.saturating_add(Duration::from_secs(1));

/// What came of the passages of one generation.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct PassageReport {
    pub passages: Vec<Passage>,
    /// What clients saw of the process that made them, since it had the service; none where that is
    /// counted with the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientsSeen>,
}

/// Hears the passages of one generation.
#[derive(Debug)]
pub struct PassageWait(watch::Receiver<Option<PassageReport>>);

impl PassageWait {
    /// The report; none where it does not come in time.
    pub async fn report(mut self) -> Option<PassageReport> {
        let came = self.0.wait_for(Option::is_some);
        let came = tokio::time::timeout(REPORT, came).await.ok()?;
        came.ok()?.clone()
    }
}

/// The passages of the generation that took over last.
#[derive(Debug, Default)]
pub struct Passages {
    of: Option<(u64, watch::Sender<Option<PassageReport>>)>,
    /// What clients see of this process since it got the service from another one.
    pub arrivals: Option<ClientsWatch>,
}

impl Passages {
    /// Those of this generation are being made.
    pub fn begin(&mut self, generation: u64) {
        self.of = Some((generation, watch::Sender::default()));
    }

    /// They were made.
    pub fn made(&self, generation: u64, report: PassageReport) {
        if let Some((_, sender)) = self.of.as_ref().filter(|(of, _)| *of == generation) {
            sender.send_replace(Some(report));
        }
    }

    /// To wait for those of this generation; none where none are made.
    pub fn wait(&self, generation: u64) -> Option<PassageWait> {
        let of = self.of.as_ref().filter(|(of, _)| *of == generation);
        of.map(|(_, sender)| PassageWait(sender.subscribe()))
    }
}

/// Logs what came of them.
pub fn log(passages: &[Passage]) {
    for passage in passages {
        let (name, sentence) = (&passage.sidecar, passage.sentence());
        match passage.is_bad() {
            true => warn!(SIDECAR = name, "[gateway] {sentence}"),
            false => info!(SIDECAR = name, "[gateway] {sentence}"),
        }
    }
}
