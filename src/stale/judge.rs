//! Which processes are proven stale. Pure: what was seen goes in, a judgment comes out.
//!
//! First come the processes that are never signalled, whatever else is known, then the proofs. A
//! process that neither rule names is kept.

use std::collections::BTreeSet;

use super::ancestors::Ancestors;
use super::reason::{KeepReason, StaleProof};
use crate::os::process::{Process, is_within};

/// A process that holds one of the claimed addresses, and what was seen of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// What the kernel tells about it.
    pub process: Process,
    /// None for any program but a gateway.
    pub gateway: Option<SuspectGateway>,
}

/// What counts about a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuspectGateway {
    /// Whether it answered at least one of several questions, at its control socket or its front
    /// door.
    pub answers: bool,
    /// The service whose main process it is: a service manager looks after it.
    pub main_of: Option<String>,
    /// Whether a healthy gateway holds the same listener: one of the two takes over from the other,
    /// or has done so.
    pub beside: bool,
    /// Whether it says that it is of the instance that claims the addresses.
    pub of_this: bool,
}

/// A process by number and start: the kernel gives a number again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProcessIdentity {
    pub pid: u32,
    /// In clock ticks since boot; 0 where it is not known.
    pub start_time: u64,
}

impl ProcessIdentity {
    pub fn is(self, process: &Process) -> bool {
        self.pid == process.pid && (self.start_time == 0 || self.start_time == process.start_time)
    }
}

/// What counts besides the suspects themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circumstances {
    /// The process that judges.
    pub me: u32,
    /// The users whose processes may be ended: the own user, and for root the instance's user too.
    pub users: BTreeSet<u32>,
    /// The ancestors of `me`.
    pub ancestors: Ancestors,
    /// The control group of the service that `me` runs in.
    pub own_service: Option<String>,
    /// The control group of this gateway's service, while it runs.
    pub unit_group: Option<String>,
    /// The main process of this gateway's service.
    pub main: Option<u32>,
    /// The owner on record: the holder of the instance's lock.
    pub owner: Option<ProcessIdentity>,
    /// The predecessors on record that still have time.
    pub drainers: Vec<ProcessIdentity>,
    /// The processes that the user protects.
    pub protected: BTreeSet<u32>,
    /// The one process that the user wants ended, whatever it is.
    pub named: Option<u32>,
}

/// The judgment on a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgment {
    /// It is ended.
    Stale(StaleProof),
    /// It is left alone.
    Kept(KeepReason),
}

impl Circumstances {
    pub fn judge(&self, suspect: &Suspect) -> Judgment {
        let process = &suspect.process;
        if let Some(reason) = self.exemption(process) {
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
        let owns = self.owner.is_some_and(|owner| owner.is(process));
        match (owns, gateway.answers) {
            (true, true) => Judgment::Kept(KeepReason::Owns),
            (true, false) => Judgment::Stale(StaleProof::Silent),
            (false, true) => Judgment::Kept(KeepReason::Answers),
            (false, false) if gateway.beside => Judgment::Kept(KeepReason::Beside),
            (false, false) => Judgment::Stale(StaleProof::Unknown),
        }
    }

    /// Why a process is never signalled, if it is not.
    pub fn exemption(&self, process: &Process) -> Option<KeepReason> {
        let pid = process.pid;
        let within = |group: &Option<String>| {
            group
                .as_deref()
                .is_some_and(|group| is_within(&process.group, group))
        };
        [
            (pid == self.me, KeepReason::Myself),
            (process.is_systemd(), KeepReason::Manager),
            (self.ancestors.protect(pid), KeepReason::Ancestor),
            // In a container, a process that was brought in from outside is no child of process 1.
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

    /// Whether a healthy gateway may be asked to stop: it is of this instance, and no service manager
    /// looks after it. It is never killed.
    pub fn may_be_asked(suspect: &Suspect, reason: &KeepReason) -> bool {
        match reason {
            KeepReason::Owns => true,
            KeepReason::Answers => suspect
                .gateway
                .as_ref()
                .is_some_and(|gateway| gateway.of_this),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests;
