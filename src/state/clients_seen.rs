//! What clients saw during a restart, as the front door counted it.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::text::human::{count, span};

/// What clients saw of the sidecars during a restart: from when it was asked for until the next
/// generation had all new requests, and those that had waited were answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientsSeen {
    /// Requests that were answered whole, whatever the server answered.
    pub answered: u64,
    /// Requests that the gateway failed, by how: "502", "503", "504" or "broken off".
    pub failed: BTreeMap<String, u64>,
    /// Requests that were held.
    pub held: u64,
    /// The longest time that one was held, in milliseconds.
    pub longest_hold_ms: u64,
    /// Streams that were ended in order.
    pub streams_ended: u64,
    /// Tunnels that were ended.
    pub tunnels_ended: u64,
}

impl ClientsSeen {
    /// Adds what the clients of another process saw meanwhile.
    pub fn add(&mut self, other: &Self) {
        self.answered += other.answered;
        for (kind, times) in &other.failed {
            *self.failed.entry(kind.clone()).or_default() += times;
        }
        self.held += other.held;
        self.longest_hold_ms = self.longest_hold_ms.max(other.longest_hold_ms);
        self.streams_ended += other.streams_ended;
        self.tunnels_ended += other.tunnels_ended;
    }

    /// How many requests failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    /// The failures in words: "3 requests failed (2 503, 1 broken off)"; none where there are none.
    pub fn failures_in_words(&self) -> Option<String> {
        let kinds = self.failed.iter();
        let kinds: Vec<String> = kinds
            .map(|(kind, times)| format!("{times} {kind}"))
            .collect();
        let failed = count(self.failures(), "request");
        (self.failures() > 0).then(|| format!("{failed} failed ({})", kinds.join(", ")))
    }

    /// All of it in one sentence for people.
    pub fn sentence(&self) -> String {
        let failed = self.failures_in_words();
        let mut parts = vec![
            format!("{} answered", count(self.answered, "request")),
            failed.unwrap_or_else(|| "none failed".to_owned()),
        ];
        if self.held > 0 {
            let longest = span(self.longest_hold_ms);
            parts.push(format!("{} held for {longest} at most", self.held));
        }
        for (ended, what) in [
            (self.streams_ended, "stream"),
            (self.tunnels_ended, "tunnel"),
        ] {
            if ended > 0 {
                parts.push(format!("{} ended", count(ended, what)));
            }
        }
        format!("clients: {}", parts.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sentence_tells_what_happened_and_nothing_else() {
        let mut seen = ClientsSeen {
            answered: 1,
            ..ClientsSeen::default()
        };
        assert_eq!(seen.sentence(), "clients: 1 request answered, none failed");
        assert_eq!(seen.failures_in_words(), None);
        seen.failed = [("503".to_owned(), 2), ("broken off".to_owned(), 1)].into();
        (seen.held, seen.longest_hold_ms, seen.tunnels_ended) = (7, 412, 1);
        assert_eq!(
            seen.sentence(),
            "clients: 1 request answered, 3 requests failed (2 503, 1 broken off), 7 held for 412 ms at most, 1 tunnel ended"
        );
    }
}
