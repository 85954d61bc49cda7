//! Which processes on a port are proven stale. Pure: what was seen goes in, a verdict comes out.
//!
//! Two parts: who is never signalled, whatever else is known; then, who is proven. Whoever is
//! neither is kept.

use std::collections::BTreeSet;
use std::fmt;

use super::report::{EndProof, KeepCode};
use crate::os::process::{Process, is_within};

/// A process that holds a listener of the port, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// What the kernel tells of it.
    pub process: Process,
    /// What more there is to know of a gateway; none for any other program.
    pub gateway: Option<GatewayFacts>,
}

/// What counts of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayFacts {
    /// Whether it answered, at its control socket or its front door, at least once in several
    /// questions.
    pub answers: bool,
    /// The service whose main process it is: somebody looks after it.
    pub main_of: Option<String>,
    /// Whether a healthy one holds the very same listener: one of the two is about to take over
    /// from the other, or has.
    pub beside: bool,
    /// Whether it says that it is of the very instance whose addresses these are.
    pub of_this: bool,
}

/// A process by number and start: a number alone is given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// When it began, in clock ticks since boot; 0 where that is not known.
    pub start_time: u64,
}

impl ProcessIdentity {
    /// Whether this is that process.
    pub(super) fn is(self, process: &Process) -> bool {
        self.pid == process.pid && (self.start_time == 0 || self.start_time == process.start_time)
    }
}

/// Everything else that counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The process that decides.
    pub me: u32,
    /// Whose processes it may end: its own user's; for root also those of the instance's user.
    pub users: BTreeSet<u32>,
    /// Its parent, that one's parent, and so on, process 1 included where it is one.
    pub ancestors: Vec<u32>,
    /// The control group of the service that it runs in itself.
    pub own_service: Option<String>,
    /// The control group of this gateway's service, while it runs.
    pub unit_group: Option<String>,
    /// The main process as the service manager knows it.
    pub main: Option<u32>,
    /// The holder of the lock.
    pub owner: Option<ProcessIdentity>,
    /// Predecessors on record that still have time.
    pub drainers: Vec<ProcessIdentity>,
    /// What the user said is not to be touched.
    pub protected: BTreeSet<u32>,
    /// The one process that the user named to be ended, whatever it is.
    pub named: Option<u32>,
}

/// What becomes of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgment {
    Stale(StaleProof),
    /// It is left alone.
    Kept(KeepReason),
}

/// Why a process is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StaleProof {
    /// A gateway that nobody looks after, that does not own this instance, and that does not
    /// answer.
    Unknown,
    /// The owner on record, which no service manager looks after, and which does not answer.
    Silent,
    /// The user named it.
    Named,
}

/// Why a process is left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeepReason {
    /// It is the process that decides.
    Myself,
    /// It is process 1: with it everything here ends.
    First,
    /// It is an ancestor of that one.
    Ancestor,
    /// The user protects it.
    Protected,
    /// It is the service manager.
    Manager,
    /// It is somebody else's.
    OtherUser,
    /// It is the main process of this gateway's service.
    Main,
    /// It belongs to this gateway's service.
    InUnit,
    /// It belongs to the service that the process that decides runs in.
    InOwnService,
    /// It is no gateway.
    Foreign,
    /// It finishes its work and still has time.
    Drains,
    /// Another service's manager looks after it.
    MainOf(String),
    /// It owns this instance and answers.
    Owns,
    /// It answers: no leftover, whatever the records say.
    Answers,
    /// It shares its listener with one that answers: a successor that is not there yet, or a
    /// predecessor that finishes its work.
    Beside,
    /// It is another one by now, or off the port.
    Changed,
    /// The kernel does not let this process end it.
    NotPermitted,
}

impl Circumstances {
    /// Whether a healthy gateway may be asked to stop: it is of this instance, and nobody looks
    /// after it. It is never killed.
    pub fn may_be_asked(suspect: &Suspect, reason: &KeepReason) -> bool {
        *reason == KeepReason::Owns
            || *reason == KeepReason::Answers
                && suspect
                    .gateway
                    .as_ref()
                    .is_some_and(|gateway| gateway.of_this)
    }

    pub fn judge(&self, suspect: &Suspect) -> Judgment {
        let process = &suspect.process;
        if let Some(reason) = self.never(process) {
            return Judgment::Kept(reason);
        }
        if self.named == Some(process.pid) {
            return Judgment::Stale(StaleProof::Named);
        }
        let Some(gateway) = &suspect.gateway else {
            return Judgment::Kept(KeepReason::Foreign);
        };
        if self.drainers.iter().any(|drainer| drainer.is(process)) {
            return Judgment::Kept(KeepReason::Drains);
        }
        if let Some(unit) = &gateway.main_of {
            return Judgment::Kept(KeepReason::MainOf(unit.clone()));
        }
        match (
            self.owner.is_some_and(|owner| owner.is(process)),
            gateway.answers,
        ) {
            (true, true) => Judgment::Kept(KeepReason::Owns),
            (true, false) => Judgment::Stale(StaleProof::Silent),
            (false, true) => Judgment::Kept(KeepReason::Answers),
            (false, false) if gateway.beside => Judgment::Kept(KeepReason::Beside),
            (false, false) => Judgment::Stale(StaleProof::Unknown),
        }
    }

    /// Who is never signalled.
    pub fn never(&self, process: &Process) -> Option<KeepReason> {
        let pid = process.pid;
        let within = |group: &Option<String>| {
            group
                .as_deref()
                .is_some_and(|group| is_within(&process.group, group))
        };
        [
            (pid == self.me, KeepReason::Myself),
            (process.is_systemd(), KeepReason::Manager),
            (self.ancestors.contains(&pid), KeepReason::Ancestor),
            // A container's; whoever came in from outside of it is no child of it.
            (pid == 1, KeepReason::First),
            (self.protected.contains(&pid), KeepReason::Protected),
            (self.main == Some(pid), KeepReason::Main),
            (within(&self.unit_group), KeepReason::InUnit),
            (within(&self.own_service), KeepReason::InOwnService),
            (!self.users.contains(&process.uid), KeepReason::OtherUser),
        ]
        .into_iter()
        .find_map(|(holds, reason)| holds.then_some(reason))
    }
}

impl KeepReason {
    /// Whether it is part of this very gateway, so that its hold on the port is as it should be.
    pub fn is_ours(&self) -> bool {
        matches!(
            self,
            Self::Myself | Self::Main | Self::InUnit | Self::Owns | Self::Drains
        )
    }

    /// The word for programs.
    pub fn code(&self) -> KeepCode {
        match self {
            Self::Myself => KeepCode::Myself,
            Self::First => KeepCode::First,
            Self::Ancestor => KeepCode::Ancestor,
            Self::Protected => KeepCode::Protected,
            Self::Manager => KeepCode::Manager,
            Self::OtherUser => KeepCode::OtherUser,
            Self::Main => KeepCode::Main,
            Self::InUnit => KeepCode::InUnit,
            Self::InOwnService => KeepCode::InOwnService,
            Self::Foreign => KeepCode::Foreign,
            Self::Drains => KeepCode::Drains,
            Self::MainOf(_) => KeepCode::MainOfOther,
            Self::Owns => KeepCode::Owns,
            Self::Answers => KeepCode::Answers,
            Self::Beside => KeepCode::Beside,
            Self::Changed => KeepCode::Changed,
            Self::NotPermitted => KeepCode::NotPermitted,
        }
    }
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Myself => "it is this very process",
            Self::First => "it is process 1: everything here would end with it",
            Self::Ancestor => "this command was started from it",
            Self::Protected => "you protect it",
            Self::Manager => "it is the service manager",
            Self::OtherUser => "it is another user's",
            Self::Main => "it is the service's main process",
            Self::InUnit => "it belongs to the service",
            Self::InOwnService => "it belongs to the service that this command runs in",
            Self::Foreign => "it is no gateway",
            Self::Drains => "it finishes its work, and still has time",
            Self::MainOf(unit) => return write!(f, "it is the main process of {unit}"),
            Self::Owns => "it owns this instance, and answers",
            Self::Answers => "it answers, so it is no leftover",
            Self::Beside => "it shares its listener with one that answers",
            Self::Changed => "it is another process by now, or has let go of the port",
            Self::NotPermitted => "the kernel does not let this command end it",
        })
    }
}

impl StaleProof {
    /// The word for programs.
    pub fn code(self) -> EndProof {
        match self {
            Self::Unknown => EndProof::Unknown,
            Self::Silent => EndProof::Silent,
            Self::Named => EndProof::Named,
        }
    }
}

impl fmt::Display for StaleProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "a gateway that nobody looks after, and that answers nobody",
            Self::Silent => {
                "the owner on record, which nobody looks after, and which answers nobody"
            }
            Self::Named => "you named it",
        })
    }
}

#[cfg(test)]
mod tests;
