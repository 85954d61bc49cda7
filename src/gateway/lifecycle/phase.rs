//! The phases of a gateway, each with its data.

use std::time::Duration;

use super::{Build, Fallback};

/// The phase of a gateway.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Only the front door is open; the first generation is built at this moment, or sooner on
    /// request.
    Waiting {
        until: Duration,
        /// What follows a failed start.
        then: Fallback,
    },
    /// The first generation is being built; nothing serves yet, or only the predecessor.
    Starting(Build, Origin),
    /// A candidate that can serve, and waits for its predecessor.
    Prepared(Build),
    Serving,
    /// A generation serves, and the next is being built.
    Building(Build),
    /// A generation serves, and a successor builds the next.
    Handing {
        /// The generation that the successor builds.
        build: Build,
        /// Whether the successor was told to begin.
        committed: bool,
    },
    /// The successor serves; this process finishes its work.
    Yielded {
        /// When the end is forced.
        until: Option<Duration>,
    },
    /// This process finishes its work and ends; then the service manager starts the next
    /// generation.
    Leaving {
        until: Option<Duration>,
    },
    /// A stop is under way.
    Stopping {
        until: Duration,
    },
    Ended,
}

/// Why the first generation is built.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Nothing serves; this follows a failure.
    Alone(Fallback),
    /// To take over. After a failure the predecessor serves on.
    Candidate,
    /// The predecessor died meanwhile. If this build fails, another follows, which persists.
    Orphan,
}
