//! The way back after a hand-over: the sidecars of this process die soon, while those of its
//! predecessor still run, so the predecessor serves again. It is a hand-over like any other, but that
//! the one that takes over runs already.
//!
//! These are methods of [`Gateway`] because a hand-over concerns every component.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::Gateway;
use super::relapse::tell_death;
use crate::gateway::generation::Generation;
use crate::gateway::handover::offer::Offering;
use crate::gateway::handover::predecessor_side::PredecessorSide;
use crate::gateway::handover::{IncomingOffer, OfferedBack, ToPredecessor};
use crate::gateway::lifecycle::{Budget, Event, Phase};
use crate::gateway::loop_event::LoopEvent;
use crate::state::lock::Lock;

/// The request that a hand-over back names: nobody asked for it.
const NOBODY: &str = "";

/// The process that gives the service back.
impl Gateway {
    /// A sidecar changed its state: if it died, and the predecessor may still have the copy before it,
    /// that one is asked to serve again.
    pub(super) fn look_for_way_back(&mut self) {
        if self.machine.phase() == &Phase::Serving
            && self.predecessor.may_serve_again()
            && self.generations.died().is_some()
        {
            self.step(Event::GiveBack);
        }
    }

    /// Offers the service to the predecessor.
    pub(super) fn hand_back(&mut self, generation: u64) {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        let way = self.predecessor.take_way_back().ok_or_else(gone);
        let started = self.started_outbox(generation);
        let report = self.reporter(None);
        let offering = Offering {
            offer: self.offer(generation, NOBODY, "the new copy died"),
            listeners: &self.front_door.listeners,
            // The one that it goes to, which has no older ones.
            predecessors: &Default::default(),
            current: None,
            serves: self.machine.current(),
            drain_ms: self.drain_ms(),
        };
        self.successor.start_back(offering, way, report, started);
    }

    /// After the hand-over: tells the process that serves again how the sidecar here died.
    pub(super) fn pass_on_death(&self) {
        let Some(died) = self.generations.died() else {
            return;
        };
        let after_ms = self.predecessor.served_for().as_millis() as u64;
        let deaths = self.events.outbox(LoopEvent::DiedEarly);
        tell_death(died, self.machine.current(), after_ms, deaths);
    }
}

/// The process that serves again.
impl Gateway {
    /// The successor offers the service back, or will not do so any more.
    pub(super) fn offered_back(&mut self, offered: OfferedBack) {
        let incoming = match offered {
            OfferedBack::Offer(incoming) => *incoming,
            OfferedBack::Never => return self.generations.let_go(),
        };
        match self.may_return() {
            Ok(current) => self.prepare_to_return(incoming, &current),
            Err(why) => {
                info!(
                    "[gateway] pid {} cannot give the service back: {why}",
                    incoming.offer.pid
                );
                incoming.refuse(why);
            }
        }
    }

    /// The generation that can serve again, whose sidecars drain no more.
    ///
    /// # Errors
    /// Why there is none.
    fn may_return(&mut self) -> Result<Arc<Generation>, &'static str> {
        if !matches!(self.machine.phase(), Phase::Yielded { .. }) {
            return Err("this process has not handed over, or stops");
        }
        if self.predecessor.is_linked() || self.predecessor.predecessors.len() > 0 {
            return Err("an older process still finishes its work here");
        }
        let current = self
            .generations
            .current()
            .filter(|_| self.generations.is_ready());
        let current = current.cloned().ok_or("the sidecars here are not ready")?;
        if !self.generations.recall(current.number) {
            return Err("the sidecars here have ended");
        }
        Ok(current)
    }

    /// Says that the generation here can serve again.
    fn prepare_to_return(&mut self, mut incoming: IncomingOffer, current: &Generation) {
        let pid = incoming.offer.pid;
        info!(
            "[gateway] the sidecars of pid {pid} have died: generation {} is to serve again",
            current.number
        );
        let lock = incoming.lock.take();
        let lock = lock
            .map(|fd| Lock::from_fd(fd, &self.paths.state))
            .transpose();
        let said = self.events.outbox(LoopEvent::Predecessor);
        let ended = self.events.outbox(LoopEvent::PredecessorEnded);
        let began = lock
            .map_err(io::Error::other)
            .and_then(|lock| Ok((lock, PredecessorSide::begin(incoming, said, &ended)?)));
        match began {
            Ok((lock, predecessor)) => {
                self.successor.returns(lock);
                self.predecessor = predecessor;
                self.announce();
            }
            Err(error) => {
                // The offer is dropped: its maker sees the end of the stream.
                warn!("[gateway] the service cannot come back from pid {pid}: {error}");
                self.stay_away();
            }
        }
    }

    /// The service does not come back: finishes the work here as before.
    pub(super) fn stay_away(&mut self) {
        self.predecessor = PredecessorSide::default();
        self.successor.stays_away();
        let (holds, drained) = (self.holds(), self.drained_outbox());
        let (report, keep) = (self.reporter(None), Duration::ZERO);
        self.generations
            .drain(None, Budget::Configured, keep, holds, &report, drained);
    }

    /// The service is this process's again.
    pub(super) fn come_back(&mut self) {
        let Some(current) = self.generations.current().cloned() else {
            return;
        };
        self.supervision.take_back();
        if let Some(died) = self.successor.serves().map(|(_, info)| info.number) {
            self.requests.doubt(died);
        }
        self.resume();
        self.reopen(&current);
        // The predecessor ends its record when it hears that.
        self.predecessor.hold(self.recovery.record.written());
        let passages = false;
        self.predecessor.tell(ToPredecessor::Serving { passages });
        self.supervision.notifier().watchdog();
        info!("[gateway] generation {} serves again", current.number);
        self.refresh();
    }
}
