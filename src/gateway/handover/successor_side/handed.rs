//! After the hand-over: what the successor has, and how this process stays in touch with it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nix::sys::signal::Signal;
use tracing::warn;

use super::{Handed, NextProcess, SuccessorSide};
use crate::control::protocol::{DrainStatus, GenerationInfo};
use crate::gateway::generation::SidecarAddresses;
use crate::gateway::handover::borrowed_upstreams::Lending;
use crate::gateway::handover::way_back::{OfferedBack, listen};
use crate::gateway::handover::wire::ToSuccessor;
use crate::gateway::obituary::Obituary;
use crate::gateway::outbox::Outbox;
use crate::gateway::progress::Reporter;
use crate::proxy::{Address, Backend, CLOSE_HANDSHAKE, Door, Upstream};
use crate::state::lock::Lock;

/// After the hand-over.
impl SuccessorSide {
    /// The process that serves after a hand-over, and its generation.
    pub fn serves(&self) -> Option<(u32, &GenerationInfo)> {
        self.handed
            .as_ref()
            .map(|handed| (handed.pid, &handed.info))
    }

    pub fn has_handed_over(&self) -> bool {
        self.handed.is_some()
    }

    /// The successor serves: what it offered is used from here on, and the lock is its alone.
    /// Should it die, a process that stands by gets the lock. An offer of the service by it goes to
    /// `offers`. Returns its pid, the reporter of the restart, and where its sidecars listen.
    pub fn hand_over_done(
        &mut self,
        offers: Outbox<OfferedBack>,
    ) -> Option<(u32, Reporter, SidecarAddresses)> {
        let hand_over = self.hand_over.as_mut()?;
        let (info, sidecars) = hand_over.offered.take()?;
        let (pid, report) = (hand_over.successor.pid, hand_over.report.clone());
        let door = |name: &String| {
            let held = Door::Held(format!("{name} is restarting").into());
            (name.clone(), Backend::new(name, held))
        };
        self.lock = None;
        let (back, way_back) = match &mut hand_over.next {
            NextProcess::Fresh(stream) => (false, stream.take().map(|way| listen(way, offers))),
            NextProcess::Predecessor => (true, None),
        };
        self.handed = Some(Handed {
            pid,
            info,
            doors: sidecars.keys().map(door).collect(),
            clients_gone: false,
            back,
            returning: false,
            way_back,
        });
        Some((pid, report, sidecars))
    }

    /// Whether the service went back to the predecessor.
    pub fn has_handed_back(&self) -> bool {
        self.handed.as_ref().is_some_and(|handed| handed.back)
    }

    /// Hears no offer of the service any more.
    pub fn close_way_back(&mut self) {
        if let Some(handed) = &mut self.handed {
            handed.way_back = None;
        }
    }

    /// The successor is to hand the service back, and this is the lock.
    pub fn returns(&mut self, lock: Option<Lock>) {
        self.lock = lock;
        if let Some(handed) = &mut self.handed {
            handed.returning = true;
        }
    }

    /// It does not.
    pub fn stays_away(&mut self) {
        self.lock = None;
        if let Some(handed) = &mut self.handed {
            handed.returning = false;
        }
    }

    /// Whether the service is about to come back to this process.
    pub fn is_returning(&self) -> bool {
        self.handed.as_ref().is_some_and(|handed| handed.returning)
    }

    /// How the sidecars here died, for the predecessor, which serves again.
    pub fn tell_death(&self, obituary: Obituary) {
        if let Some(hand_over) = &self.hand_over {
            hand_over.successor.say(ToSuccessor::Relapsed(obituary));
        }
    }

    /// The doors to the successor's sidecars, by name.
    pub fn doors(&self) -> BTreeMap<String, Arc<Backend>> {
        let handed = self.handed.as_ref();
        handed
            .map(|handed| handed.doors.clone())
            .unwrap_or_default()
    }

    /// Opens the doors to where the successor's sidecars are now.
    pub fn redirect(&self, sidecars: &SidecarAddresses, workers: usize) {
        for (name, door) in self.handed.iter().flat_map(|handed| &handed.doors) {
            door.set(match sidecars.get(name) {
                Some(Some(server)) => {
                    let address = Address::Sidecar(Arc::new((*server).into()));
                    Door::Open(Upstream::new(address, workers, door.cut_token()))
                }
                _ => Door::Held(format!("{name} is restarting").into()),
            });
            if matches!(sidecars.get(name), Some(Some(_))) {
                door.tickets.streams.go_on();
            } else {
                // Nothing that lasts may hold up what replaces it.
                let door = Arc::clone(door);
                tokio::spawn(async move {
                    door.end_tunnels();
                    door.end_streams(CLOSE_HANDSHAKE).await;
                });
            }
        }
    }

    /// The successor says where its sidecars are now. What it says before it serves is what it
    /// offers; afterwards the addresses come back, for the doors to them.
    pub fn hear_addresses(&mut self, sidecars: SidecarAddresses) -> Option<SidecarAddresses> {
        let hand_over = self.hand_over.as_mut()?;
        hand_over.heard += 1;
        match &mut hand_over.offered {
            Some((_, offered)) => *offered = sidecars,
            None => return Some(sidecars),
        }
        None
    }

    /// Tells the successor what this process still does. `lending` is what older processes have
    /// at the same sidecars: addresses count as heard when they have heard them, too.
    pub fn tell_work(&self, drains: impl Iterator<Item = DrainStatus>, lending: &Lending) {
        let (Some(handed), Some(hand_over)) = (&self.handed, &self.hand_over) else {
            return;
        };
        let pid = std::process::id();
        let counts = handed.doors.values().map(|door| door.tickets.counts());
        let own: usize = counts.map(|counts| counts.requests + counts.tunnels).sum();
        hand_over.successor.say(ToSuccessor::Draining {
            status: drains.map(|drain| DrainStatus { pid, ..drain }).collect(),
            heard: hand_over.heard.saturating_sub(lending.unheard()),
            borrowed: own as u64 + lending.borrowed(),
        });
    }

    /// Passes on a signal: its sender has no answer that says to ask the successor.
    pub fn signal(&self, signal: Signal) {
        if let Some(hand_over) = &self.hand_over {
            hand_over.successor.signal(signal);
        }
    }

    pub fn clients_gone(&mut self) {
        if let Some(handed) = &mut self.handed {
            handed.clients_gone = true;
        }
    }

    /// Whether no client of this process is left after a hand-over.
    pub fn are_clients_gone(&self) -> bool {
        self.handed
            .as_ref()
            .is_some_and(|handed| handed.clients_gone)
    }

    /// The successor of this generation, which served, is lost. Whether this process takes the
    /// service back: not when the service manager starts the next process, nor when another has the
    /// lock by now.
    pub fn take_service(
        &mut self,
        generation: u64,
        why: &str,
        manager_restarts: bool,
        state: &Path,
    ) -> bool {
        if self.of(generation).is_none() {
            return false;
        }
        self.hand_over = None;
        if manager_restarts {
            warn!("[gateway] {why}; the service manager starts the next one");
            return false;
        }
        // It comes with an offer of the service, too.
        let lock = self.lock.take().map_or_else(|| Lock::take(state), Ok);
        match lock {
            Ok(lock) => self.lock = Some(lock),
            Err(error) => {
                warn!("[gateway] {why}; {error}, so it has the service now");
                return false;
            }
        }
        warn!("[gateway] {why}; taking the service back");
        true
    }

    /// This process serves again.
    pub fn resume(&mut self) {
        self.hand_over = None;
        self.handed = None;
        if let Some(waiter) = &mut self.waiter {
            waiter.resume();
        }
    }
}
