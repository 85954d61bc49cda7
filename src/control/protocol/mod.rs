//! The frames and what they carry. `man/gateway-control.7` describes the same for other clients.
//!
//! A client sends `{"type":"req","id":…,"method":…,"params":…}` and reads frames until the `res`
//! with its id; `event` frames about that request may come before it. Every frame is one line of
//! JSON.

mod failure;
mod lease;
mod restart;
mod status;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::failure::{Failure, FailureCode};
pub use self::lease::{
    DrainCause, DrainEvent, InhibitParams, Lease, LeaseStatus, REASON_MAX, ReleaseCause,
    ReleaseNotice,
};
pub use self::restart::{
    GenerationInfo, LastRestart, Outcome, PlannedStrategy, Progress, RestartParams,
};
pub use self::status::{
    DrainStatus, RecoveryRung, RecoveryStatus, SidecarStateName, SidecarStatus, Stage, Status,
};
use crate::text::words::words;

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
        /// An [`EventName`]; a later version may send others.
        event: String,
        /// Its details.
        #[serde(default, skip_serializing_if = "Value::is_null")]
        payload: Value,
    },
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
