//! How a generation came to its early end, and which servers do not bear a second copy.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::control::protocol::REFUSED_COPIES;
use crate::sidecar::SidecarFailure;

/// What to do about a server that must not run twice. It stands after the cause, which may be another.
/// `gatewayctl restart` has no such flag: the start has it, and the installation.
pub const EXCLUSIVE: &str = "if two copies must not run at once, use --exclusive (gateway run, gatewayctl install) or overlap = false in [sidecar.NAME]";

/// How a generation came to its early end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Obituary {
    pub generation: u64,
    /// The sidecar that died.
    pub sidecar: String,
    /// How long after it had begun to serve.
    pub after_ms: u64,
    /// None where the gateway lost track of it.
    pub failure: Option<SidecarFailure>,
}

impl Obituary {
    /// Why the restart failed, with the last words and then what may help on lines of their own.
    pub fn why(&self) -> String {
        let Self {
            sidecar, after_ms, ..
        } = self;
        let how = self
            .failure
            .as_ref()
            .map_or("ended", |failure| &failure.cause);
        let what = format!(
            "sidecar {sidecar} {how} {after_ms} ms after it had taken over, while the copy before it still ran"
        );
        let advice = if self.is_refusal() {
            format!("\n  = {EXCLUSIVE}")
        } else {
            String::new()
        };
        let words = self.failure.iter().flat_map(|failure| &failure.last_words);
        let words: String = words.map(|line| format!("\n  | {line}")).collect();
        what + &words + &advice
    }

    /// Whether it may have ended because another copy ran.
    pub fn is_refusal(&self) -> bool {
        let failure = self.failure.as_ref();
        failure.is_some_and(SidecarFailure::may_blame_another)
    }
}

/// How often the second copy of each sidecar ended by itself while the first one ran, since one did
/// not.
#[derive(Debug, Default)]
pub struct RefusedCopies(BTreeMap<String, u32>);

impl RefusedCopies {
    pub fn count(&mut self, sidecar: &str) {
        *self.0.entry(sidecar.to_owned()).or_default() += 1;
    }

    pub fn of(&self, sidecar: &str) -> u32 {
        self.0.get(sidecar).copied().unwrap_or(0)
    }

    /// The copies of a generation have outlived those before.
    pub fn forget(&mut self) {
        self.0.clear();
    }

    /// What to say about them.
    pub fn remarks(&self) -> Vec<String> {
        let often = self.0.iter().filter(|(_, times)| **times >= REFUSED_COPIES);
        often
            .map(|(name, times)| {
                format!(
                    "the last {times} restarts failed because a second copy of {name} ended while the first one ran: {EXCLUSIVE}"
                )
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_ended_twice_beside_the_first_copy_is_named() {
        let mut refused = RefusedCopies::default();
        refused.count("main");
        assert!(refused.remarks().is_empty());
        refused.count("main");
        assert!(refused.remarks()[0].contains("second copy of main"));
        refused.forget();
        assert!(refused.remarks().is_empty());
    }

    #[test]
    fn only_what_ended_by_itself_may_need_to_run_alone() {
        let obituary = |exited| Obituary {
            generation: 2,
            sidecar: "main".into(),
            after_ms: 1200,
            failure: Some(SidecarFailure {
                cause: "exited with code 9".into(),
                exited,
                last_words: vec!["database is locked".into()],
            }),
        };
        let text = obituary(true).why();
        assert!(
            text.contains("still ran\n  | database is locked\n  = if two copies must not run"),
            "{text}"
        );
        let mut broken = obituary(true);
        if let Some(failure) = &mut broken.failure {
            failure.last_words = vec!["no such module".into()];
        }
        for text in [obituary(false).why(), broken.why()] {
            assert!(!text.contains("--exclusive"), "{text}");
        }
    }
}
