//! The frames and what they carry. `man/gateway-control.7` describes the same for other clients.
//!
//! A client sends `{"type":"req","id":…,"method":…,"params":…}` and reads frames until the `res` with its id; `event`
//! frames about that request may come before it. Every frame is one line of JSON.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The version of this protocol, carried in every status.
pub const PROTOCOL_VERSION: u32 = 1;

/// The longest frame either side reads, in bytes; a status with some hundred sidecars stays far below.
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
        /// What: "progress" carries a [`Progress`].
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
}

impl Method {
    /// Reads a method and its parameters.
    ///
    /// # Errors
    /// [`FailureCode::UnknownMethod`] and [`FailureCode::BadRequest`].
    pub fn parse(name: &str, params: Value) -> Result<Self, Failure> {
        let bad = |error: serde_json::Error| Failure { code: FailureCode::BadRequest, message: format!("{name}: {error}") };
        match name {
            "status" => Ok(Self::Status),
            "restart" if params.is_null() => Ok(Self::Restart(RestartParams::default())),
            "restart" => serde_json::from_value(params).map(Self::Restart).map_err(bad),
            "reload" => Ok(Self::Reload),
            "stop" => Ok(Self::Stop),
            _ => Err(Failure { code: FailureCode::UnknownMethod, message: format!("there is no method `{name}`") }),
        }
    }

    /// The name on the wire and the parameters.
    pub fn encode(&self) -> (&'static str, Value) {
        match self {
            Self::Status => ("status", Value::Null),
            Self::Restart(params) => ("restart", serde_json::to_value(params).unwrap_or_default()),
            Self::Reload => ("reload", Value::Null),
            Self::Stop => ("stop", Value::Null),
        }
    }
}

/// `restart`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct RestartParams {
    /// Do not wait for old work: cut it.
    pub force: bool,
    /// How long old work may go on this time, in milliseconds; 0 means without limit, absent the configured `drain`.
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

/// A step of a restart, reload or stop, as it happens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The request this is about.
    pub request: String,
    /// A word for programs: accepted, preparing, starting, ready, switched, fading, holding, draining, drained.
    pub stage: String,
    /// A sentence for people.
    pub text: String,
}

/// How a restart or reload ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// The id under which it is recorded.
    pub request: String,
    /// `done`, `coalesced` (into the request named by `into`) or `unchanged` (a reload with nothing to do).
    pub outcome: String,
    /// The request that this one was coalesced into.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub into: Option<String>,
    /// The generation before and after.
    pub before: GenerationInfo,
    /// The generation before and after.
    pub after: GenerationInfo,
    /// How long it took until the next generation served all new requests, in milliseconds.
    pub took_ms: u64,
    /// Whether the old generation is gone already.
    pub drained: bool,
    /// What the operator should know, in sentences.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// A generation: its number and its sidecars.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GenerationInfo {
    /// Counted from 1 in each life of the gateway.
    pub number: u64,
    /// The sidecars and their process ids, 0 where none runs.
    pub sidecars: Vec<(String, u32)>,
}

/// What a gateway is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// The first generation is being built.
    Starting,
    /// The current generation serves.
    Ready,
    /// It serves, but a sidecar is down.
    Degraded,
    /// The next generation is being built.
    Restarting,
    /// It serves, and an older generation finishes its work.
    Draining,
    /// It is on its way out.
    Stopping,
    /// The first generation failed and is tried again.
    Failed,
}

/// `status`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// What it is doing.
    pub stage: Stage,
    /// The same in words, with reasons.
    pub detail: String,
    /// Milliseconds since the process started.
    pub uptime_ms: u64,
    /// The current generation; 0 while the first is being built.
    pub generation: u64,
    /// Who restarts the gateway when it dies, and how that is known.
    pub supervisor: String,
    /// How a restart would be done now, and why.
    pub strategy: String,
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
    /// The last restart or reload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_restart: Option<LastRestart>,
}

/// One sidecar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SidecarStatus {
    /// Its name.
    pub name: String,
    /// starting, ready, backoff, stopping, stopped.
    pub state: String,
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastRestart {
    /// Its id.
    pub request: String,
    /// restart or reload.
    pub kind: String,
    /// Why it was asked.
    pub reason: String,
    /// done, failed: CAUSE, …
    pub outcome: String,
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
        let frame: Frame = serde_json::from_str(r#"{"type":"req","id":"1","method":"restart","params":{"waitMs":5}}"#).unwrap();
        let Frame::Req { method, params, .. } = frame else { panic!("a request") };
        assert_eq!(Method::parse(&method, params).unwrap(), Method::Restart(RestartParams { wait_ms: Some(5), ..Default::default() }));
        let frame = Frame::Res { id: "1".into(), ok: true, payload: Value::Null, error: None };
        assert_eq!(serde_json::to_string(&frame).unwrap(), r#"{"type":"res","id":"1","ok":true}"#);
        assert!(Method::parse("restart", serde_json::json!({"froce": true})).is_err());
        assert_eq!(Method::parse("x", Value::Null).unwrap_err().code, FailureCode::UnknownMethod);
    }
}
