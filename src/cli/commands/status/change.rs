//! What `gatewayctl status --watch` prints of a change.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::StatusAnswer;
use crate::cli::services::StageWord;

/// A line of `--watch` with `--json`: what changed, and the whole status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StatusChange {
    /// When it was seen, RFC 3339.
    pub at: String,
    /// What it is doing.
    pub stage: StageWord,
    /// Why the gateway does not answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<StatusAnswer>,
}

impl StatusChange {
    /// The state that `answer` shows.
    pub fn of(answer: Result<&StatusAnswer, String>, now: Timestamp) -> Self {
        let (status, error) = match answer {
            Ok(shown) => (Some(shown.clone()), None),
            Err(error) => (None, Some(error)),
        };
        let stage = status.as_ref().map(|shown| shown.status.stage.into());
        Self {
            at: now.strftime("%FT%TZ").to_string(),
            stage: stage.unwrap_or(StageWord::NotRunning),
            error,
            status,
        }
    }

    /// What counts as a change: not running times, nor the counts that always change.
    pub fn key(&self) -> Value {
        let Some(StatusAnswer { status, drift, .. }) = &self.status else {
            return json!(self.error);
        };
        let sidecars = status.sidecars.iter();
        let sidecars: Vec<_> = sidecars
            .map(|one| (&one.name, one.state, one.pid, one.restarts, &one.cause))
            .collect();
        let drainers = status.drainers.iter();
        let drainers: Vec<_> = drainers.map(|one| (one.generation, one.pid)).collect();
        let leases: Vec<u64> = status.leases.iter().map(|one| one.lease).collect();
        let recovery = status
            .recovery
            .as_ref()
            .map(|recovery| (&recovery.rung, &recovery.reason));
        json!([
            self.stage,
            status.pid,
            status.generation,
            sidecars,
            drainers,
            leases,
            recovery,
            status.last_restart,
            status.listeners,
            drift
        ])
    }

    /// For people.
    pub fn sentence(&self) -> String {
        let (at, stage) = (&self.at, self.stage);
        let Some(StatusAnswer { status, .. }) = &self.status else {
            return format!(
                "{at}  {stage}: {}",
                self.error.as_deref().unwrap_or_default()
            );
        };
        let mut text = format!(
            "{at}  {}: {stage}, generation {}, pid {}",
            status.instance, status.generation, status.pid
        );
        for one in &status.sidecars {
            text.push_str(&format!(", {} {} (pid {})", one.name, one.state, one.pid));
        }
        if !status.detail.is_empty() {
            text.push_str(&format!(": {}", status.detail));
        }
        text
    }
}
