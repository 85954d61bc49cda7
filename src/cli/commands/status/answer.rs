//! What `gatewayctl status` answers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::deep::{self, Deep, Drift};
use crate::cli::Exit;
use crate::cli::unapplied::{unapplied, unit_of};
use crate::config::Env;
use crate::control::protocol::{Stage, Status};
use crate::service::UnappliedFile;

/// The answer: what the gateway says of itself, and what is known of its files.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StatusAnswer {
    /// What it says.
    #[serde(flatten)]
    pub status: Status,
    /// The files that are not as install wrote them.
    pub drift: Vec<Drift>,
    /// The files that changed after the service was started, so that they are not applied.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unapplied: Vec<UnappliedFile>,
    /// What only `--deep` looks at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deep: Option<Deep>,
}

/// Adds what is known of its files, and with `deep` of its unit.
pub async fn shown(status: Status, deep: bool) -> StatusAnswer {
    let env = Env::real();
    let unit = unit_of(&env, &status);
    let unapplied = unapplied(&env, &status).await;
    let drift = unit
        .as_ref()
        .map(|unit| deep::drift(&env, unit, deep))
        .unwrap_or_default();
    let deep = if deep {
        Some(Deep::look(&env, unit.as_ref(), &status).await)
    } else {
        None
    };
    StatusAnswer {
        status,
        drift,
        unapplied,
        deep,
    }
}

/// The exit code of a stage.
pub fn exit(stage: Stage) -> Exit {
    match stage {
        Stage::Ready => Exit::Done,
        Stage::Degraded | Stage::Failed | Stage::Throttled | Stage::SafeMode => Exit::Failed,
        Stage::Starting
        | Stage::Restarting
        | Stage::Draining
        | Stage::Stopping
        | Stage::StandingBy => Exit::StillBusy,
    }
}
