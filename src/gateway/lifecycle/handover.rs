//! The steps of a hand-over, of the old process and of its successor.

use std::time::Duration;

use super::{
    Action, Budget, Fallback, Lifecycle, Origin, Phase, RequestKind, RequestVerdict, answer,
};

impl Lifecycle {
    pub(super) fn successor_ready(&mut self, ready: u64) -> Vec<Action> {
        match &mut self.phase {
            Phase::Handing { build, committed } if build.generation == ready && !*committed => {
                *committed = true;
                vec![Action::Commit(ready)]
            }
            _ => Vec::new(),
        }
    }

    pub(super) fn successor_serves(&mut self, serves: u64, until: Option<Duration>) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Yielded { until }) {
            Phase::Handing {
                build,
                committed: true,
            } if build.generation == serves => {
                let mut actions = vec![Action::Yield {
                    generation: serves,
                    budget: build.budget,
                }];
                actions.extend(build.done());
                // Who asked after the successor had begun asks the successor.
                actions.extend(
                    build
                        .then
                        .everybody()
                        .map(|id| answer(id, RequestVerdict::Moved)),
                );
                actions
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    pub(super) fn successor_lost(&mut self, lost: u64, why: &str) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Handing { build, .. } if build.generation == lost => {
                let mut actions = vec![Action::TakeBack];
                let failed = |id| answer(id, RequestVerdict::Failed(why.to_owned()));
                actions.extend(self.failed(build, failed));
                actions
            }
            Phase::Yielded { .. } if lost == self.last => {
                vec![
                    Action::Resume,
                    self.begin(Origin::Alone(Fallback::Persist), None),
                ]
            }
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    pub(super) fn go(&mut self) -> Vec<Action> {
        match std::mem::replace(&mut self.phase, Phase::Serving) {
            Phase::Prepared(build) => {
                self.candidate = false;
                let mut actions = vec![Action::Own];
                actions.extend(self.serve(build));
                actions
            }
            // What was handed over comes back.
            Phase::Yielded { .. } => vec![Action::ComeBack],
            other => {
                self.phase = other;
                Vec::new()
            }
        }
    }

    /// The sidecars here have died, and those of the predecessor still run: offers the service back.
    pub(super) fn give_back(&mut self) -> Vec<Action> {
        if self.phase != Phase::Serving {
            return Vec::new();
        }
        let build = self.build(RequestKind::Restart, Budget::Configured, None, Vec::new());
        let generation = build.generation;
        self.phase = Phase::Handing {
            build,
            committed: false,
        };
        vec![Action::HandBack { generation }]
    }

    pub(super) fn orphaned(&mut self) -> Vec<Action> {
        match &mut self.phase {
            Phase::Prepared(_) => self.go(),
            Phase::Starting(_, origin @ Origin::Candidate) => {
                *origin = Origin::Orphan;
                self.candidate = false;
                vec![Action::Own]
            }
            _ => Vec::new(),
        }
    }
}
