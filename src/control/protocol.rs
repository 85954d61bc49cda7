//! The frames and what they carry. `man/gateway-control.7` describes the same for other clients.
//!
//! A client sends `{"type":"req","id":…,"method":…,"params":…}` and reads frames until the `res`
//! with its id; `event` frames about that request may come before it. Every frame is one line of
//! JSON.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::state::terms::{
    ProgressStage, RequestEnd, RequestKindName, RequestOutcome, RungName, StrategyName,
};
use crate::supervisor::SupervisorText;
use crate::text::words::{Words, as_text, words};

/// The version of this protocol, carried in every status.
pub const PROTOCOL_VERSION: u32 = 1;

/// The version of the hand-over of listeners and lock from an old gateway process to a new one.
/// Processes whose versions differ cannot hand over to each other.
pub const HANDOVER_VERSION: u32 = 1;

/// The longest frame either side reads, in bytes; a status with some hundred sidecars stays far
/// below.
pub const FRAME_MAX: usize = 1024 * 1024;

/// One line on the wire.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    /// A question.
    Req {
        /// Chosen by the client, repeated in the answer.
        id: String,
        /// What is asked: see [`Method`].
        method: String,
        /// Its parameters.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        params: Value,
    },
    /// The answer to a question.
    Res {
        /// The question's id.
        id: String,
        /// Whether it was done.
        ok: bool,
        /// The result, when done.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        payload: Value,
        /// Why not, when not.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
    /// Something happened.
    Event {
        /// What: "progress" carries a [`Progress`]; "drain" ([`DrainNotice`]), "deadline" and
        /// "released" go to holders of leases.
        event: String,
        /// Its details.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        payload: Value,
    },
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people: cause, place and next command.
    pub message: String,
}

/// For programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The frame or its parameters are wrong.
    BadRequest,
    /// No such method.
    UnknownMethod,
    /// Refused in the present state, as a restart while stopping.
    Rejected,
    /// The configuration is invalid; nothing was changed.
    ConfigInvalid,
    /// It was tried and failed; the previous generation serves on.
    Failed,
    /// Another process has just taken over: ask again.
    Moved,
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// `status`: a [`Status`].
    Status,
    /// `restart`: progress events, then an [`Outcome`].
    Restart(RestartParams),
    /// `reload`: progress events, then an [`Outcome`].
    Reload,
    /// `stop`: answered when accepted.
    Stop,
    /// `inhibit`: a [`Lease`], held until its connection or process ends or its time is over.
    Inhibit(InhibitParams),
    /// `recover`: leave safe mode or a wait of the throttle at once; answered when the trial
    /// begins.
    Recover,
}

impl Method {
    /// Reads a method and its parameters.
    ///
    /// # Errors
    /// [`FailureCode::UnknownMethod`] and [`FailureCode::BadRequest`].
    pub fn parse(name: &str, params: Value) -> Result<Self, Failure> {
        let bad = |error: serde_json::Error| Failure {
            code: FailureCode::BadRequest,
            message: format!("{name}: {error}"),
        };
        match name {
            "status" => Ok(Self::Status),
            "restart" if params.is_null() => Ok(Self::Restart(RestartParams::default())),
            "restart" => serde_json::from_value(params)
                .map(Self::Restart)
                .map_err(bad),
            "reload" => Ok(Self::Reload),
            "stop" => Ok(Self::Stop),
            "inhibit" => serde_json::from_value::<InhibitParams>(params)
                .map_err(bad)?
                .checked()
                .map(Self::Inhibit),
            "recover" => Ok(Self::Recover),
            _ => Err(Failure {
                code: FailureCode::UnknownMethod,
                message: format!("there is no method `{name}`"),
            }),
        }
    }

    /// The name on the wire and the parameters.
    pub fn encode(&self) -> (&'static str, Value) {
        match self {
            Self::Status => ("status", Value::Null),
            Self::Restart(params) => ("restart", serde_json::to_value(params).unwrap_or_default()),
            Self::Reload => ("reload", Value::Null),
            Self::Stop => ("stop", Value::Null),
            Self::Inhibit(params) => ("inhibit", serde_json::to_value(params).unwrap_or_default()),
            Self::Recover => ("recover", Value::Null),
        }
    }
}

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

/// The longest reason that is kept, in characters.
pub const REASON_MAX: usize = 200;

/// `inhibit`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InhibitParams {
    /// What the work is, 1 to [`REASON_MAX`] characters: it is named wherever something waits for
    /// it.
    pub why: String,
    /// After this many milliseconds nothing waits for it any more, however long it goes on; absent
    /// means without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl InhibitParams {
    fn checked(self) -> Result<Self, Failure> {
        let refuse = |message: String| {
            Err(Failure {
                code: FailureCode::BadRequest,
                message,
            })
        };
        match self.why.trim().chars().count() {
            0 => refuse("inhibit: `why` is empty: say what the work is".into()),
            1..=REASON_MAX if self.ttl_ms == Some(0) => {
                refuse("inhibit: `ttlMs` 0 holds nothing".into())
            }
            1..=REASON_MAX => Ok(self),
            length => refuse(format!(
                "inhibit: `why` has {length} characters; at most {REASON_MAX} are kept"
            )),
        }
    }
}

/// The answer to `inhibit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Its number in this life of the gateway.
    pub lease: u64,
    /// The process that it belongs to; 0 where the system does not tell.
    pub pid: u32,
}

words! {
    /// What a drain is part of.
    pub enum DrainCause {
        /// A restart or reload.
        Restart = "restart",
        /// A stop.
        Stop = "stop",
    }
}

/// The event "drain": a restart or stop began and waits for the lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainNotice {
    /// What waits.
    pub cause: DrainCause,
    /// Milliseconds until it goes on without the lease, which the event "deadline" tells; absent
    /// without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// A step of a restart, reload or stop, as it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The request this is about.
    pub request: String,
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
    /// The sidecars and their process ids, 0 where none runs.
    pub sidecars: Vec<(String, u32)>,
}

words! {
    /// What a gateway is doing.
    pub enum Stage {
        /// The first generation is being built.
        Starting = "starting",
        /// The current generation serves.
        Ready = "ready",
        /// It serves, but a sidecar is down.
        Degraded = "degraded",
        /// The next generation is being built.
        Restarting = "restarting",
        /// It serves, and an older generation finishes its work.
        Draining = "draining",
        /// It ends.
        Stopping = "stopping",
        /// The first generation failed and is tried again.
        Failed = "failed",
        /// Earlier lives ended too soon: the sidecars wait before they are started, the front door
        /// answers 503.
        Throttled = "throttled",
        /// Front door and control only: the sidecars are off until a trial or `recover`.
        SafeMode = "safe_mode",
        /// Another gateway serves; this one waits for its end.
        StandingBy = "standing_by",
    }
}

impl Stage {
    /// For people.
    pub fn in_words(self) -> String {
        self.word().replace('_', " ")
    }

    /// Whether `/readyz` says that it is ready.
    pub fn serves(self) -> bool {
        matches!(self, Self::Ready | Self::Draining | Self::Restarting)
    }
}

/// `status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// [`PROTOCOL_VERSION`]
    pub protocol: u32,
    /// The gateway's version.
    pub version: String,
    /// The instance's name.
    pub instance: String,
    /// The gateway's process id.
    pub pid: u32,
    /// The version of the hand-over between an old and a new process, [`HANDOVER_VERSION`]; 0 of a
    /// gateway that knows none.
    #[serde(default)]
    pub handover: u32,
    /// The program that it was started from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<String>,
    /// What it is doing.
    pub stage: Stage,
    /// The same in words, with reasons.
    pub detail: String,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// The current generation; 0 while the first is being built.
    pub generation: u64,
    /// Who restarts the gateway when it dies, and how that is known.
    pub supervisor: SupervisorText,
    /// How a restart would be done now, and why.
    pub strategy: PlannedStrategy,
    /// The addresses of the front door.
    pub listeners: Vec<String>,
    /// The configuration file, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The state directory.
    pub state_dir: String,
    /// Client connections open now.
    pub connections: u64,
    /// Requests being answered or held now.
    pub requests: u64,
    /// Tunnels open now.
    pub tunnels: u64,
    /// Requests waiting for a sidecar now.
    pub held: u64,
    /// The sidecars of the current generation.
    pub sidecars: Vec<SidecarStatus>,
    /// Older generations that finish their work.
    pub drainers: Vec<DrainStatus>,
    /// Work besides requests that a restart or stop would wait for.
    #[serde(default)]
    pub leases: Vec<LeaseStatus>,
    /// Why it does not serve as configured, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recovery: Option<RecoveryStatus>,
    /// The last restart or reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<LastRestart>,
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

as_text!(
    PlannedStrategy,
    format!(
        "How a restart would be done now, and why. It begins with one of {}.",
        StrategyName::alternatives().replace('|', ", ")
    ),
    format!("^({})[:,]", StrategyName::alternatives()),
);

/// A lease: work that is not a request, but holds a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// Its number in this life of the gateway.
    pub lease: u64,
    /// What the work is, secrets hidden.
    pub why: String,
    /// The process that it belongs to; 0 where the system does not tell.
    pub pid: u32,
    /// Milliseconds since it was taken.
    pub held_ms: u64,
    /// Milliseconds until it ages out; absent without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

words! {
    /// Why it does not serve as configured.
    pub enum RecoveryRung {
        /// Earlier lives ended too soon: it waits before it starts the sidecars.
        Throttled = "throttled",
        /// Front door and control only.
        SafeMode = "safe_mode",
        /// It serves the last configuration that worked.
        LastGood = "last_good",
    }
}

impl RecoveryRung {
    /// None where it serves as configured.
    pub fn of(rung: RungName) -> Option<Self> {
        match rung {
            RungName::Normal => None,
            RungName::Throttled => Some(Self::Throttled),
            RungName::SafeMode => Some(Self::SafeMode),
            RungName::LastGood => Some(Self::LastGood),
        }
    }

    /// For people.
    pub fn in_words(self) -> String {
        self.word().replace('_', " ")
    }
}

/// A rung of the recovery ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RecoveryStatus {
    /// The rung.
    pub rung: RecoveryRung,
    /// Why, in a sentence.
    pub reason: String,
    /// Milliseconds until it is tried again by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_ms: Option<u64>,
}

words! {
    /// What the process of a sidecar does.
    pub enum SidecarStateName {
        /// It was started and is not ready.
        Starting = "starting",
        /// It is ready.
        Ready = "ready",
        /// It ended, and is started again after a wait.
        Backoff = "backoff",
        /// It was asked to end.
        Stopping = "stopping",
        /// It does not run.
        Stopped = "stopped",
    }
}

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// Its name.
    pub name: String,
    /// Whether it runs and is ready.
    pub state: SidecarStateName,
    /// The cause, where it is not ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Its process id, 0 when none runs.
    pub pid: u32,
    /// Its port on loopback.
    pub port: u16,
    /// Unplanned restarts in this generation.
    pub restarts: u64,
    /// Its command line, secrets hidden.
    pub command: String,
}

/// An older generation that finishes its work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// Its number.
    pub generation: u64,
    /// The process that it lives in, where that is an older one; else 0.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub pid: u32,
    /// Requests that it still answers.
    pub requests: u64,
    /// Tunnels that it still carries.
    pub tunnels: u64,
    /// Leases that it still waits for.
    #[serde(default)]
    pub leases: u64,
    /// Milliseconds until what is left is cut; absent without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// What blocks it, at most 8 and "+N more".
    pub blockers: Vec<String>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// The last restart or reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRestart {
    /// Its id.
    pub request: String,
    /// What was asked for.
    pub kind: RequestKindName,
    /// Why it was asked.
    pub reason: String,
    /// How it ended.
    pub outcome: RequestEnd,
    /// When it was asked, RFC 3339.
    pub at: String,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_have_the_documented_shape() {
        let frame: Frame = serde_json::from_str(
            r#"{"type":"req","id":"1","method":"restart","params":{"waitMs":5}}"#,
        )
        .unwrap();
        let Frame::Req { method, params, .. } = frame else {
            panic!("a request")
        };
        assert_eq!(
            Method::parse(&method, params).unwrap(),
            Method::Restart(RestartParams {
                wait_ms: Some(5),
                ..Default::default()
            })
        );
        let frame = Frame::Res {
            id: "1".into(),
            ok: true,
            payload: Value::Null,
            error: None,
        };
        assert_eq!(
            serde_json::to_string(&frame).unwrap(),
            r#"{"type":"res","id":"1","ok":true}"#
        );
        assert!(Method::parse("restart", serde_json::json!({"froce": true})).is_err());
        assert_eq!(
            Method::parse("x", Value::Null).unwrap_err().code,
            FailureCode::UnknownMethod
        );
    }

    #[test]
    fn a_lease_needs_a_reason_and_some_time() {
        let parse = |params: Value| Method::parse("inhibit", params);
        let params = InhibitParams {
            why: "backup".into(),
            ttl_ms: Some(5),
        };
        assert_eq!(
            parse(serde_json::json!({"why": "backup", "ttlMs": 5})).unwrap(),
            Method::Inhibit(params)
        );
        for wrong in [
            Value::Null,
            serde_json::json!({}),
            serde_json::json!({"why": " "}),
            serde_json::json!({"why": "x".repeat(201)}),
            serde_json::json!({"why": "x", "ttlMs": 0}),
            serde_json::json!({"why": "x", "forever": true}),
        ] {
            assert_eq!(
                parse(wrong.clone()).unwrap_err().code,
                FailureCode::BadRequest,
                "{wrong}"
            );
        }
    }
}
