//! The frames and what they carry. `man/gateway-control.7` describes the same for other clients.
//!
//! A client sends `{"type":"req","id":…,"method":…,"params":…}` and reads frames until the `res`
//! with its id; `event` frames about that request may come before it.

mod events;
mod failure;
mod hello;
pub mod json_rpc;
mod lease;
mod restart;
mod secrets;
mod status;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::events::{
    AskedRestart, CutEvent, DrainedEvent, DrainingEvent, GatewayEvent, LogEvent, LogLevel,
    RestartEvent, ShutdownEvent, ShutdownReason, SidecarEvent, StateEvent, SubscribeParams,
    Subscribed, Topic,
};
pub use self::failure::{Failure, FailureCode};
pub use self::hello::{Hello, HelloParams};
pub use self::lease::{
    DrainCause, DrainEvent, InhibitParams, Lease, LeaseStatus, ReleaseCause, ReleaseNotice,
};
pub use self::restart::{
    GenerationInfo, LastRestart, Outcome, PlannedStrategy, Progress, RestartParams,
    SidecarRestartParams,
};
pub use self::secrets::{SecretsAnswer, SecretsParams};
pub use self::status::{
    DrainStatus, REFUSED_COPIES, RecoveryRung, RecoveryStatus, SidecarStateName, SidecarStatus,
    Stage, Status,
};
use super::access::Authority;
use crate::text::words::{Words, words};

/// The version of this protocol, carried in every status.
pub const PROTOCOL_VERSION: u32 = 1;

/// The version of the hand-over of listeners and lock from an old gateway process to a new one.
/// Processes whose versions differ cannot hand over to each other.
pub const HANDOVER_VERSION: u32 = 1;

/// The longest frame either side reads, in bytes: far more than a status with some hundred sidecars.
pub const FRAME_MAX: usize = 1024 * 1024;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Frame {
    /// A question.
    Req {
        /// Chosen by the client, repeated in the answer.
        id: String,
        /// See [`Method`].
        method: String,
        #[serde(default, skip_serializing_if = "Value::is_null")]
        params: Value,
    },
    /// The answer to a question.
    Res {
        id: String,
        ok: bool,
        /// The result, when `ok`.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        payload: Value,
        /// Why it was not done.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
    /// Something happened.
    Event {
        /// An [`EventName`]; a later version may send others.
        event: String,
        #[serde(default, skip_serializing_if = "Value::is_null")]
        payload: Value,
        /// Counts the events of a subscription on this connection, from 1 and without a gap; absent of
        /// those about a request or lease.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        seq: Option<u64>,
    },
}

words! {
    /// The name of a [`Method`].
    pub enum MethodName {
        /// Which version both sides speak.
        Hello = "hello",
        /// How things stand.
        Status = "status",
        /// The next generation.
        Restart = "restart",
        /// One sidecar anew.
        RestartSidecar = "restart_sidecar",
        /// The configuration anew.
        Reload = "reload",
        /// The end.
        Stop = "stop",
        /// A lease.
        Inhibit = "inhibit",
        /// Lines with secrets.
        Secrets = "secrets",
        /// Out of safe mode.
        Recover = "recover",
        /// Events.
        Subscribe = "subscribe",
    }
}

impl MethodName {
    /// What a client must be allowed to do, to ask for this.
    pub fn needs(self) -> Authority {
        match self {
            Self::Hello | Self::Status | Self::Subscribe => Authority::Reader,
            Self::Restart
            | Self::RestartSidecar
            | Self::Reload
            | Self::Stop
            | Self::Inhibit
            | Self::Secrets
            | Self::Recover => Authority::Owner,
        }
    }
}

/// What can be asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Method {
    /// `hello`: a [`Hello`].
    Hello(HelloParams),
    /// `status`: a [`Status`].
    Status,
    /// `restart`: progress events, then an [`Outcome`].
    Restart(RestartParams),
    /// `restart_sidecar`: progress events, then an [`Outcome`].
    RestartSidecar(SidecarRestartParams),
    /// `reload`: progress events, then an [`Outcome`].
    Reload,
    /// `stop`: answered when accepted.
    Stop,
    /// `inhibit`: a [`Lease`], held until its connection or process ends or its time is over.
    Inhibit(InhibitParams),
    /// `secrets`: a [`SecretsAnswer`].
    Secrets(SecretsParams),
    /// `recover`: leave safe mode or a wait of the throttle at once; answered when the trial
    /// begins.
    Recover,
    /// `subscribe`: a [`Subscribed`], then each [`GatewayEvent`] of these topics until the connection ends.
    Subscribe(SubscribeParams),
}

impl Method {
    /// # Errors
    /// [`FailureCode::UnknownMethod`] and [`FailureCode::BadRequest`].
    pub fn parse(name: &str, params: Value) -> Result<Self, Failure> {
        let bad = |error: serde_json::Error| {
            Failure::new(FailureCode::BadRequest, format!("{name}: {error}"))
        };
        let Some(method) = MethodName::from_word(name) else {
            let message = format!("there is no method `{name}`");
            return Err(Failure::new(FailureCode::UnknownMethod, message));
        };
        if params.is_array() {
            let message = format!("{name}: parameters have names");
            return Err(Failure::new(FailureCode::BadRequest, message));
        }
        let absent = params.is_null();
        Ok(match method {
            MethodName::Hello if absent => Self::Hello(HelloParams::default()),
            MethodName::Hello => Self::Hello(serde_json::from_value(params).map_err(bad)?),
            MethodName::Status => Self::Status,
            MethodName::Restart if absent => Self::Restart(RestartParams::default()),
            MethodName::Restart => {
                let params: RestartParams = serde_json::from_value(params).map_err(bad)?;
                Self::Restart(params.checked()?)
            }
            MethodName::RestartSidecar => {
                let params: SidecarRestartParams = serde_json::from_value(params).map_err(bad)?;
                Self::RestartSidecar(params.checked()?)
            }
            MethodName::Reload => Self::Reload,
            MethodName::Stop => Self::Stop,
            MethodName::Inhibit => {
                let params: InhibitParams = serde_json::from_value(params).map_err(bad)?;
                Self::Inhibit(params.checked()?)
            }
            MethodName::Secrets => Self::Secrets(serde_json::from_value(params).map_err(bad)?),
            MethodName::Recover => Self::Recover,
            MethodName::Subscribe if absent => Self::Subscribe(SubscribeParams::default()),
            MethodName::Subscribe => Self::Subscribe(serde_json::from_value(params).map_err(bad)?),
        })
    }

    pub fn name(&self) -> MethodName {
        match self {
            Self::Hello(_) => MethodName::Hello,
            Self::Status => MethodName::Status,
            Self::Restart(_) => MethodName::Restart,
            Self::RestartSidecar(_) => MethodName::RestartSidecar,
            Self::Reload => MethodName::Reload,
            Self::Stop => MethodName::Stop,
            Self::Inhibit(_) => MethodName::Inhibit,
            Self::Secrets(_) => MethodName::Secrets,
            Self::Recover => MethodName::Recover,
            Self::Subscribe(_) => MethodName::Subscribe,
        }
    }

    /// The name on the wire and the parameters.
    pub fn encode(&self) -> (&'static str, Value) {
        let params = match self {
            Self::Hello(params) => serde_json::to_value(params).ok(),
            Self::Restart(params) => serde_json::to_value(params).ok(),
            Self::RestartSidecar(params) => serde_json::to_value(params).ok(),
            Self::Inhibit(params) => serde_json::to_value(params).ok(),
            Self::Secrets(params) => serde_json::to_value(params).ok(),
            Self::Subscribe(params) => serde_json::to_value(params).ok(),
            Self::Status | Self::Reload | Self::Stop | Self::Recover => None,
        };
        (self.name().word(), params.unwrap_or_default())
    }
}

words! {
    /// What happened.
    pub enum EventName {
        /// A step of a request: carries a [`Progress`].
        Progress = "progress",
        /// To the holder of a lease: a restart or stop waits for it; carries a [`DrainEvent`].
        Drain = "drain",
        /// To the holder of a lease: it is not waited for any longer.
        Deadline = "deadline",
        /// To the holder of a lease: its time is over; carries a [`ReleaseNotice`].
        Released = "released",
        /// To subscribers: what the gateway is doing; carries a [`StateEvent`].
        State = "state",
        /// To subscribers: how a sidecar is; carries a [`SidecarEvent`].
        Sidecar = "sidecar",
        /// To subscribers: a restart or reload; carries a [`RestartEvent`].
        Restart = "restart",
        /// To subscribers: the drain of a generation; carries a [`DrainingEvent`].
        Draining = "draining",
        /// To subscribers: a line of the log; carries a [`LogEvent`].
        Log = "log",
        /// To subscribers: the connection ends soon; carries a [`ShutdownEvent`].
        Shutdown = "shutdown",
    }
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
        let expected = RestartParams {
            wait_ms: Some(5),
            ..Default::default()
        };
        let method = Method::parse(&method, params).unwrap();
        assert_eq!(method, Method::Restart(expected));
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
        for (length, fits) in [(200, true), (201, false)] {
            let params = serde_json::json!({"reason": "ü".repeat(length)});
            assert_eq!(Method::parse("restart", params).is_ok(), fits, "{length}");
        }
        let restart = |sidecar: &str| {
            let params = serde_json::json!({"sidecar": sidecar, "waitMs": 5});
            Method::parse("restart_sidecar", params)
        };
        let expected = SidecarRestartParams {
            sidecar: "web-1".into(),
            wait_ms: Some(5),
            ..Default::default()
        };
        assert_eq!(restart("web-1"), Ok(Method::RestartSidecar(expected)));
        let long = "x".repeat(201);
        for wrong in ["", "a b", "\u{1b}[m", &long] {
            assert!(restart(wrong).is_err(), "{wrong}");
        }
        assert!(Method::parse("restart_sidecar", Value::Null).is_err());
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
            let failure = parse(wrong.clone()).unwrap_err();
            assert_eq!(failure.code, FailureCode::BadRequest, "{wrong}");
        }
    }
}
