//! What a process offers to its successor, and the descriptors that go with it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::outgoing::prepare;
use super::predecessors::Predecessors;
use super::wire::{Exclusive, HandedDrainer, Offer, VERSION};
use crate::gateway::generation::Generation;
use crate::gateway::listeners::Listeners;
use crate::os::process::PidFd;
use crate::state::lock::Lock;
use crate::state::trace::Carried;
use crate::supervisor::SupervisorVerdict;
use crate::systemd::Notifier;

/// What the parts of the gateway give to an offer.
#[derive(Debug)]
pub struct Offering<'a> {
    pub instance: &'a str,
    pub state_dir: &'a Path,
    /// The number of the generation to build.
    pub generation: u64,
    /// The one that serves.
    pub serves: u64,
    pub request: &'a str,
    /// Why it was asked, and when.
    pub about: (String, String),
    pub listeners: &'a Listeners,
    pub predecessors: &'a Predecessors,
    pub current: Option<&'a Generation>,
    /// Milliseconds that this process has for its drain.
    pub drain_ms: u64,
    pub notifier: Notifier,
    pub verdict: &'a SupervisorVerdict,
    /// The trace of the restart, where it is switched on.
    pub trace: Option<Carried>,
}

impl Offering<'_> {
    /// A socket pair with the offer in it: our end, and the one for the successor to inherit. `work`
    /// is the pipe of a process that stays in front of its successor.
    ///
    /// # Errors
    /// When the pair or a descriptor cannot be made.
    pub fn prepare(
        self,
        lock: Option<&Lock>,
        work: Option<&OwnedFd>,
    ) -> io::Result<(UnixStream, UnixStream)> {
        let own = PidFd::open(std::process::id())?;
        let listeners = self.listeners.to_hand_over();
        let older = self.predecessors.drainers();
        let exclusive = self.exclusive();
        // In the order that `Offer` states.
        let descriptors: Vec<BorrowedFd<'_>> = lock
            .map(AsFd::as_fd)
            .into_iter()
            .chain(listeners.iter().map(|(_, fd)| *fd))
            .chain(std::iter::once(own.as_fd()))
            .chain(work.map(AsFd::as_fd))
            .chain(older.iter().flat_map(|(_, fds)| fds.iter().copied()))
            .chain(
                exclusive
                    .iter()
                    .filter_map(|(_, process)| process.as_ref().map(AsFd::as_fd)),
            )
            .collect();
        let me = HandedDrainer {
            pid: std::process::id(),
            generation: self.serves,
            left_ms: Some(self.drain_ms),
            stays: work.is_some(),
        };
        let (reason, asked_at) = self.about;
        let offer = Offer {
            version: VERSION,
            pid: std::process::id(),
            instance: self.instance.to_owned(),
            state_dir: self.state_dir.to_owned(),
            generation: self.generation,
            request: self.request.to_owned(),
            reason,
            asked_at,
            lock: lock.is_some(),
            listeners: listeners.iter().map(|(name, _)| name.clone()).collect(),
            drainers: std::iter::once(me)
                .chain(older.iter().map(|(drainer, _)| drainer.clone()))
                .collect(),
            exclusive: exclusive
                .iter()
                .map(|(name, process)| Exclusive {
                    name: name.clone(),
                    runs: process.is_some(),
                })
                .collect(),
            notify: self.notifier.address(),
            watchdog_usec: self.notifier.watchdog_usec(),
            verdict: self.verdict.clone(),
            trace: self.trace,
        };
        prepare(&offer, &descriptors)
    }

    /// The sidecars that must not run twice, each with its process while one runs.
    fn exclusive(&self) -> Vec<(String, Option<PidFd>)> {
        let all = self
            .current
            .map(Generation::exclusive)
            .unwrap_or_default()
            .into_iter();
        // Our own children, not reaped yet: no other process has their numbers.
        all.map(|(name, pid)| (name, PidFd::open(pid).ok()))
            .collect()
    }
}
