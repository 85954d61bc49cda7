//! What a gateway does next: a pure state machine. [`Lifecycle::step`] takes an event and returns
//! actions; it has no clock and does nothing itself, so that a test can try every order of events.
//!
//! The next generation lives in this process, in a successor, or in the process that the service
//! manager starts next ([`Placement`]). In a hand-over, two of these machines talk: the old one is
//! `Handing` until the successor serves, then `Yielded`; the new one is `Starting` as a candidate,
//! `Prepared`, and owns the service from [`Action::Own`] on.

use std::time::Duration;

mod build;
mod ending;
mod handover;
mod phase;
mod queue;
mod vocabulary;

pub use build::Build;
pub use phase::{Origin, Phase};
use queue::{NextBuild, Queue};
use vocabulary::answer;
pub use vocabulary::{
    Action, Budget, Event, Fallback, GenerationRequest, Placement, RequestKind, RequestVerdict,
    StartMode,
};

/// The time between two trials of a gateway in safe mode: long enough not to load the machine,
/// short enough to notice soon that the cause is gone.
pub const TRIAL_EVERY: Duration = Duration::from_secs(600);

/// When the end of a stop is forced: before the service manager's TimeoutStopSec=30 s, so that the
/// gateway logs the reason before SIGKILL comes.
pub const FORCE_EXIT: Duration = Duration::from_secs(25);

/// The exit code of a stop that cut nothing.
const DONE: u8 = 0;

/// The exit code of a stop that had to cut work or to be forced, and of a start that failed.
const FAILED: u8 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lifecycle {
    phase: Phase,
    /// The number of the generation that serves; 0 before the first.
    current: u64,
    /// The highest number given so far: no two generations ever have the same.
    last: u64,
    /// Whether another process has the service until it hands over.
    candidate: bool,
    /// The generation before the one that serves, while its sidecars still run here.
    fallback: Option<u64>,
}

impl Lifecycle {
    /// The machine of a gateway that begins, and its first actions.
    pub fn start(entry: StartMode) -> (Self, Vec<Action>) {
        let mut machine = Self {
            phase: Phase::Ended,
            current: 0,
            last: 0,
            candidate: false,
            fallback: None,
        };
        let actions = match entry {
            StartMode::First(then) => vec![machine.begin(Origin::Alone(then), None)],
            StartMode::Candidate { generation } => {
                machine.last = generation.saturating_sub(1);
                machine.candidate = true;
                vec![machine.begin(Origin::Candidate, None)]
            }
            StartMode::Later { at, then } => {
                machine.phase = Phase::Waiting { until: at, then };
                Vec::new()
            }
        };
        (machine, actions)
    }

    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The request whose build is to fulfil request `id` as well, and had begun before it.
    pub fn joined_by(&self, id: &str) -> Option<&str> {
        match &self.phase {
            Phase::Building(build) | Phase::Handing { build, .. } => build.joined_by(id),
            _ => None,
        }
    }

    /// The request that is carried out now, for whose end request `id` waits.
    pub fn awaited_by(&self, id: &str) -> Option<&str> {
        match &self.phase {
            Phase::Starting(build, _) | Phase::Building(build) | Phase::Handing { build, .. } => {
                build.awaited_by(id)
            }
            _ => None,
        }
    }

    /// The generation that serves; 0 before the first.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// The generation that serves again if a sidecar of the present one dies now; none where there is
    /// none, or where another build or process has taken over what it would need.
    pub fn fallback(&self) -> Option<u64> {
        let can_go_back = match &self.phase {
            Phase::Serving => true,
            // The others keep sidecars of the one that serves.
            Phase::Building(build) => build.kind == RequestKind::Restart,
            Phase::Handing { committed, .. } => !committed,
            _ => false,
        };
        self.fallback.filter(|_| can_go_back)
    }

    /// Whether this process has the service: it is no candidate, and has not handed over, nor told
    /// its successor to begin.
    pub fn owns(&self) -> bool {
        !self.candidate
            && !matches!(
                self.phase,
                Phase::Yielded { .. }
                    | Phase::Handing {
                        committed: true,
                        ..
                    }
            )
    }

    /// Whether a successor is being started that builds the next generation.
    pub fn starts_successor(&self) -> bool {
        matches!(&self.phase, Phase::Handing { build, .. } if build.place != Placement::Here)
    }

    /// Whether this process has or had the service: it is no candidate.
    pub fn owned(&self) -> bool {
        !self.candidate
    }

    /// When a [`Event::Tick`] is due, in the time that `step` is given.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Stopping { until } | Phase::Waiting { until, .. } => Some(until),
            Phase::Yielded { until } | Phase::Leaving { until } => until,
            _ => None,
        }
    }

    /// Takes an event at `now`, counted from the begin of the process, and returns the actions.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::Asked(request) => self.asked(request),
            Event::Stop { at_once, limit } => self.stop(at_once, now + limit),
            Event::End { budget, limit } => self.end(budget, limit.map(|limit| now + limit)),
            Event::Built(generation) => self.built(generation),
            Event::Broken(generation, why) => self.broken(generation, &why, now),
            Event::Unchanged(generation) => self.unchanged(generation),
            Event::SuccessorReady(generation) => self.successor_ready(generation),
            Event::SuccessorServes { generation, limit } => {
                self.successor_serves(generation, limit.map(|limit| now + limit))
            }
            Event::SuccessorLost(generation, why) => self.successor_lost(generation, &why),
            Event::ServingDied(generation) => self.serving_died(generation),
            Event::BeforeGone(generation) => {
                self.fallback.take_if(|before| *before == generation);
                Vec::new()
            }
            Event::GiveBack => self.give_back(),
            Event::Go => self.go(),
            Event::Orphaned => self.orphaned(),
            Event::Recover => self.recover(None),
            Event::Quiet => self.done(DONE),
            Event::Cut => self.done(FAILED),
            Event::Tick => self.tick(now),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Action> {
        if self.deadline().is_none_or(|until| now < until) {
            return Vec::new();
        }
        match self.phase {
            Phase::Waiting { .. } => self.recover(None),
            _ => self.exit(FAILED),
        }
    }

    fn asked(&mut self, request: GenerationRequest) -> Vec<Action> {
        match &mut self.phase {
            Phase::Serving => {
                let joined = Vec::new();
                self.next(NextBuild { request, joined }, Queue::default())
            }
            Phase::Waiting { .. } if request.kind.sidecar().is_some() => {
                vec![reject(request.id, NOT_STARTED)]
            }
            Phase::Waiting { .. } => self.recover(Some(request.id)),
            Phase::Starting(_, Origin::Candidate) | Phase::Prepared(_) => {
                vec![reject(request.id, "this process does not serve yet")]
            }
            Phase::Starting(build, _) | Phase::Building(build) | Phase::Handing { build, .. } => {
                build.ask(request);
                Vec::new()
            }
            Phase::Yielded { .. } => vec![answer(request.id, RequestVerdict::Moved)],
            Phase::Leaving { .. } => vec![answer(request.id, RequestVerdict::Scheduled)],
            Phase::Stopping { .. } | Phase::Ended => vec![reject(request.id, STOPPING)],
        }
    }

    fn built(&mut self, generation: u64) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Starting(build, Origin::Candidate) if build.generation == generation => {
                self.phase = Phase::Prepared(build);
                vec![Action::Announce]
            }
            Phase::Starting(build, _) | Phase::Building(build)
                if build.generation == generation =>
            {
                self.serve(build)
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    fn serve(&mut self, build: Build) -> Vec<Action> {
        let generation = build.generation;
        self.fallback = Some(self.current).filter(|before| *before != 0);
        self.current = generation;
        self.phase = Phase::Serving;
        let mut actions = vec![Action::Serve {
            generation,
            budget: build.budget,
        }];
        actions.extend(build.done());
        actions.extend(self.go_on(build.then));
        actions
    }

    /// Whoever asked for the generation that died has been told that it serves: that is corrected
    /// outside, where the answers are known.
    fn serving_died(&mut self, died: u64) -> Vec<Action> {
        let Some(before) = self.fallback().filter(|_| died == self.current) else {
            return Vec::new();
        };
        self.fallback = None;
        self.current = before;
        vec![Action::ServeAgain {
            generation: before,
            failed: died,
        }]
    }

    fn broken(&mut self, generation: u64, why: &str, now: Duration) -> Vec<Action> {
        let failed = |id| answer(id, RequestVerdict::Failed(why.to_owned()));
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Starting(build, origin) if build.generation == generation => {
                let mut actions: Vec<Action> = build.everybody().map(failed).collect();
                match origin {
                    Origin::Alone(Fallback::Safe) => {
                        self.phase = Phase::Waiting {
                            until: now + TRIAL_EVERY,
                            then: Fallback::Safe,
                        };
                    }
                    Origin::Orphan => {
                        actions.push(self.begin(Origin::Alone(Fallback::Persist), None))
                    }
                    Origin::Alone(_) | Origin::Candidate => actions.extend(self.exit(FAILED)),
                }
                actions
            }
            Phase::Building(build) if build.generation == generation => self.failed(build, failed),
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    /// The one that serves is what was asked for. Nobody has seen the other number, so it is given again.
    fn unchanged(&mut self, generation: u64) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Building(mut build) if build.generation == generation => {
                self.last = self.last.min(generation - 1);
                build.generation = self.current;
                let mut actions = build.done();
                actions.extend(self.go_on(build.then));
                actions
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    fn failed(&mut self, build: Build, failed: impl Fn(String) -> Action) -> Vec<Action> {
        let (waiting, then) = build.failed();
        let mut actions: Vec<Action> = waiting.map(failed).collect();
        actions.extend(self.go_on(then));
        actions
    }

    /// Begins what is first in the queue, if anything is.
    fn go_on(&mut self, mut queue: Queue) -> Vec<Action> {
        let next = queue.pop();
        next.map(|next| self.next(next, queue)).unwrap_or_default()
    }

    fn recover(&mut self, request: Option<String>) -> Vec<Action> {
        match self.phase {
            Phase::Waiting { then, .. } => vec![self.begin(Origin::Alone(then), request)],
            _ => Vec::new(),
        }
    }

    /// Begins the first generation of this process.
    fn begin(&mut self, origin: Origin, request: Option<String>) -> Action {
        let build = self.build(
            RequestKind::Restart,
            Budget::Configured,
            request,
            Vec::new(),
        );
        let action = build.action(origin == Origin::Alone(Fallback::Persist));
        self.phase = Phase::Starting(build, origin);
        action
    }

    /// Begins a build; the rest of the queue waits for its end.
    fn next(&mut self, next: NextBuild, rest: Queue) -> Vec<Action> {
        let (kind, budget) = (next.request.kind.clone(), next.request.budget);
        match next.request.place {
            Placement::Next { until } if kind == RequestKind::Restart => {
                self.phase = Phase::Leaving { until };
                let scheduled = |id| answer(id, RequestVerdict::Scheduled);
                let mut actions = vec![Action::Leave { budget }];
                // Who starts next starts every sidecar, with the configuration as it is then.
                actions.extend(next.everybody().chain(rest.everybody()).map(scheduled));
                actions
            }
            place @ Placement::Successor { .. } if kind == RequestKind::Restart => {
                let id = next.request.id;
                let mut build = self.build(kind, budget, Some(id.clone()), next.joined);
                build.place = place;
                build.then = rest;
                let generation = build.generation;
                self.phase = Phase::Handing {
                    build,
                    committed: false,
                };
                vec![Action::HandOver {
                    generation,
                    budget,
                    request: id,
                }]
            }
            _ => {
                let mut build = self.build(kind, budget, Some(next.request.id), next.joined);
                build.then = rest;
                let action = build.action(false);
                self.phase = Phase::Building(build);
                vec![action]
            }
        }
    }

    fn build(
        &mut self,
        kind: RequestKind,
        budget: Budget,
        leader: Option<String>,
        joined: Vec<String>,
    ) -> Build {
        self.last += 1;
        Build {
            generation: self.last,
            kind,
            budget,
            place: Placement::Here,
            leader,
            joined,
            late: Vec::new(),
            then: Queue::default(),
        }
    }

    /// A stop or an end has nothing left to do.
    fn done(&mut self, code: u8) -> Vec<Action> {
        match self.phase {
            Phase::Stopping { .. } | Phase::Yielded { .. } | Phase::Leaving { .. } => {
                self.exit(code)
            }
            _ => Vec::new(),
        }
    }

    fn exit(&mut self, code: u8) -> Vec<Action> {
        self.phase = Phase::Ended;
        vec![Action::Exit(code)]
    }
}

const STOPPING: &str = "the gateway is stopping";

/// Why one sidecar cannot be restarted while none may be started.
const NOT_STARTED: &str = "its sidecars wait to be started: gatewayctl recover";

fn reject(id: String, why: &str) -> Action {
    answer(id, RequestVerdict::Rejected(why.to_owned()))
}

#[cfg(test)]
mod pair;
#[cfg(test)]
mod tests;
