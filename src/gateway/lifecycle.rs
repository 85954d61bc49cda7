//! What a gateway does next: a pure machine. [`Lifecycle::step`] takes what happened and says what to do; it has no clock
//! and does nothing itself, so every order of events can be tried in a test.

use std::time::Duration;

/// After this long a stop is over, whatever still goes on: before the service manager's TimeoutStopSec=30 s, so that our
/// own end, which says why, comes before its SIGKILL.
pub const FORCE_EXIT: Duration = Duration::from_secs(25);

/// The exit code of a stop that had to be forced, and of a start that failed.
const FAILED: u8 = 1;

/// How a generation is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Everything new.
    Restart,
    /// Only what changed in the configuration.
    Reload,
}

/// How long old work may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// As configured.
    Configured,
    /// Not at all.
    Force,
    /// This long.
    Limit(Duration),
    /// For ever.
    Unlimited,
}

/// Somebody wants a new generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names it in records and answers.
    pub id: String,
    /// What is wanted.
    pub kind: Kind,
    /// How long old work may go on.
    pub budget: Budget,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A restart or reload is asked for.
    Asked(Request),
    /// A stop is asked for; `at_once` by somebody who does not want to wait for work.
    Stop {
        /// Do not wait.
        at_once: bool,
    },
    /// The generation under construction can serve.
    Built(u64),
    /// It cannot.
    Broken(u64, String),
    /// A stop finished all there was.
    Quiet,
    /// Time went by.
    Tick,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Construct a generation.
    Build {
        /// Its number.
        generation: u64,
        /// How.
        kind: Kind,
        /// How long old work may go on where it is in the way.
        budget: Budget,
        /// Whom to tell about it; none for the first.
        request: Option<String>,
    },
    /// Stop constructing it.
    Abandon(u64),
    /// New requests go to it; the one before finishes its work.
    Serve {
        /// The new one.
        generation: u64,
        /// How long old work may go on.
        budget: Budget,
    },
    /// A request has ended.
    Answer {
        /// Which.
        id: String,
        /// How.
        verdict: Verdict,
    },
    /// Accept nobody new, finish what is there, then say [`Event::Quiet`].
    Wind {
        /// Do not wait for work.
        at_once: bool,
    },
    /// End the process.
    Exit(u8),
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// This generation serves because of it.
    Done(u64),
    /// The same was done for another request.
    Coalesced {
        /// The other request; "start" for the first start.
        into: String,
        /// The generation that serves now.
        generation: u64,
    },
    /// Not even tried.
    Rejected(String),
    /// Tried; the generation before serves on.
    Failed(String),
}

/// Where the gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The first generation is being built; nobody serves yet.
    Starting(Build),
    /// A generation serves.
    Serving,
    /// A generation serves, and the next is being built.
    Building(Build),
    /// On the way out.
    Stopping {
        /// When it is over whatever goes on.
        until: Duration,
    },
    /// The process ends.
    Ended,
}

/// A generation under construction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    generation: u64,
    kind: Kind,
    budget: Budget,
    /// The request it is for; none for the first.
    leader: Option<String>,
    /// Requests that it fulfils as well.
    joined: Vec<String>,
    /// What comes next: asked for after this one had read the configuration.
    then: Option<Next>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Next {
    request: Request,
    joined: Vec<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lifecycle {
    phase: Phase,
    /// The number of the generation that serves; 0 before the first.
    current: u64,
    /// The highest number given so far: numbers are never used twice.
    last: u64,
}

impl Lifecycle {
    /// A gateway that begins, and the first thing to do.
    pub fn start() -> (Self, Vec<Action>) {
        let mut machine = Self { phase: Phase::Ended, current: 0, last: 0 };
        let build = machine.build(Kind::Restart, Budget::Configured, None, Vec::new());
        let action = build.action();
        machine.phase = Phase::Starting(build);
        (machine, vec![action])
    }

    /// Where it stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// The generation that serves; 0 before the first.
    pub fn current(&self) -> u64 {
        self.current
    }

    /// When a [`Event::Tick`] is due, in the time that `step` is given.
    pub fn deadline(&self) -> Option<Duration> {
        match self.phase {
            Phase::Stopping { until } => Some(until),
            _ => None,
        }
    }

    /// Takes what happened at `now` (since the process began) and says what to do.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match event {
            Event::Asked(request) => self.asked(request),
            Event::Stop { at_once } => self.stop(at_once, now),
            Event::Built(generation) => self.built(generation),
            Event::Broken(generation, why) => self.broken(generation, &why),
            Event::Quiet => match self.phase {
                Phase::Stopping { .. } => self.exit(0),
                _ => Vec::new(),
            },
            Event::Tick => match self.phase {
                Phase::Stopping { until } if now >= until => self.exit(FAILED),
                _ => Vec::new(),
            },
        }
    }

    fn asked(&mut self, request: Request) -> Vec<Action> {
        match &mut self.phase {
            Phase::Serving => {
                let build = self.build(request.kind, request.budget, Some(request.id), Vec::new());
                let action = build.action();
                self.phase = Phase::Building(build);
                vec![action]
            }
            Phase::Starting(build) | Phase::Building(build) => {
                build.ask(request);
                Vec::new()
            }
            Phase::Stopping { .. } | Phase::Ended => vec![reject(request.id)],
        }
    }

    fn stop(&mut self, at_once: bool, now: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match &self.phase {
            Phase::Ended => return actions,
            Phase::Stopping { .. } if at_once => return self.exit(FAILED),
            Phase::Stopping { .. } => return actions,
            Phase::Serving => {}
            Phase::Starting(build) | Phase::Building(build) => {
                actions.push(Action::Abandon(build.generation));
                actions.extend(build.everybody().map(reject));
            }
        }
        self.phase = Phase::Stopping { until: now + FORCE_EXIT };
        actions.push(Action::Wind { at_once });
        actions
    }

    fn built(&mut self, generation: u64) -> Vec<Action> {
        let build = match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Starting(build) | Phase::Building(build) if build.generation == generation => build,
            other => {
                self.phase = other;
                return Vec::new();
            }
        };
        self.current = generation;
        let mut actions = vec![Action::Serve { generation, budget: build.budget }];
        let into = build.leader.clone().unwrap_or_else(|| "start".to_owned());
        actions.extend(build.leader.map(|id| Action::Answer { id, verdict: Verdict::Done(generation) }));
        actions.extend(
            build.joined.into_iter().map(|id| Action::Answer { id, verdict: Verdict::Coalesced { into: into.clone(), generation } }),
        );
        actions.extend(build.then.map(|next| self.next(next)));
        actions
    }

    fn broken(&mut self, generation: u64, why: &str) -> Vec<Action> {
        let (build, first) = match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Starting(build) if build.generation == generation => (build, true),
            Phase::Building(build) if build.generation == generation => (build, false),
            other => {
                self.phase = other;
                return Vec::new();
            }
        };
        let failed = |id| Action::Answer { id, verdict: Verdict::Failed(why.to_owned()) };
        if first {
            let mut actions: Vec<Action> = build.everybody().map(failed).collect();
            actions.extend(self.exit(FAILED));
            return actions;
        }
        let mut actions: Vec<Action> = build.leader.into_iter().chain(build.joined).map(failed).collect();
        actions.extend(build.then.map(|next| self.next(next)));
        actions
    }

    fn next(&mut self, next: Next) -> Action {
        let build = self.build(next.request.kind, next.request.budget, Some(next.request.id), next.joined);
        let action = build.action();
        self.phase = Phase::Building(build);
        action
    }

    fn build(&mut self, kind: Kind, budget: Budget, leader: Option<String>, joined: Vec<String>) -> Build {
        self.last += 1;
        Build { generation: self.last, kind, budget, leader, joined, then: None }
    }

    fn exit(&mut self, code: u8) -> Vec<Action> {
        self.phase = Phase::Ended;
        vec![Action::Exit(code)]
    }
}

impl Build {
    fn action(&self) -> Action {
        Action::Build { generation: self.generation, kind: self.kind, budget: self.budget, request: self.leader.clone() }
    }

    /// A restart joins a restart under way. What this build cannot fulfil any more waits: it read the configuration before.
    fn ask(&mut self, request: Request) {
        match (&mut self.then, request.kind) {
            (Some(next), Kind::Restart) if next.request.kind == Kind::Reload => {
                let reload = std::mem::replace(&mut next.request, request);
                next.joined.push(reload.id);
            }
            (Some(next), _) => next.joined.push(request.id),
            (None, Kind::Restart) if self.kind == Kind::Restart => self.joined.push(request.id),
            (None, _) => self.then = Some(Next { request, joined: Vec::new() }),
        }
    }

    fn everybody(&self) -> impl Iterator<Item = String> {
        let next = self.then.iter().flat_map(|next| std::iter::once(&next.request.id).chain(&next.joined));
        self.leader.iter().chain(&self.joined).chain(next).cloned()
    }
}

fn reject(id: String) -> Action {
    Action::Answer { id, verdict: Verdict::Rejected("the gateway is stopping".to_owned()) }
}

#[cfg(test)]
mod tests;
