//! `subscribe`: what a gateway tells, as it happens, those who follow it.

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::EventName;
use super::restart::{LastRestart, Progress};
use super::status::{DrainStatus, SidecarStateName, Stage};
use crate::state::terms::RequestKindName;
use crate::text::absent;
use crate::text::words::words;

words! {
    /// What can be followed.
    pub enum Topic {
        /// What the gateway is doing.
        State = "state",
        /// The sidecars of the current generation.
        Sidecar = "sidecar",
        /// Restarts and reloads: asked for, step by step, and how they end.
        Restart = "restart",
        /// Older generations that finish their work, and what the end of that cuts.
        Drain = "drain",
        /// The lines of the log, with those of the sidecars.
        Log = "log",
    }
}

/// `subscribe`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscribeParams {
    /// Absent: every topic but the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topics: Option<BTreeSet<Topic>>,
}

impl SubscribeParams {
    /// What is asked for.
    pub fn topics(&self) -> BTreeSet<Topic> {
        let usual = [Topic::State, Topic::Sidecar, Topic::Restart, Topic::Drain];
        let topics = self.topics.clone();
        topics.unwrap_or_else(|| BTreeSet::from(usual))
    }
}

/// The answer to `subscribe`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscribed {
    /// What this connection follows from now on.
    pub topics: BTreeSet<Topic>,
    /// The process that tells.
    pub pid: u32,
}

/// What is told to those who subscribed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "event", content = "payload", rename_all = "lowercase")]
pub enum GatewayEvent {
    /// Of the topic state.
    State(StateEvent),
    /// Of the topic sidecar.
    Sidecar(SidecarEvent),
    /// Of the topic restart.
    Restart(RestartEvent),
    /// Of the topic drain.
    Draining(DrainingEvent),
    /// Of the topic log.
    Log(LogEvent),
    /// Told to everybody who subscribed, whatever the topics.
    Shutdown(ShutdownEvent),
}

impl GatewayEvent {
    /// The name on the wire.
    pub fn name(&self) -> EventName {
        match self {
            Self::State(_) => EventName::State,
            Self::Sidecar(_) => EventName::Sidecar,
            Self::Restart(_) => EventName::Restart,
            Self::Draining(_) => EventName::Draining,
            Self::Log(_) => EventName::Log,
            Self::Shutdown(_) => EventName::Shutdown,
        }
    }

    /// The topic that it belongs to; none for what everybody is told.
    pub fn topic(&self) -> Option<Topic> {
        match self {
            Self::State(_) => Some(Topic::State),
            Self::Sidecar(_) => Some(Topic::Sidecar),
            Self::Restart(_) => Some(Topic::Restart),
            Self::Draining(_) => Some(Topic::Drain),
            Self::Log(_) => Some(Topic::Log),
            Self::Shutdown(_) => None,
        }
    }

    /// The payload on the wire.
    pub fn payload(&self) -> Value {
        let payload = match self {
            Self::State(payload) => serde_json::to_value(payload),
            Self::Sidecar(payload) => serde_json::to_value(payload),
            Self::Restart(payload) => serde_json::to_value(payload),
            Self::Draining(payload) => serde_json::to_value(payload),
            Self::Log(payload) => serde_json::to_value(payload),
            Self::Shutdown(payload) => serde_json::to_value(payload),
        };
        payload.unwrap_or_default()
    }

    /// The event of these parts of a frame; none where it is none of these, as of a later version.
    pub fn of(event: EventName, payload: Value) -> Option<Self> {
        let whole = serde_json::json!({"event": event, "payload": payload});
        serde_json::from_value(whole).ok()
    }
}

/// What the gateway is doing, at first and whenever that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StateEvent {
    /// What it is doing.
    pub stage: Stage,
    /// The same in words, with reasons.
    pub detail: String,
    /// The current generation; absent while the first is being built.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub generation: u64,
    /// The gateway's process id.
    pub pid: u32,
}

/// A sidecar of the current generation, at first and whenever it changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarEvent {
    /// Its name.
    pub name: String,
    /// Whether it runs and is ready.
    pub state: SidecarStateName,
    /// Why it is not ready, or what is odd about one that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// The generation that it belongs to.
    pub generation: u64,
    /// Its process id; absent when none runs.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub pid: u32,
    /// Unplanned restarts in this generation.
    pub restarts: u64,
    /// Whether it ended unplanned again and again, and has not been ready for ten minutes since.
    pub failing: bool,
    /// It is no part of the current generation any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
}

/// A restart or reload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum RestartEvent {
    /// It is asked for.
    Asked(AskedRestart),
    /// One step of it.
    Step(Progress),
    /// It has ended, whether done, failed or refused.
    Ended(Box<LastRestart>),
}

/// A restart or reload that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AskedRestart {
    /// Its id.
    pub request: String,
    /// What is asked for.
    pub kind: RequestKindName,
    /// The sidecar that it is about, where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// Why.
    pub reason: String,
}

/// The drain of an older generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "phase", rename_all = "lowercase")]
pub enum DrainingEvent {
    /// A generation begins to finish its work, with what it has at this moment.
    Began(DrainStatus),
    /// The time to finish was over.
    Cut(CutEvent),
    /// It is gone.
    Ended(DrainedEvent),
}

/// Work that the end of a drain ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CutEvent {
    /// The sidecar that did the work.
    pub sidecar: String,
    /// The restart or reload that this is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// What was cut: requests with their age, and leases.
    pub cut: Vec<String>,
    /// Streams and tunnels that were ended in their time, each with its age.
    pub ended: Vec<String>,
}

/// A drain that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DrainedEvent {
    /// The generation that is gone.
    pub generation: u64,
}

words! {
    /// How grave a line of the log is.
    pub enum LogLevel {
        /// Something failed.
        Error = "error",
        /// Something is wrong.
        Warning = "warning",
        /// Something happened.
        Info = "info",
    }
}

impl From<tracing::Level> for LogLevel {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::ERROR => Self::Error,
            tracing::Level::WARN => Self::Warning,
            _ => Self::Info,
        }
    }
}

/// A line of the log, secrets hidden.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogEvent {
    /// How grave it is.
    pub level: LogLevel,
    /// The sidecar that printed it; absent of the gateway's own lines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sidecar: Option<String>,
    /// The line.
    pub text: String,
    /// So many lines before it were left out, because they were not read fast enough.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub lost: u64,
}

words! {
    /// Why a connection ends.
    pub enum ShutdownReason {
        /// Another process takes over, or is started when this one has ended.
        Restart = "restart",
        /// The gateway stops.
        Stop = "stop",
    }
}

/// The gateway ends this connection soon: with its process, or once another one serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShutdownEvent {
    /// Why.
    pub reason: ShutdownReason,
    /// So many milliseconds after the end of the connection another process is expected to answer; absent of a stop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_expected_ms: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_as_it_was_written_and_one_of_a_later_version_is_none() {
        let event = GatewayEvent::Shutdown(ShutdownEvent {
            reason: ShutdownReason::Restart,
            restart_expected_ms: Some(0),
        });
        let payload = event.payload();
        let expected = serde_json::json!({"reason": "restart", "restartExpectedMs": 0});
        assert_eq!(payload, expected);
        assert_eq!(GatewayEvent::of(event.name(), payload), Some(event));
        let later = serde_json::json!({"reason": "nap"});
        assert_eq!(GatewayEvent::of(EventName::Shutdown, later), None);
        assert_eq!(GatewayEvent::of(EventName::Progress, Value::Null), None);
    }

    #[test]
    fn the_log_is_followed_only_by_those_who_name_it() {
        let all = SubscribeParams::default().topics();
        assert!(!all.contains(&Topic::Log) && all.len() == 4, "{all:?}");
        let named: SubscribeParams = serde_json::from_str(r#"{"topics":["log"]}"#).unwrap();
        assert_eq!(named.topics(), BTreeSet::from([Topic::Log]));
        assert!(serde_json::from_str::<SubscribeParams>(r#"{"topics":["moon"]}"#).is_err());
    }
}
