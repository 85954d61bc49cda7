//! The passages of a generation that took over: made here, or in the successor that serves it.
//!
//! These are methods of [`Gateway`] because they go through the front door to the sidecars, and requests
//! and the predecessor hear of them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Gateway;
use crate::gateway::clients_watch::ClientsWatch;
use crate::gateway::lifecycle::RequestVerdict;
use crate::gateway::loop_event::LoopEvent;
use crate::gateway::passage::passages;
use crate::gateway::passage_wait::{PassageReport, PassageWait, log};
use crate::state::passage::{Passage, PassageEnd};

impl Gateway {
    /// The service is about to be this process's: counts what clients see from here on, for the
    /// predecessor, which answers the request.
    pub(super) fn count_arrivals(&mut self) {
        let none = Default::default();
        self.passages.arrivals = (self.predecessor.asks_for_passages())
            .then(|| ClientsWatch::begin(&self.context.front, &none, None));
    }

    /// Makes the passages of the generation that serves from now on.
    pub(super) fn make_passages(&mut self) {
        let Some(current) = self.generations.current().cloned() else {
            return;
        };
        let number = current.number;
        self.passages.begin(number);
        let listeners = self.front_door.listeners.addresses();
        let listeners = listeners.iter().filter_map(|at| at.parse().ok()).collect();
        let workers = Arc::clone(&self.front_door.workers);
        let making = passages(current, listeners, workers, self.context.redactor.clone());
        let events = &self.events;
        let made = events.outbox(move |passages| LoopEvent::Passages(number, passages));
        tokio::spawn(async move { made.send(making.await) });
    }

    /// They were made.
    pub(super) fn passages_made(&mut self, generation: u64, passages: Vec<Passage>) {
        log(&passages);
        let arrivals = self.passages.arrivals.take();
        let clients = arrivals.map(|arrivals| {
            let info = self.generations.info();
            arrivals.seen(&self.context.front, &info)
        });
        let report = PassageReport { passages, clients };
        if self.predecessor.asks_for_passages() {
            // The predecessor answers the request.
            self.requests.passed(&report.passages);
            self.predecessor.tell_passages(&report);
        }
        self.passages.made(generation, report);
    }

    /// The successor that serves this generation tells what came of them there. Its sidecars also have
    /// the requests that are still here.
    pub(super) fn passages_heard(&mut self, generation: u64, mut report: PassageReport) {
        let doors = self.successor.doors();
        for Passage { sidecar, end, .. } in &mut report.passages {
            if let (PassageEnd::Unanswered { waited_ms }, Some(door)) = (&*end, doors.get(sidecar))
            {
                let waited_ms = *waited_ms;
                let begun = Instant::now().checked_sub(Duration::from_millis(waited_ms));
                if begun.is_some_and(|begun| door.tickets.answered_since(begun)) {
                    *end = PassageEnd::Behind { waited_ms };
                }
            }
        }
        self.passages.made(generation, report);
    }

    /// The passages that belong to a request which ends so; none where none are made.
    pub(super) fn passages_of(
        &self,
        verdict: &RequestVerdict,
        unchanged: bool,
    ) -> Option<PassageWait> {
        let generation = verdict.generation().filter(|_| !unchanged)?;
        self.passages.wait(generation)
    }
}
