//! The evidence, line by line.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::{EndEvidence, UnitSnapshot};
use super::journal::ProcessEnd;
use super::timeline::Timeline;
use crate::diagnose::history_row::HistoryRow;
use crate::state::history::HistoryEntry;
use crate::state::startup_throttle::ThrottleSummary;
use crate::text::human::{count, span};
use crate::text::words::{Words, words};

/// How many lines of the journal and of the history are shown: about the last two runs.
const SHOWN: usize = 8;

words! {
    /// Where a line of evidence comes from.
    pub enum EvidenceSource {
        /// The unit, as its manager reports it.
        Unit = "unit",
        /// The job, as launchd reports it.
        Job = "job",
        /// The status, as the gateway reports it.
        Status = "status",
        /// The owner record in the state directory.
        Owner = "owner",
        /// The throttle record in the state directory.
        Throttle = "throttle",
        /// The restart intent in the state directory.
        Intent = "intent",
        /// The ids of the boots in the history.
        Boot = "boot",
        /// The history.
        Record = "record",
        /// The journal.
        Journal = "journal",
        /// The newest diagnostics bundle.
        Bundle = "bundle",
        /// What could not be looked at.
        Unseen = "unseen",
    }
}

/// A line of evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EvidenceLine {
    /// Where it comes from.
    pub source: EvidenceSource,
    /// When, RFC 3339; absent for what is true now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<String>,
    /// What the source says.
    pub text: String,
}

/// The evidence: first what is true now, then the history and the journal.
pub fn evidence_lines(evidence: &EndEvidence) -> Vec<EvidenceLine> {
    let mut all = Vec::new();
    let mut add = |source, at: Option<Timestamp>, text| {
        let at = at.map(|at| at.to_string());
        all.push(EvidenceLine { source, at, text });
    };
    for (source, text) in true_now(evidence) {
        add(source, None, text);
    }
    for entry in last(&evidence.record) {
        let text = format!("pid {}: {}", entry.pid, entry_text(&entry.entry));
        add(EvidenceSource::Record, Some(entry.at), text);
    }
    for line in last(&evidence.journal) {
        add(EvidenceSource::Journal, Some(line.at), line.text.clone());
    }
    if let Some(path) = &evidence.bundle {
        add(EvidenceSource::Bundle, None, path.display().to_string());
    }
    for why in &evidence.unseen {
        add(EvidenceSource::Unseen, None, why.clone());
    }
    all
}

fn last<T>(all: &[T]) -> &[T] {
    &all[all.len().saturating_sub(SHOWN)..]
}

fn true_now(evidence: &EndEvidence) -> Vec<(EvidenceSource, String)> {
    let mut lines = Vec::new();
    if let Some(unit) = &evidence.unit {
        lines.push((EvidenceSource::Unit, unit_text(unit)));
    }
    if let Some(job) = &evidence.job {
        lines.push((EvidenceSource::Job, job.to_string()));
    }
    if let Some(status) = &evidence.status {
        let stage = status.stage.in_words();
        let (pid, up) = (status.pid, span(status.uptime_ms));
        let text = format!("{stage}, pid {pid}, up {up}: {}", status.detail);
        lines.push((EvidenceSource::Status, text));
    }
    if let Some((owner, lives)) = &evidence.owner {
        let state = if *lives { "is running" } else { "has ended" };
        let text = format!(
            "pid {}, generation {}, {state}",
            owner.pid, owner.generation
        );
        lines.push((EvidenceSource::Owner, text));
    }
    if let Some(throttle) = &evidence.throttle {
        lines.push((EvidenceSource::Throttle, throttle_text(throttle)));
    }
    if evidence.announced {
        let text = "a restart is announced (restart-intent.json): the next SIGTERM starts it";
        lines.push((EvidenceSource::Intent, text.to_owned()));
    }
    if Timeline::of(evidence).machine_went_down {
        let text = "the history continues in another boot: the machine went down in between";
        lines.push((EvidenceSource::Boot, text.to_owned()));
    }
    lines
}

fn unit_text(unit: &UnitSnapshot) -> String {
    let status = unit.exit_status;
    let ended = match unit.exit {
        None => String::new(),
        Some(ProcessEnd::Exited) => format!(", last main process exited with code {status}"),
        Some(ProcessEnd::Killed | ProcessEnd::Dumped) => {
            format!(", last main process was ended by signal {status}")
        }
    };
    format!(
        "{} ({}), Result {}, NRestarts {}{ended}",
        unit.active, unit.sub, unit.result, unit.restarts
    )
}

fn throttle_text(throttle: &ThrottleSummary) -> String {
    let starts = count(u64::from(throttle.count), "start");
    let wait = span(u64::try_from(throttle.wait.as_millis()).unwrap_or(u64::MAX));
    let safe = if throttle.safe { ", safe mode" } else { "" };
    format!("{starts} in quick succession, the last one waited {wait}{safe}")
}

/// An entry of the history in words.
fn entry_text(entry: &HistoryEntry) -> String {
    let row = HistoryRow::of(entry);
    let details: Vec<String> = [row.who, row.why].into_iter().flatten().collect();
    if details.is_empty() {
        row.what
    } else {
        format!("{} ({})", row.what, details.join(", "))
    }
}
