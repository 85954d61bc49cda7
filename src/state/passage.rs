//! What came of a passage: the readiness request of a sidecar, sent by the gateway itself the way that
//! clients come, once the sidecar serves after a restart.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::human::span;

/// One sidecar's readiness request on its way through the front door. It counts among no client's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Passage {
    /// The sidecar that it was for.
    pub sidecar: String,
    /// What was asked: "HEAD /", or "GET /PATH" of its `ready`; absent where it asks for nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    #[serde(flatten)]
    pub end: PassageEnd,
}

/// How a passage ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    tag = "result"
)]
pub enum PassageEnd {
    /// The sidecar answered, whatever it answered.
    Answered {
        /// Its status.
        status: u16,
        /// How long that took, in milliseconds.
        took_ms: u64,
    },
    /// The sidecar did not get to it in time, but answered others meanwhile.
    Behind {
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// The sidecar answered nobody in time.
    Unanswered {
        /// How long it was waited for, in milliseconds.
        waited_ms: u64,
    },
    /// There was an end before an answer of the sidecar.
    Failed {
        /// Why.
        why: String,
    },
    /// Nothing was asked.
    NotAsked {
        /// Why.
        why: String,
    },
}

impl Passage {
    /// Whether clients get no answer.
    pub fn failed(&self) -> bool {
        matches!(
            self.end,
            PassageEnd::Failed { .. } | PassageEnd::Unanswered { .. }
        )
    }

    /// Whether there is something to look at: no answer, or one that says that the server failed.
    pub fn is_bad(&self) -> bool {
        match self.end {
            PassageEnd::Answered { status, .. } => status >= 500,
            PassageEnd::Failed { .. } | PassageEnd::Unanswered { .. } => true,
            PassageEnd::Behind { .. } | PassageEnd::NotAsked { .. } => false,
        }
    }

    /// All of it in one sentence for people.
    pub fn sentence(&self) -> String {
        let name = &self.sidecar;
        let request = self.request.as_deref().unwrap_or("nothing");
        let what = match &self.end {
            PassageEnd::Answered { status, took_ms } => {
                format!(
                    "{name} answered {request} with {status} in {}",
                    span(*took_ms)
                )
            }
            PassageEnd::Behind { waited_ms } => format!(
                "{name} did not get to {request} within {}, and answered others meanwhile",
                span(*waited_ms)
            ),
            PassageEnd::Unanswered { waited_ms } => format!(
                "{request} got no answer of {name} within {}",
                span(*waited_ms)
            ),
            PassageEnd::Failed { why } => format!("{request} got no answer of {name}: {why}"),
            PassageEnd::NotAsked { why } => format!("{name} was not asked: {why}"),
        };
        format!("through the front door: {what}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_in_words_and_on_the_wire() {
        let passage = |request: Option<&str>, end| Passage {
            sidecar: "main".into(),
            request: request.map(str::to_owned),
            end,
        };
        let answered = |status| PassageEnd::Answered { status, took_ms: 3 };
        let why = "answered 502".to_owned();
        for (passage, bad, failed, words) in [
            (
                passage(Some("HEAD /"), answered(404)),
                false,
                false,
                "main answered HEAD / with 404 in 3 ms",
            ),
            (
                passage(Some("GET /up"), answered(500)),
                true,
                false,
                "main answered GET /up with 500 in 3 ms",
            ),
            (
                passage(Some("HEAD /"), PassageEnd::Failed { why: why.clone() }),
                true,
                true,
                "HEAD / got no answer of main: answered 502",
            ),
            (
                passage(Some("HEAD /"), PassageEnd::Unanswered { waited_ms: 5000 }),
                true,
                true,
                "HEAD / got no answer of main within 5.0 s",
            ),
            (
                passage(Some("HEAD /"), PassageEnd::Behind { waited_ms: 5000 }),
                false,
                false,
                "main did not get to HEAD / within 5.0 s, and answered others meanwhile",
            ),
            (
                passage(None, PassageEnd::NotAsked { why }),
                false,
                false,
                "main was not asked: answered 502",
            ),
        ] {
            assert_eq!(
                passage.sentence(),
                format!("through the front door: {words}")
            );
            assert_eq!((passage.is_bad(), passage.failed()), (bad, failed));
        }
        let json = serde_json::to_value(passage(Some("HEAD /"), answered(200))).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "sidecar": "main", "request": "HEAD /", "result": "answered", "status": 200, "tookMs": 3,
            })
        );
    }
}
