//! Restarts and reloads: what is asked, the steps, how they end.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::failure::{Failure, FailureCode};
use crate::config::is_sidecar_name;
use crate::state::clients_seen::ClientsSeen;
use crate::state::passage::Passage;
use crate::state::terms::{
    ProgressStage, REASON_MAX, RequestEnd, RequestKindName, RequestOutcome, StrategyName,
};
use crate::text::absent;
use crate::text::words::{Words, as_text};

/// `restart`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RestartParams {
    /// Do not wait for old work: cut it.
    pub force: bool,
    /// How long old work may go on this time, in milliseconds; 0 means without limit, absent the
    /// configured `drain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// Why, at most 200 characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Answer only when the old generation is gone.
    pub drained: bool,
    /// In a fresh process, whatever the strategy would be.
    pub fresh: bool,
    /// The program on disk was replaced: a fresh process, and what is under way becomes part of it.
    pub update: bool,
}

impl RestartParams {
    pub(super) fn checked(self) -> Result<Self, Failure> {
        check_reason("restart", self.reason.as_deref())?;
        Ok(self)
    }
}

/// `restart_sidecar`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SidecarRestartParams {
    /// Which one.
    pub sidecar: String,
    /// As in [`RestartParams`].
    #[serde(default)]
    pub force: bool,
    /// As in [`RestartParams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
    /// As in [`RestartParams`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Answer only when its old copy is gone.
    #[serde(default)]
    pub drained: bool,
}

impl SidecarRestartParams {
    pub(super) fn checked(self) -> Result<Self, Failure> {
        // It is shown and recorded, also where it is refused.
        if !is_sidecar_name(&self.sidecar) || self.sidecar.len() > REASON_MAX {
            let message = "restart_sidecar: `sidecar` is not the name of a sidecar";
            return Err(Failure::new(FailureCode::BadRequest, message));
        }
        check_reason("restart_sidecar", self.reason.as_deref())?;
        Ok(self)
    }
}

fn check_reason(method: &str, reason: Option<&str>) -> Result<(), Failure> {
    let length = reason.map_or(0, |reason| reason.chars().count());
    if length <= REASON_MAX {
        return Ok(());
    }
    let message =
        format!("{method}: `reason` has {length} characters; at most {REASON_MAX} are kept");
    Err(Failure::new(FailureCode::BadRequest, message))
}

/// A step of a restart, reload or stop, as it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The request this is about.
    pub request: String,
    /// What is done.
    pub stage: ProgressStage,
    /// A sentence for people.
    pub text: String,
}

/// How a restart or reload ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The id under which it is recorded.
    pub request: String,
    /// done, coalesced (into the request named by `into`), unchanged or scheduled.
    pub outcome: RequestOutcome,
    /// The request that this one was coalesced into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The generation before and after.
    pub before: GenerationInfo,
    /// The generation before and after.
    pub after: GenerationInfo,
    /// The gateway's process afterwards, where it is another one than before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// How long it took until the next generation served all new requests, in milliseconds.
    pub took_ms: u64,
    /// Whether the old generation is gone already.
    pub drained: bool,
    /// What clients saw meanwhile; absent where that was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientsSeen>,
    /// What came of the readiness requests of the sidecars that were started or restarted, sent through
    /// the front door when the next generation served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passages: Vec<Passage>,
    /// What the operator should know, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A generation: its number and its sidecars.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GenerationInfo {
    /// Counted from 1 in each life of the gateway.
    pub number: u64,
    /// The sidecars and their process ids, null where none runs.
    #[serde(with = "absent::processes")]
    #[schemars(with = "absent::processes::Pairs")]
    pub sidecars: Vec<(String, u32)>,
    /// Those that are not ready; within this process only.
    #[serde(skip)]
    pub down: Vec<String>,
}

impl GenerationInfo {
    /// What it does after a restart that failed.
    pub fn stays(&self) -> String {
        match &self.down[..] {
            [] => format!("generation {} serves on", self.number),
            down => format!(
                "generation {} stays, without {}",
                self.number,
                down.join(" and ")
            ),
        }
    }

    /// Whether any of its sidecars is ready.
    pub fn serves(&self) -> bool {
        self.down.len() < self.sidecars.len()
    }
}

/// How a restart would be done now, and why: "respawn: systemd can be told of a fresh main process".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedStrategy {
    /// None where the text does not begin with the name of a strategy.
    pub name: Option<StrategyName>,
    text: String,
}

impl fmt::Display for PlannedStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<String> for PlannedStrategy {
    fn from(text: String) -> Self {
        let word = text.split([':', ',']).next().unwrap_or_default();
        Self {
            name: StrategyName::from_word(word),
            text,
        }
    }
}

impl FromStr for PlannedStrategy {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(text.to_owned().into())
    }
}

as_text!(PlannedStrategy as "PlannedStrategy", {
    "type": "string",
    "description": format!(
        "How a restart would be done now, and why. It begins with one of {}.",
        StrategyName::alternatives().replace('|', ", ")
    ),
    "pattern": format!("^({})[:,]", StrategyName::alternatives()),
});

/// The last restart or reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRestart {
    /// Its id.
    pub request: String,
    /// What was asked for.
    pub kind: RequestKindName,
    /// The sidecar that it was about, where it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// Why it was asked.
    pub reason: String,
    /// How it ended.
    pub outcome: RequestEnd,
    /// When it was asked, RFC 3339.
    pub at: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What the end of its drain cut in this process: requests with their age, and leases.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cut: Vec<String>,
    /// The streams and tunnels that it ended in this process, each with its age.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ended: Vec<String>,
    /// What clients saw meanwhile; absent where that was not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clients: Option<ClientsSeen>,
    /// What came of the readiness requests of the sidecars that were started or restarted, sent through
    /// the front door when the next generation served.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passages: Vec<Passage>,
}

impl LastRestart {
    /// What was asked for, for people.
    pub fn what(&self) -> String {
        self.kind.of(self.sidecar.as_deref())
    }

    /// What was asked for, and how that ended. Nothing of it took time, or ended work.
    pub fn of(request: String, kind: RequestKindName, reason: String, outcome: RequestEnd) -> Self {
        Self {
            request,
            kind,
            sidecar: None,
            reason,
            outcome,
            at: String::new(),
            took_ms: 0,
            cut: Vec::new(),
            ended: Vec::new(),
            clients: None,
            passages: Vec::new(),
        }
    }
}
