//! The words of requests and of the recovery ladder, as the history records them and the control
//! protocol sends them.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use nix::sys::signal::Signal;

use crate::text::words::{UnknownWord, Words, as_text, words};

/// The longest reason of a request or lease, in characters.
pub const REASON_MAX: usize = 200;

/// A reason of at most [`REASON_MAX`] characters: its beginning, where it is longer.
pub fn cut_reason(reason: &str) -> String {
    reason.chars().take(REASON_MAX).collect()
}

words! {
    /// What was asked for.
    pub enum RequestKindName {
        /// The next generation, of the same or a newer configuration.
        Restart = "restart",
        /// Only what changed in the configuration.
        Reload = "reload",
        /// One sidecar, with the configuration in force.
        SidecarRestart = "sidecar-restart",
        /// The end of safe mode, or of the wait of a throttle.
        Recover = "recover",
    }
}

impl RequestKindName {
    /// For people, with the sidecar that it is about, if it is about one: "reload", "restart of web".
    pub fn of(self, sidecar: Option<&str>) -> String {
        match (self, sidecar) {
            (Self::SidecarRestart, Some(name)) => format!("restart of {name}"),
            _ => self.in_words(),
        }
    }
}

words! {
    /// Where the next generation lives.
    pub enum StrategyName {
        /// In the same process, beside the old one.
        InProcess = "in-process",
        /// In a fresh process that takes over listeners and lock.
        Respawn = "respawn",
        /// In the process that the supervisor starts when this one has ended.
        Exit = "exit",
        /// Nowhere: the request was refused before a place was chosen.
        None = "none",
    }
}

words! {
    /// A step of a restart, reload or stop.
    pub enum ProgressStage {
        /// The request is accepted.
        Accepted = "accepted",
        /// A fresh process has what it needs to take over.
        Preparing = "preparing",
        /// A sidecar or a fresh process is being started.
        Starting = "starting",
        /// A sidecar is ready.
        Ready = "ready",
        /// The next generation has all new requests.
        Switched = "switched",
        /// A sidecar that must not run twice serves on until its work of this moment is done.
        Fading = "fading",
        /// A sidecar is being replaced; new requests wait.
        Holding = "holding",
        /// A sidecar restarts by its own means; new requests wait.
        Reloading = "reloading",
        /// A sidecar has ended.
        Stopped = "stopped",
        /// The next run of a sidecar failed; what ran before is started again.
        Restoring = "restoring",
        /// The old generation finishes its work.
        Draining = "draining",
        /// The old generation is gone.
        Drained = "drained",
    }
}

words! {
    /// How a request ended.
    pub enum RequestOutcome {
        /// The next generation serves.
        Done = "done",
        /// A reload found nothing to do.
        Unchanged = "unchanged",
        /// The same was done for another request.
        Coalesced = "coalesced",
        /// This process finishes its work and ends, and the supervisor starts the next.
        Scheduled = "scheduled",
        /// Another process has just taken over.
        Moved = "moved",
        /// It was not tried.
        Rejected = "rejected",
        /// It was tried and failed; the previous generation serves on.
        Failed = "failed",
    }
}

/// How a request ended, and why where it was rejected or failed: "done", "failed: CAUSE".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestEnd {
    pub outcome: RequestOutcome,
    pub cause: Option<String>,
}

impl From<RequestOutcome> for RequestEnd {
    fn from(outcome: RequestOutcome) -> Self {
        Self {
            outcome,
            cause: None,
        }
    }
}

impl fmt::Display for RequestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause}", self.outcome),
            None => write!(f, "{}", self.outcome),
        }
    }
}

impl FromStr for RequestEnd {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (word, cause) = match text.split_once(": ") {
            Some((word, cause)) => (word, Some(cause.to_owned())),
            None => (text, None),
        };
        Ok(Self {
            outcome: word.parse()?,
            cause,
        })
    }
}

as_text!(RequestEnd as "RequestEnd", {
    "type": "string",
    "description": "How a request ended: done, unchanged (a reload found nothing to do), coalesced (into another request), scheduled (this process ends and its supervisor starts the next), moved (another process has just taken over), rejected or failed, the last two with the cause after a colon.",
    "pattern": format!("^({})(: .*)?$", RequestOutcome::alternatives()),
});

words! {
    /// A rung of the recovery ladder.
    pub enum RungName {
        /// It serves as configured.
        Normal = "normal",
        /// Earlier lives ended too soon: it waits before it starts the sidecars.
        Throttled = "throttled",
        /// Front door and control only.
        SafeMode = "safe-mode",
        /// It serves the last configuration that worked.
        LastGood = "last-good",
    }
}

words! {
    /// What is noteworthy about a sidecar that ended unplanned.
    pub enum SidecarStanding {
        /// The kernel killed it because memory ran out; it is started again.
        OutOfMemory = "out-of-memory",
        /// It died five times, each within half an hour of the time before; it is started again, with
        /// growing waits.
        Failing = "failing",
        /// It was failing and has been ready for ten minutes.
        Recovered = "recovered",
    }
}

/// Why a life ended, as it recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EndReason {
    /// A signal that asks to stop.
    Signal(Signal),
    /// A restart by the service manager, with the reason of the one that announced it.
    ManagerRestart(Option<String>),
    /// It could not start.
    CannotStart(String),
    /// Another reason, in words.
    Other(String),
}

const MANAGER_RESTART: &str = "a restart by the service manager";
const ANNOUNCED_RESTART: &str = "SIGTERM to restart: ";
const CANNOT_START: &str = "cannot start: ";

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => f.write_str(signal.as_str()),
            Self::ManagerRestart(None) => f.write_str(MANAGER_RESTART),
            Self::ManagerRestart(Some(why)) => write!(f, "{ANNOUNCED_RESTART}{why}"),
            Self::CannotStart(why) => write!(f, "{CANNOT_START}{why}"),
            Self::Other(why) => f.write_str(why),
        }
    }
}

impl FromStr for EndReason {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if let Ok(signal) = text.parse() {
            Self::Signal(signal)
        } else if text == MANAGER_RESTART {
            Self::ManagerRestart(None)
        } else if let Some(why) = text.strip_prefix(ANNOUNCED_RESTART) {
            Self::ManagerRestart(Some(why.to_owned()))
        } else if let Some(why) = text.strip_prefix(CANNOT_START) {
            Self::CannotStart(why.to_owned())
        } else {
            Self::Other(text.to_owned())
        })
    }
}

as_text!(EndReason as "EndReason", {
    "type": "string",
    "description": format!(
        "Why a life ended: the name of a signal, \"{MANAGER_RESTART}\", \"{ANNOUNCED_RESTART}REASON\", \"{CANNOT_START}CAUSE\", or another reason in words."
    ),
    "pattern": "",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_a_word_and_a_cause() {
        let failed = RequestEnd {
            outcome: RequestOutcome::Failed,
            cause: Some("a: b".to_owned()),
        };
        assert_eq!(failed.to_string(), "failed: a: b");
        assert_eq!("failed: a: b".parse(), Ok(failed));
        assert_eq!("done".parse(), Ok(RequestEnd::from(RequestOutcome::Done)));
        assert!("gone: x".parse::<RequestEnd>().is_err());
    }

    #[test]
    fn the_reason_of_an_end_is_read_as_it_was_written() {
        use EndReason::*;
        use nix::sys::signal::Signal::SIGTERM;
        for (text, reason) in [
            ("SIGTERM", Signal(SIGTERM)),
            ("a restart by the service manager", ManagerRestart(None)),
            (
                "SIGTERM to restart: deploy",
                ManagerRestart(Some("deploy".to_owned())),
            ),
            ("cannot start: no port", CannotStart("no port".to_owned())),
            ("SIGNED off", Other("SIGNED off".to_owned())),
            ("", Other(String::new())),
        ] {
            assert_eq!(reason.to_string(), text);
            assert_eq!(text.parse(), Ok(reason));
        }
    }
}
