//! Back to the generation before, when a sidecar of the one that serves dies while its predecessor
//! still runs.
//!
//! These are methods of [`Gateway`] because that concerns every component that knows the generation.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::Gateway;
use crate::gateway::generation::Generation;
use crate::gateway::lifecycle::{Budget, Event};
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::obituary::Obituary;
use crate::gateway::outbox::Outbox;
use crate::gateway::relapse::Before;
use crate::gateway::slot::Slot;

impl Gateway {
    /// A sidecar changed its state: if it died, and the copy before it still runs, that one serves
    /// again.
    pub(super) fn look_for_relapse(&mut self) {
        let Some(before) = self.machine.fallback() else {
            return self.look_for_way_back();
        };
        let Some(Before {
            generation, since, ..
        }) = self
            .before
            .as_ref()
            .filter(|one| one.generation.number == before)
        else {
            return;
        };
        let Some(died) = self.generations.died_beside(generation) else {
            return;
        };
        let after_ms = since.elapsed().as_millis() as u64;
        if !self.generations.recall(before) {
            return;
        }
        let serves = self.machine.current();
        self.requests.doubt(serves);
        self.step(Event::ServingDied(serves));
        let obituaries = self.events.outbox(LoopEvent::Relapsed);
        tell_death(died, serves, after_ms, obituaries);
    }

    /// The generation before serves again, and the one that failed drains.
    pub(super) fn serve_again(&mut self) {
        let Some(Before {
            generation,
            material,
            ..
        }) = self.before.take()
        else {
            return;
        };
        self.material = material;
        let failed = self.generations.put_back(Arc::clone(&generation));
        self.reopen(&generation);
        self.tell_addresses();
        if let Some(failed) = failed {
            let (holds, drained) = (self.holds(), self.drained_outbox());
            let (report, keep) = (self.reporter(None), Duration::ZERO);
            self.generations.drain(
                Some(&failed),
                Budget::Configured,
                keep,
                holds,
                &report,
                drained,
            );
        }
        self.refresh();
        if self.machine.owns() {
            self.record_owner();
        }
    }

    /// Opens addresses and doors of the current generation, which drained, and sends new requests to it.
    pub(super) fn reopen(&mut self, current: &Generation) {
        let wanted = &current.config.gateway.listen;
        if let Err(error) = self.front_door.listeners.change(wanted) {
            warn!("[gateway] not all addresses of before are open again: {error}");
        }
        // Before requests are sent to it: one that finds its door gone would look again at once.
        for slot in current.slots.values() {
            slot.reopen(&self.context);
        }
        self.front_door.serve(current);
        self.follow_sidecars();
    }

    /// It is known how the generation died that had taken over: its restart failed.
    pub(super) fn relapsed(&mut self, obituary: &Obituary) {
        let why = self.context.redactor.text(&obituary.why());
        if obituary.is_refusal() {
            self.refused_copies.count(&obituary.sidecar);
        }
        let serves = self.machine.current();
        self.requests.correct(obituary.generation, &why, serves);
        self.answer_undoubted();
        self.keep_bundle("relapsed", &why);
        self.refresh();
    }

    /// The process that knew how its generation died is gone.
    pub(super) fn death_stays_untold(&mut self) {
        self.requests.stay_untold(self.machine.current());
        self.answer_undoubted();
    }

    /// The generation before, if `number` is its own, has ended: there is no way back any more.
    pub(super) fn before_is_gone(&mut self, number: u64) {
        self.step(Event::BeforeGone(number));
        if self
            .before
            .take_if(|one| one.generation.number == number)
            .is_some()
        {
            self.refused_copies.forget();
        }
    }
}

/// Tells how a sidecar of this generation died, so many milliseconds after that had begun to serve.
pub(super) fn tell_death(died: Arc<Slot>, generation: u64, after_ms: u64, to: Outbox<Obituary>) {
    tokio::spawn(async move {
        // Until it has ended, its last words are not complete.
        died.stop(Duration::MAX).await;
        to.send(Obituary {
            generation,
            sidecar: died.name().to_owned(),
            after_ms,
            failure: died.sidecar().last_failure().map(Arc::unwrap_or_clone),
        });
    });
}
