//! The phases of a gateway, each with what it needs.

use std::time::Duration;

use super::{Build, Fallback};

/// Where the gateway stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Only the front door is there; the first generation is built at this moment, or sooner when
    /// somebody asks.
    Waiting {
        until: Duration,
        /// What a failing start leads to.
        then: Fallback,
    },
    /// The first generation is being built; nobody serves yet, or only the predecessor.
    Starting(Build, Origin),
    /// A candidate that can serve, and waits for its predecessor's word.
    Prepared(Build),
    Serving,
    /// A generation serves, and the next is being built.
    Building(Build),
    /// A generation serves, and a successor builds the next.
    Handing {
        /// What is built there.
        build: Build,
        /// Whether the successor was told to begin.
        committed: bool,
    },
    /// The successor serves; this process finishes its work.
    Yielded {
        /// When it is over whatever goes on.
        until: Option<Duration>,
    },
    /// The service manager starts the next generation after our end.
    Leaving {
        /// When it is over whatever goes on.
        until: Option<Duration>,
    },
    /// On the way out.
    Stopping {
        /// When it is over whatever goes on.
        until: Duration,
    },
    Ended,
}

/// Why the first generation is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Nobody serves; a failure leads to this.
    Alone(Fallback),
    /// To take over; a failure leaves it to the predecessor.
    Candidate,
    /// The predecessor died meanwhile; should this build fail, another follows that persists.
    Orphan,
}
