//! The events that the machine takes and the actions that it gives, with the types of both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::Dur;
use crate::state::terms::{RequestKindName, StrategyName};

/// How a generation is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestKind {
    Restart,
    /// Only what changed in the configuration.
    Reload,
    /// This sidecar alone, as it is configured now.
    Sidecar(Arc<str>),
}

impl RequestKind {
    pub fn name(&self) -> RequestKindName {
        match self {
            Self::Restart => RequestKindName::Restart,
            Self::Reload => RequestKindName::Reload,
            Self::Sidecar(_) => RequestKindName::SidecarRestart,
        }
    }

    /// The sidecar that it is about; none for all of them.
    pub fn sidecar(&self) -> Option<&str> {
        match self {
            Self::Sidecar(name) => Some(name),
            Self::Restart | Self::Reload => None,
        }
    }

    /// Whether the next generation keeps a sidecar as it runs, whose configuration `is_same`.
    pub fn keeps(&self, sidecar: &str, is_same: bool) -> bool {
        match self {
            Self::Restart => false,
            Self::Reload => is_same,
            Self::Sidecar(name) => **name != *sidecar,
        }
    }
}

impl fmt::Display for RequestKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name().of(self.sidecar()))
    }
}

/// Where the next generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Placement {
    Here,
    /// In a fresh process.
    Successor {
        /// The program was replaced: a successor that was started before does not do.
        update: bool,
    },
    /// In whatever the service manager starts after our end.
    Next {
        /// When the end is forced, whatever goes on, in the time of the machine; none for never.
        until: Option<Duration>,
    },
}

impl Placement {
    pub fn strategy(self) -> StrategyName {
        match self {
            Self::Here => StrategyName::InProcess,
            Self::Successor { .. } => StrategyName::Respawn,
            Self::Next { .. } => StrategyName::Exit,
        }
    }

    /// What does more than another does for it, too.
    pub(super) fn strength(self) -> u8 {
        match self {
            Self::Here => 1,
            Self::Successor { update: false } => 2,
            Self::Successor { update: true } => 3,
            Self::Next { .. } => 4,
        }
    }
}

/// How long old work may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Budget {
    Configured,
    Force,
    Limit(Duration),
    Unlimited,
}

impl Budget {
    /// As a request says it: no time at all, or a limit in milliseconds, where 0 is none.
    pub fn of(force: bool, wait_ms: Option<u64>) -> Self {
        match (force, wait_ms) {
            (true, _) => Self::Force,
            (false, None) => Self::Configured,
            (false, Some(0)) => Self::Unlimited,
            (false, Some(limit)) => Self::Limit(Duration::from_millis(limit).min(Dur::LONGEST)),
        }
    }

    /// How long requests may go on where `configured` is the usual; none for ever.
    pub fn time(self, configured: Duration) -> Option<Duration> {
        match self {
            Self::Configured => Some(configured),
            Self::Force => Some(Duration::ZERO),
            Self::Limit(time) => Some(time),
            Self::Unlimited => None,
        }
    }
}

/// Somebody wants a new generation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GenerationRequest {
    /// Names it in records and answers.
    pub id: String,
    pub kind: RequestKind,
    pub budget: Budget,
    pub place: Placement,
}

/// How a process comes to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StartMode {
    First(Fallback),
    /// To take over from a process that serves an older generation.
    Candidate {
        /// The number of the generation to construct.
        generation: u64,
    },
    /// After lives that ended too soon: nothing is started before this moment.
    Later {
        at: Duration,
        /// What a failing start leads to.
        then: Fallback,
    },
}

/// What a failing first start leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The end of the process.
    End,
    /// None fails: what does not start is tried again while the rest serves.
    Persist,
    /// Nothing but the front door, until the next trial.
    Safe,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A restart or reload, or the restart of one sidecar, is asked for.
    Asked(GenerationRequest),
    /// A stop is asked for; `at_once` by somebody who does not want to wait for work.
    Stop {
        at_once: bool,
        /// When it is over whatever still goes on; see [`FORCE_EXIT`](super::FORCE_EXIT).
        limit: Duration,
    },
    /// An end is asked for that makes room for the next start.
    End {
        budget: Budget,
        /// When it is over whatever still goes on; none for never.
        limit: Option<Duration>,
    },
    /// The successor of this generation can serve.
    SuccessorReady(u64),
    SuccessorServes {
        generation: u64,
        /// How long this process may finish its work before its end is forced; none for ever.
        limit: Option<Duration>,
    },
    /// The successor is gone, hangs, or says that it cannot.
    SuccessorLost(u64, String),
    /// A sidecar of this generation died while the one of the generation before could serve.
    ServingDied(u64),
    /// This older generation has ended: it cannot serve again.
    BeforeGone(u64),
    /// The sidecars here have died, and those of the predecessor still run.
    GiveBack,
    /// The predecessor hands the service over, or the successor hands it back.
    Go,
    /// The predecessor is gone before it handed over.
    Orphaned,
    /// The cause that kept the sidecars from starting may be gone: try them now.
    Recover,
    /// The generation under construction can serve.
    Built(u64),
    Broken(u64, String),
    /// The generation under construction would be the one that serves: there is nothing to build.
    Unchanged(u64),
    /// A stop or an end finished all there was.
    Quiet,
    /// The same, but work had to be cut.
    Cut,
    Tick,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    Build {
        generation: u64,
        kind: RequestKind,
        budget: Budget,
        /// Whom to tell about it; none for the first.
        request: Option<String>,
        /// Serve even if a sidecar does not start, and go on trying.
        persist: bool,
    },
    /// Start a successor that constructs the generation.
    HandOver {
        generation: u64,
        budget: Budget,
        /// Whom to tell about it.
        request: String,
    },
    /// Tell the supervisor that the successor of this generation is the main process now, and then the
    /// successor to begin.
    Commit(u64),
    /// The successor serves: accept nobody any more and finish.
    Yield { generation: u64, budget: Budget },
    /// The successor is gone: what it was given is ours again.
    TakeBack,
    /// The successor died though it served already: accept again, then a build follows.
    Resume,
    /// Tell the predecessor that we can serve.
    Announce,
    /// The listeners are ours: accept, record it, tell the predecessor.
    Own,
    /// Finish, then end, so that the service manager starts the next one.
    Leave { budget: Budget },
    /// Finish sooner: the successor stops, too.
    Hurry { at_once: bool },
    /// Stop constructing it, or end the successor that does.
    Abandon(u64),
    /// New requests go to it; the one before finishes its work.
    Serve { generation: u64, budget: Budget },
    /// The generation before serves again; the one that served failed.
    ServeAgain { generation: u64, failed: u64 },
    /// Offer the service to the predecessor, under this number.
    HandBack { generation: u64 },
    /// The successor has handed the service back: accept, and serve the generation of before.
    ComeBack,
    /// A request has ended.
    Answer { id: String, verdict: RequestVerdict },
    /// Accept nobody new, finish what is there, then say [`Event::Quiet`].
    Wind {
        /// Do not wait for work.
        at_once: bool,
    },
    /// End the process.
    Exit(u8),
}

pub(super) fn answer(id: String, verdict: RequestVerdict) -> Action {
    Action::Answer { id, verdict }
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RequestVerdict {
    /// This generation serves because of it.
    Done(u64),
    /// The same was done for another request.
    Coalesced {
        /// The other request; "start" for the first start.
        into: String,
        /// The generation that serves now.
        generation: u64,
    },
    /// The service manager starts the next generation after our end.
    Scheduled,
    /// Another process serves now: ask that one.
    Moved,
    Rejected(String),
    /// Tried; the generation before serves on.
    Failed(String),
}

impl RequestVerdict {
    /// Whether it was carried out by this process, or could not be.
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Done(_) | Self::Coalesced { .. } | Self::Failed(_)
        )
    }

    /// The generation that fulfilled the request, if one did.
    pub fn generation(&self) -> Option<u64> {
        match self {
            Self::Done(generation) | Self::Coalesced { generation, .. } => Some(*generation),
            Self::Scheduled | Self::Moved | Self::Rejected(_) | Self::Failed(_) => None,
        }
    }
}
