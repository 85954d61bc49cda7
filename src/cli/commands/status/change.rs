//! What `gatewayctl status --watch` prints of a change.

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::answer::StatusAnswer;
use crate::cli::stage_word::StageWord;
use crate::text::log::escape;

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
    /// What is the case now.
    pub fn of(answer: Result<&StatusAnswer, String>, now: Timestamp) -> Self {
        let stage = stage(answer.as_ref().copied());
        let at = now.strftime("%FT%TZ").to_string();
        match answer {
            Ok(shown) => Self {
                at,
                stage,
                error: None,
                status: Some(shown.clone()),
            },
            Err(error) => Self {
                at,
                stage,
                error: Some(error),
                status: None,
            },
        }
    }

    /// What a change is a change of: not the times that run, nor the counts that always change.
    pub fn key(&self) -> Value {
        let Some(StatusAnswer { status, drift, .. }) = &self.status else {
            return json!(self.error);
        };
        let sidecars: Vec<Value> = status
            .sidecars
            .iter()
            .map(|one| json!([one.name, one.state, one.pid, one.restarts, one.cause]))
            .collect();
        let drainers: Vec<Value> = status
            .drainers
            .iter()
            .map(|one| json!([one.generation, one.pid]))
            .collect();
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
        let Some(StatusAnswer { status, .. }) = &self.status else {
            return format!(
                "{}  {}: {}",
                self.at,
                self.stage,
                self.error.as_deref().unwrap_or_default()
            );
        };
        let detail = if status.detail.is_empty() {
            String::new()
        } else {
            format!(": {}", escape(&status.detail))
        };
        let sidecars: Vec<String> = status
            .sidecars
            .iter()
            .map(|one| format!("{} {} (pid {})", one.name, one.state, one.pid))
            .collect();
        let sidecars = if sidecars.is_empty() {
            String::new()
        } else {
            format!(", {}", sidecars.join(", "))
        };
        format!(
            "{}  {}: {}, generation {}, pid {}{sidecars}{detail}",
            self.at, status.instance, self.stage, status.generation, status.pid
        )
    }
}

/// The word for a stage, or that nobody answers.
fn stage(answer: Result<&StatusAnswer, &String>) -> StageWord {
    answer.map_or(StageWord::NotRunning, |shown| shown.status.stage.into())
}
