//! The loop: it owns every component and takes one thing at a time, an event, a call, a signal or a
//! clock.
//!
//! The pure machine of [`super::lifecycle`] decides what to do. `calls` and `events` bring to it
//! what happens, `perform` does what it says; `handover` and `ending` do both for a hand-over and for
//! the end of the process; `status` tells how things stand. Only these files have methods of
//! [`Gateway`]: what concerns one component is that component's; what is left concerns several of
//! them, and no component knows another.

mod calls;
mod copies;
mod ending;
mod events;
mod hand_back;
mod handover;
mod passages;
mod perform;
mod relapse;
mod status;
mod subscriptions;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::budget::EXTEND_EVERY;
use super::building::Construction;
use super::config_source::Material;
use super::context::GatewayContext;
use super::control_end::ControlEnd;
use super::drain::budget::Cut;
use super::event_feed::EventFeed;
use super::front_door::FrontDoor;
use super::generations::Generations;
use super::handover::predecessor_side::PredecessorSide;
use super::handover::successor_side::SuccessorSide;
use super::lease::Leases;
use super::lifecycle::{Action, Budget, Event, Lifecycle, Origin, Phase};
use super::loop_event::LoopEvent;
use super::obituary::RefusedCopies;
use super::option_future::{every, or_never};
use super::outbox::Outbox;
use super::passage_wait::Passages;
use super::pending_requests::{PendingRequests, RequestScene};
use super::progress::Reporter;
use super::recovery::RecoveryAction;
use super::recovery::driver::RecoveryDriver;
use super::relapse::Before;
use super::signals::Signals;
use super::supervision::Supervision;
use super::traces::Traces;
use super::watchdog::Watchdog;
use crate::control::server::Call;
use crate::state::paths::Paths;
use crate::state::terms::EndReason;

/// How often predecessor and successor tell each other how it goes.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// A gateway process. What it is made of is put together in [`super::start`].
#[derive(Debug)]
pub struct Gateway {
    pub context: Arc<GatewayContext>,
    pub paths: Paths,
    /// What the generation that serves is made of; before the first, that of the one to be tried.
    pub material: Material,
    pub machine: Lifecycle,
    pub events: Outbox<LoopEvent>,
    pub traces: Traces,
    pub control: ControlEnd,
    pub leases: Arc<Leases>,
    pub feed: EventFeed,
    pub requests: PendingRequests,
    pub passages: Passages,
    pub construction: Construction,
    pub generations: Generations,
    /// The generation before the one that serves, while it drains in this process.
    pub before: Option<Before>,
    /// Sidecars whose second copy ended while the first one ran.
    pub refused_copies: RefusedCopies,
    pub front_door: FrontDoor,
    pub supervision: Supervision,
    pub recovery: RecoveryDriver,
    pub successor: SuccessorSide,
    pub predecessor: PredecessorSide,
    pub client_drain: ClientDrain,
    /// A SIGINT came; a second one stops at once.
    pub interrupted: bool,
    pub signals: PendingSignals,
    /// The exit code: the loop ends.
    pub exit: Option<u8>,
}

/// The drain of the clients of a process that has handed over, or that ends for the next one.
#[derive(Debug, Default)]
pub struct ClientDrain {
    /// Ends it, so that a stop can go on in less time.
    hurry: CancellationToken,
    /// It needs more time than the service manager gives, which is asked for more.
    extends: bool,
    /// Somebody wanted no wait for work: what is cut then is no failure.
    forced: bool,
    /// What it, or a stop, cut.
    cut: Cut,
}

impl ClientDrain {
    fn end(&self) -> Event {
        if self.cut.is_empty() || self.forced {
            Event::Quiet
        } else {
            Event::Cut
        }
    }
}

/// What comes from outside.
#[derive(Debug)]
pub struct Inputs {
    pub signals: Signals,
    pub events: mpsc::UnboundedReceiver<LoopEvent>,
    pub calls: mpsc::Receiver<Call>,
}

/// What the actions of a step need to know of the event that led to it, and of each other.
#[derive(Debug, Default)]
struct StepScene {
    /// The generation that served until now.
    previous: Option<Before>,
    /// Reports to the client that requested the generation that was built.
    report: Option<Reporter>,
    /// What the answers to requests need.
    answers: RequestScene,
}

/// Signals whose meaning is being looked up, and what happened since: a signal counts from when it
/// came, so the rest waits for it.
#[derive(Debug, Default)]
pub struct PendingSignals {
    count: usize,
    since: VecDeque<LoopEvent>,
}

impl Gateway {
    /// Begins with these actions of the machine and of the ladder.
    pub fn begin(&mut self, actions: Vec<Action>, ladder: Vec<RecoveryAction>) {
        if self.predecessor.predecessor().is_none() {
            self.open_up();
        }
        if let Some(sentence) = self.recovery.ladder.sentence() {
            warn!("[gateway] {sentence}");
        }
        self.climb(ladder);
        self.supervision
            .ask(self.events.outbox(LoopEvent::Supervised));
        self.perform(actions, StepScene::default());
        if matches!(self.machine.phase(), Phase::Waiting { .. }) {
            // There is nothing to wait for that the service manager should wait for, too.
            self.refresh();
        }
    }

    /// Runs until the end of the process; the exit code comes back.
    pub async fn run(mut self, mut inputs: Inputs) -> u8 {
        let mut extend = every(EXTEND_EVERY);
        let mut alive = every(ALIVE_EVERY);
        let notifier = self.predecessor.notifier();
        let mut watchdog = Watchdog::new(notifier.unwrap_or(self.supervision.notifier()));
        let started = self.context.front.started;
        let at = |after: Duration| tokio::time::Instant::from_std(started + after);
        let code = loop {
            if let Some(code) = self.exit {
                break code;
            }
            let deadline = self.machine.deadline().map(at);
            let trusted = self.recovery.ladder.deadline().map(at);
            let first_clients = self.front_door.first_clients();
            tokio::select! {
                asked = inputs.signals.next() => self.signal(asked),
                Some(event) = inputs.events.recv() => self.happen(event),
                Some(call) = inputs.calls.recv() => self.call(call),
                () = or_never(deadline.map(sleep_until)) => self.step(Event::Tick),
                () = or_never(trusted.map(sleep_until)) => self.follow_recovery(),
                () = or_never(first_clients.map(sleep_until)) => {
                    self.front_door.accept_first_clients();
                }
                _ = extend.tick(), if self.extends() => self.supervision.extend(),
                _ = alive.tick(), if self.is_candidate() || self.successor.has_handed_over() => {
                    if self.is_candidate() {
                        self.predecessor.alive();
                    } else {
                        self.tell_successor();
                    }
                }
                () = watchdog.due(), if self.machine.owns() => watchdog.check(
                    &self.front_door.workers,
                    &self.context.front,
                    self.events.outbox(LoopEvent::Checked),
                ),
                Some(event) = self.successor.next_behind() => self.successor.happen_behind(event),
            }
        };
        self.control.close();
        drop(inputs.calls);
        let predecessor = self.predecessor.predecessor();
        let record = self.recovery.record.clone();
        let (control, waiter) = self.end(code);
        if let Some(predecessor) = predecessor {
            predecessor.flushed().await;
        }
        control.finish().await;
        let Some(waiter) = waiter else {
            return code;
        };
        let end = waiter.wait(&mut inputs.signals).await;
        let why = format!("as pid {} did, which it stayed in front of", end.last);
        let uptime_ms = started.elapsed().as_millis() as u64;
        let why = EndReason::Other(why);
        record.ended(!end.killed, end.code, &why, uptime_ms, Vec::new(), None);
        record.flush();
        end.code
    }

    /// Whether the service manager is asked for more time again and again.
    fn extends(&self) -> bool {
        self.client_drain.extends || matches!(self.machine.phase(), Phase::Starting(..))
    }

    /// Whether this process waits to get the service.
    fn is_candidate(&self) -> bool {
        matches!(
            self.machine.phase(),
            Phase::Starting(_, Origin::Candidate) | Phase::Prepared(_)
        )
    }

    /// Since this process began.
    fn now(&self) -> Duration {
        self.context.front.started.elapsed()
    }

    /// How long work may go on under this budget; none for ever.
    fn drain_limit(&self, budget: Budget) -> Option<Duration> {
        budget.time(self.material.loaded.config.restart.drain.0)
    }
}
