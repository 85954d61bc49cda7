//! The loop: it owns every component and takes one thing at a time, an event, a call, a signal or a
//! clock.
//!
//! The pure machine of [`super::lifecycle`] decides what to do. `calls` and `events` bring to it
//! what happens, `perform` does what it says, in one place, and `status` tells how things stand.
//! Only this file and those four have methods of [`Gateway`]: what concerns one component is that
//! component's; what is left concerns several of them, and no component knows another.

mod calls;
mod events;
mod perform;
mod status;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::sleep_until;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::budget::EXTEND_EVERY;
use super::building::Construction;
use super::config_source::Material;
use super::context::GatewayContext;
use super::control_end::ControlEnd;
use super::front_door::FrontDoor;
use super::generation::Generation;
use super::generations::Generations;
use super::handover::predecessor_side::PredecessorSide;
use super::handover::successor_side::SuccessorSide;
use super::handover::{ToPredecessor, Waiter};
use super::lease::Leases;
use super::lifecycle::{Action, Budget, Event, Lifecycle, Origin, Phase};
use super::loop_event::{LoopEvent, LoopEvents};
use super::option_future::{every, or_never};
use super::pending_requests::PendingRequests;
use super::progress::Reporter;
use super::recovery::RecoveryAction;
use super::recovery::driver::{LifeEnd, RecoveryDriver};
use super::signals::Signals;
use super::supervision::Supervision;
use super::traces::Traces;
use super::watchdog::Watchdog;
use crate::control::protocol::FailureCode;
use crate::control::server::Call;
use crate::state::paths::Paths;

/// How often predecessor and successor tell each other how it goes.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// The exit code of a stop that was done (gateway(8)).
const DONE: u8 = 0;

/// A gateway process. What it is made of is put together in [`super::start`].
#[derive(Debug)]
pub struct Gateway {
    pub context: Arc<GatewayContext>,
    pub paths: Paths,
    /// What the generation that serves is made of; before the first, that of the one to be tried.
    pub material: Material,
    pub machine: Lifecycle,
    pub events: LoopEvents,
    pub traces: Traces,
    pub control: ControlEnd,
    pub leases: Arc<Leases>,
    pub requests: PendingRequests,
    pub construction: Construction,
    pub generations: Generations,
    pub front_door: FrontDoor,
    pub supervision: Supervision,
    pub recovery: RecoveryDriver,
    pub successor: SuccessorSide,
    pub predecessor: PredecessorSide,
    pub client_drain: Option<ClientDrain>,
    /// A SIGINT came; a second one stops at once.
    pub interrupted: bool,
    /// The exit code: the loop ends.
    pub exit: Option<u8>,
}

/// The drain of the clients of a process that has handed over, or that ends for the next one.
#[derive(Debug)]
pub struct ClientDrain {
    /// Ends it, so that a stop can go on in less time.
    hurry: CancellationToken,
    /// It needs more time than the service manager gives, which is asked for more.
    extends: bool,
}

/// What comes from outside.
#[derive(Debug)]
pub struct Inputs {
    signals: Signals,
    events: mpsc::UnboundedReceiver<LoopEvent>,
    calls: mpsc::Receiver<Call>,
}

impl Inputs {
    pub fn new(
        signals: Signals,
        events: mpsc::UnboundedReceiver<LoopEvent>,
        calls: mpsc::Receiver<Call>,
    ) -> Self {
        Self {
            signals,
            events,
            calls,
        }
    }
}

/// What the actions of a step need to know of the event that led to it, and of each other.
#[derive(Debug, Default)]
struct StepScene {
    /// The generation that served until now.
    previous: Option<Arc<Generation>>,
    /// Reports to the client that requested the generation that was built.
    report: Option<Reporter>,
    /// It is a reload that found nothing to do.
    unchanged: bool,
    /// What failing requests answer.
    code: Option<FailureCode>,
    /// The generation that drains because of this step.
    draining: Option<u64>,
    /// What the operator should know.
    notes: Vec<String>,
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
        Supervision::ask(self.events.outbox(LoopEvent::Supervised));
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
            tokio::select! {
                asked = inputs.signals.next() => self.signal(asked),
                Some(event) = inputs.events.recv() => self.happen(event),
                Some(call) = inputs.calls.recv() => self.call(call),
                () = or_never(deadline.map(sleep_until)) => self.step(Event::Tick),
                () = or_never(trusted.map(sleep_until)) => self.follow_recovery(),
                _ = extend.tick(), if self.extends() => self.supervision.extend(),
                _ = alive.tick(), if self.is_candidate() || self.successor.has_handed_over() => {
                    self.every_second();
                }
                () = watchdog.due(), if self.machine.owns() => watchdog.check(
                    self.front_door.workers(),
                    &self.context.front,
                    self.events.outbox(LoopEvent::Checked),
                ),
                Some(event) = self.successor.next_behind() => self.successor.happen_behind(event),
            }
        };
        self.control.close();
        drop(inputs.calls);
        let predecessor = self.predecessor.predecessor();
        let (control, waiter) = self.end(code);
        if let Some(predecessor) = predecessor {
            predecessor.heard().await;
        }
        control.finish().await;
        match waiter {
            Some(waiter) => waiter.wait(&mut inputs.signals).await,
            None => code,
        }
    }

    /// Tells the process on the other side of a hand-over how it goes.
    fn every_second(&self) {
        if self.is_candidate() {
            self.predecessor.alive();
        } else {
            self.tell_successor();
        }
    }

    /// Whether the service manager is asked for more time again and again.
    fn extends(&self) -> bool {
        self.client_drain
            .as_ref()
            .is_some_and(|drain| drain.extends)
            || matches!(self.machine.phase(), Phase::Starting(..))
    }

    /// Whether this process waits for the word to go.
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

    /// The end, but for what has to be waited for.
    fn end(mut self, code: u8) -> (ControlEnd, Option<Waiter>) {
        let cut = self.cut_by_force(code);
        self.predecessor.tell(&ToPredecessor::Bye);
        self.front_door.end();
        // What is the successor's by now stays, and so does what a candidate never had.
        if !self.successor.has_handed_over() && self.machine.owned() {
            let held = self.supervision.holds_listeners();
            self.front_door.remove_paths(&self.paths.control, held);
        }
        self.record_end(code, cut);
        // A process that stays in front of others has not ended.
        if self.generations.current().is_some() && !self.successor.is_in_front() {
            info!("[gateway] ended with code {code}");
        }
        (self.control, self.successor.into_waiter())
    }

    /// What an end by force cuts, which is told and kept; nothing in an orderly end.
    fn cut_by_force(&self, code: u8) -> Vec<String> {
        let slots = self.generations.slots();
        if code == DONE || slots.is_empty() {
            return Vec::new();
        }
        let cut: Vec<String> = slots
            .iter()
            .flat_map(|slot| slot.backend().blockers())
            .chain(self.leases.claim().blockers())
            .collect();
        let text = cut.join(", ");
        let shown = if cut.is_empty() { "nothing" } else { &text };
        warn!("[gateway] forced to end; cut: {shown}");
        self.keep_bundle("forced-exit", &format!("cut: {text}"));
        cut
    }

    /// Writes that the life ends. That of a candidate never began.
    fn record_end(&mut self, code: u8, cut: Vec<String>) {
        if !self.machine.owned() {
            return;
        }
        let supervisor = self.supervision.verdict().supervisor.to_string();
        let end = LifeEnd {
            code,
            uptime: self.now(),
            cut,
            trace: self.traces.hand_over("supervised", "exit", &supervisor),
            failed_by_hand: self.generations.current().is_none() && self.supervision.by_hand(),
        };
        self.recovery.end(end);
    }
}
