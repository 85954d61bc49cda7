//! Lines of a sidecar's output in which the log hides a secret.

use serde::{Deserialize, Serialize};

/// Of which sidecar they are wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecretsParams {
    pub sidecar: String,
}

/// The lines as they were printed, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretsAnswer {
    pub lines: Vec<String>,
}
