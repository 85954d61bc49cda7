//! `hello`: which version of the protocol both sides speak, and what the client may ask.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use super::MethodName;
use super::failure::{Failure, FailureCode};

/// The versions that this program speaks.
pub const VERSIONS: RangeInclusive<u32> = super::PROTOCOL_VERSION..=super::PROTOCOL_VERSION;

/// `hello`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HelloParams {
    /// The oldest version that the client speaks. Absent: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_protocol: Option<u32>,
    /// The newest one. Absent: whatever comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_protocol: Option<u32>,
}

impl HelloParams {
    /// The newest version that both sides speak.
    ///
    /// # Errors
    /// [`FailureCode::Unsupported`] where there is none.
    pub fn agreed(&self) -> Result<u32, Failure> {
        let oldest = self.min_protocol.unwrap_or(1).max(*VERSIONS.start());
        let newest = self.max_protocol.unwrap_or(u32::MAX).min(*VERSIONS.end());
        if oldest <= newest {
            return Ok(newest);
        }
        let (start, end) = (VERSIONS.start(), VERSIONS.end());
        let speaks = match start == end {
            true => format!("version {start}"),
            false => format!("the versions {start} to {end}"),
        };
        let why = format!("this gateway speaks {speaks} of the control protocol");
        Err(Failure::new(FailureCode::Unsupported, why))
    }
}

/// The answer to `hello`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version that both sides speak.
    pub protocol: u32,
    /// The gateway's program.
    pub version: String,
    pub instance: String,
    /// The process that answers.
    pub pid: u32,
    /// What this client may ask.
    pub methods: Vec<MethodName>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_speak_is_agreed_on() {
        let agreed = |min_protocol, max_protocol| {
            let hello = HelloParams {
                min_protocol,
                max_protocol,
            };
            hello.agreed().map_err(|failure| failure.code)
        };
        for (min, max) in [
            (None, None),
            (Some(1), None),
            (Some(0), Some(9)),
            (None, Some(1)),
        ] {
            assert_eq!(agreed(min, max), Ok(1), "{min:?} {max:?}");
        }
        for (min, max) in [(Some(2), None), (None, Some(0)), (Some(3), Some(2))] {
            assert_eq!(
                agreed(min, max),
                Err(FailureCode::Unsupported),
                "{min:?} {max:?}"
            );
        }
    }
}
