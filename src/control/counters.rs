//! What happened at the control connections of this process, for the metrics.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::text::words::{Words, words};

/// Counted since the process began, but for what is open now.
#[derive(Debug, Default)]
pub struct ControlCounters {
    /// Those who follow the gateway now.
    pub subscribers: AtomicU64,
    /// Control connections over WebSocket that are open now.
    pub websockets: AtomicU64,
    /// Connections that were ended because nothing was read.
    pub dropped: AtomicU64,
    refused: [AtomicU64; ControlRefusal::ALL.len()],
}

words! {
    /// What is refused to a client of the control protocol, and what ends its connection.
    pub enum ControlRefusal {
        /// No token that is known.
        Token = "token",
        /// A page of another site.
        Origin = "origin",
        /// No request for a WebSocket as this one.
        Handshake = "handshake",
        /// All places are taken.
        Crowded = "crowded",
        /// A method that a reader may not use.
        Forbidden = "forbidden",
        /// No frame of the protocol.
        Malformed = "malformed",
        /// A frame over the limit.
        TooLong = "too_long",
        /// No sign of life.
        Silent = "silent",
    }
}

impl ControlCounters {
    pub fn refused(&self, what: ControlRefusal) {
        count(&self.refused[what as usize]);
    }

    /// How often each was refused.
    pub fn refusals(&self) -> impl Iterator<Item = (ControlRefusal, u64)> {
        let counts = self
            .refused
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        ControlRefusal::ALL.iter().copied().zip(counts)
    }
}

/// One more.
pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
