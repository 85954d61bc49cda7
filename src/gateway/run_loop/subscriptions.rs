//! What those who follow this process are told.
//!
//! These are methods of [`Gateway`] because how things stand is known by several components.

use std::time::Duration;

use super::Gateway;
use super::status::sidecar_status;
use crate::control::protocol::{
    CutEvent, DrainStatus, DrainedEvent, DrainingEvent, GatewayEvent, ShutdownReason, SidecarEvent,
    StateEvent, SubscribeParams,
};
use crate::control::server::{Outlook, Reply};
use crate::gateway::event_feed::{AnnouncedEnd, GatewayStanding};
use crate::gateway::lifecycle::Phase;
use crate::gateway::progress::CutWork;
use crate::proxy::first_few;

impl Gateway {
    /// Tells those who follow what has changed, and that their connections end. After each step of the
    /// machine, and whenever something changed besides.
    pub(super) fn follow_events(&mut self) {
        let end = match self.machine.phase() {
            // It was told what follows when the end began.
            Phase::Ended => None,
            Phase::Yielded { .. } => Some(AnnouncedEnd::Replaced),
            Phase::Leaving { .. } => Some(AnnouncedEnd::Restart),
            Phase::Stopping { .. } => Some(AnnouncedEnd::Stop),
            _ => Some(AnnouncedEnd::None),
        };
        if matches!(self.machine.phase(), Phase::Serving) {
            self.feed.serves(self.now());
        }
        if let Some(end) = end {
            self.feed.announce(end);
        }
        if self.feed.is_followed() {
            let now = self.standing();
            self.feed.tell(now);
        }
        // They are told the end of the restart that led to the other process, where its clients are waited
        // for.
        let moved =
            matches!(self.machine.phase(), Phase::Yielded { .. }) && !self.requests.owes_answers();
        if moved {
            self.feed.subscribers.close();
        }
        if let Some(end) = end {
            self.context.front.control.announce(match end {
                _ if moved => Outlook::Moved,
                AnnouncedEnd::None => Outlook::Open,
                AnnouncedEnd::Restart | AnnouncedEnd::Replaced => {
                    Outlook::Ends(ShutdownReason::Restart)
                }
                AnnouncedEnd::Stop => Outlook::Ends(ShutdownReason::Stop),
            });
        }
    }

    pub(super) fn subscribe(&mut self, params: &SubscribeParams, reply: Reply) {
        let now = self.standing();
        self.feed.subscribe(params, now, reply);
    }

    fn standing(&self) -> GatewayStanding {
        let (stage, detail) = self.stage();
        let generation = self.machine.current();
        let current = self.generations.current().into_iter();
        let slots = current.flat_map(|current| current.slots.values());
        let sidecars = slots.map(|slot| {
            let status = sidecar_status(slot, 0, &self.context);
            SidecarEvent {
                name: status.name,
                state: status.state,
                cause: status.cause,
                generation,
                pid: status.pid,
                restarts: status.restarts,
                failing: status.failing,
                gone: false,
            }
        });
        GatewayStanding {
            state: StateEvent {
                stage,
                detail,
                generation,
                pid: std::process::id(),
            },
            sidecars: sidecars.collect(),
        }
    }

    /// An older generation of this process begins to drain.
    pub(super) fn tell_drain(&self, generation: u64) {
        let mut drains = self.generations.draining();
        if let Some(status) = drains.find(|drain| drain.generation == generation) {
            self.publish_drain(DrainingEvent::Began(status));
        }
    }

    /// This process finishes all of its work, within that time.
    pub(super) fn tell_last_drain(&self, limit: Option<Duration>) {
        let slots = self.generations.slots();
        let leases = self.leases.claim();
        let blockers: Vec<String> = { slots.iter() }
            .flat_map(|slot| slot.backend().tickets.blockers())
            .chain(leases.blockers())
            .collect();
        let counts = slots.iter().map(|slot| slot.backend().tickets.counts());
        let (requests, tunnels) = counts.fold((0, 0), |(requests, tunnels), counts| {
            (
                requests + counts.requests as u64,
                tunnels + counts.tunnels as u64,
            )
        });
        self.publish_drain(DrainingEvent::Began(DrainStatus {
            generation: self.machine.current(),
            pid: 0,
            requests,
            tunnels,
            leases: leases.count(),
            memory_bytes: None,
            left_ms: limit.map(|limit| limit.as_millis() as u64),
            blockers: first_few(blockers.into_iter()),
        }));
    }

    pub(super) fn tell_drained(&self, generation: u64) {
        self.publish_drain(DrainingEvent::Ended(DrainedEvent { generation }));
    }

    pub(super) fn tell_cut(&self, work: &CutWork) {
        self.publish_drain(DrainingEvent::Cut(CutEvent {
            sidecar: work.sidecar.clone(),
            request: work.request.clone(),
            cut: work.cut.clone(),
            ended: work.ended.clone(),
        }));
    }

    fn publish_drain(&self, event: DrainingEvent) {
        let event = GatewayEvent::Draining(event);
        self.feed.subscribers.publish(&event);
    }
}
