//! Which processes are proven stale. Pure: what was seen goes in, a judgment comes out.
//!
//! First come the processes that are never signalled, whatever else is known, then the proofs. A
//! process that neither rule names is kept.

use std::collections::BTreeSet;

use super::reason::{EndProof, KeepCode};
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
    /// Whether it has a control socket that cannot be asked from here: its silence proves less.
    pub out_of_reach: bool,
    /// The service whose main process it is: a service manager looks after it.
    pub main_of: Option<String>,
    /// Whether a healthy gateway holds the same listener: one of the two takes over from the other,
    /// or has done so.
    pub shares_listener: bool,
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
    /// The ancestors of `me`, process 1 included where it is one. None is ever signalled, not even
    /// when the user names it: a sidecar or an agent behind the front door may have started this
    /// command, which must not end the gateway that it was started from.
    pub ancestors: Vec<u32>,
    /// The gateway that `me` was started from, whatever lies between the two: nothing that lost its
    /// parent ends its own gateway.
    pub started_from: Option<ProcessIdentity>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgment {
    /// It is ended.
    Stale(EndProof),
    /// It is left alone.
    Kept(KeepCode),
}

impl Circumstances {
    pub fn judge(&self, suspect: &Suspect) -> Judgment {
        let process = &suspect.process;
        if let Some(reason) = self.exemption(process) {
            return Judgment::Kept(reason);
        }
        let own = self.started_from.is_some_and(|own| own.is(process));
        if self.named == Some(process.pid) && !own {
            return Judgment::Stale(EndProof::Named);
        }
        let Some(gateway) = &suspect.gateway else {
            return Judgment::Kept(KeepCode::Foreign);
        };
        if self.drainers.iter().any(|drainer| drainer.is(process)) {
            return Judgment::Kept(KeepCode::Drains);
        }
        if process.suspended {
            return Judgment::Kept(KeepCode::Suspended);
        }
        if gateway.main_of.is_some() {
            return Judgment::Kept(KeepCode::MainOfOther);
        }
        if own && !gateway.answers {
            return Judgment::Kept(KeepCode::Ancestor);
        }
        let owns = self.owner.is_some_and(|owner| owner.is(process));
        match (owns, gateway.answers) {
            (true, true) => Judgment::Kept(KeepCode::Owns),
            (true, false) => Judgment::Stale(EndProof::Silent),
            (false, true) => Judgment::Kept(KeepCode::Answers),
            (false, false) if gateway.shares_listener => Judgment::Kept(KeepCode::Beside),
            (false, false) if gateway.out_of_reach => Judgment::Kept(KeepCode::OutOfReach),
            (false, false) => Judgment::Stale(EndProof::Unknown),
        }
    }

    /// Why a process is never signalled, if it is not.
    pub fn exemption(&self, process: &Process) -> Option<KeepCode> {
        let pid = process.pid;
        let within = |group: &Option<String>| {
            group
                .as_deref()
                .is_some_and(|group| is_within(&process.group, group))
        };
        [
            (pid == self.me, KeepCode::Myself),
            (process.is_service_manager(), KeepCode::Manager),
            (self.ancestors.contains(&pid), KeepCode::Ancestor),
            // In a container, a process that was brought in from outside is no child of process 1.
            (pid == 1, KeepCode::First),
            (self.protected.contains(&pid), KeepCode::Protected),
            (self.main == Some(pid), KeepCode::Main),
            (within(&self.unit_group), KeepCode::InUnit),
            (within(&self.own_service), KeepCode::InOwnService),
            (!self.users.contains(&process.uid), KeepCode::OtherUser),
        ]
        .into_iter()
        .find_map(|(holds, reason)| holds.then_some(reason))
    }
}

#[cfg(test)]
mod tests;
