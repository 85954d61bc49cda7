//! Why a request was not done.

use serde::{Deserialize, Serialize};

use crate::text::words::words;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// For people: cause, place and next command.
    pub message: String,
}

impl Failure {
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { code, message }
    }
}

words! {
    pub enum FailureCode {
        /// The frame or its parameters are wrong.
        BadRequest = "bad_request",
        /// There is no such method.
        UnknownMethod = "unknown_method",
        /// The client's token does not allow this method.
        Forbidden = "forbidden",
        /// No version of the protocol that both sides speak.
        Unsupported = "unsupported",
        /// Refused in the present state, as a restart while stopping.
        Rejected = "rejected",
        /// The configuration is invalid; nothing was changed.
        ConfigInvalid = "config_invalid",
        /// It was tried and failed; the previous generation serves on.
        Failed = "failed",
        /// Another process has just taken over: ask again.
        Moved = "moved",
    }
}
