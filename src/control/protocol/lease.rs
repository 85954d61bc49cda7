//! Leases: work that is not a request, but that a restart or stop waits for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::failure::{Failure, FailureCode};
use crate::state::terms::REASON_MAX;
use crate::text::absent;
use crate::text::words::words;

/// `inhibit`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InhibitParams {
    /// What the work is, 1 to [`REASON_MAX`] characters.
    pub why: String,
    /// After this many milliseconds nothing waits for it any more; absent means without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl InhibitParams {
    pub(super) fn checked(self) -> Result<Self, Failure> {
        let message = match self.why.trim().chars().count() {
            0 => "inhibit: `why` is empty: say what the work is".to_owned(),
            1..=REASON_MAX if self.ttl_ms == Some(0) => {
                "inhibit: `ttlMs` 0 holds nothing".to_owned()
            }
            1..=REASON_MAX => return Ok(self),
            length => {
                format!("inhibit: `why` has {length} characters; at most {REASON_MAX} are kept")
            }
        };
        Err(Failure::new(FailureCode::BadRequest, message))
    }
}

/// The answer to `inhibit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Its number in this life of the gateway.
    pub lease: u64,
    /// The process that it belongs to; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "absent::zero")]
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

/// [`EventName::Drain`](super::EventName::Drain)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainEvent {
    pub cause: DrainCause,
    /// Milliseconds until the event "deadline"; absent without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// A lease: work that is not a request, but holds a drain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// Its number in this life of the gateway.
    pub lease: u64,
    /// What the work is, secrets hidden.
    pub why: String,
    /// The process that it belongs to; absent where the system does not tell.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub pid: u32,
    /// Milliseconds since it was taken.
    pub held_ms: u64,
    /// Milliseconds until it ages out; absent without limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

words! {
    /// Why a lease ended before its connection did.
    pub enum ReleaseCause {
        /// Its time was over.
        Ttl = "ttl",
    }
}

/// [`EventName::Released`](super::EventName::Released)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseNotice {
    pub cause: ReleaseCause,
}
