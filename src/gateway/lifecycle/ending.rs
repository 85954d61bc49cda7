//! The ways to an end: a stop, and the exit after which the service manager starts the next
//! generation.

use std::time::Duration;

use super::{Action, Budget, FAILED, Lifecycle, Phase, RequestVerdict, STOPPING, answer, reject};

impl Lifecycle {
    pub(super) fn stop(&mut self, at_once: bool, until: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        match &mut self.phase {
            Phase::Ended => return actions,
            Phase::Stopping { .. } | Phase::Yielded { .. } if at_once => return self.exit(FAILED),
            Phase::Stopping { .. } => return actions,
            Phase::Yielded { until: before } => {
                *before = Some(before.map_or(until, |before| before.min(until)));
                return vec![Action::Hurry { at_once }];
            }
            Phase::Serving | Phase::Waiting { .. } | Phase::Leaving { .. } => {}
            Phase::Starting(build, _)
            | Phase::Prepared(build)
            | Phase::Building(build)
            | Phase::Handing { build, .. } => {
                actions.push(Action::Abandon(build.generation));
                actions.extend(build.everybody().map(|id| reject(id, STOPPING)));
            }
        }
        self.phase = Phase::Stopping { until };
        actions.push(Action::Wind { at_once });
        actions
    }

    pub(super) fn end(&mut self, budget: Budget, until: Option<Duration>) -> Vec<Action> {
        let mut actions = Vec::new();
        match &mut self.phase {
            Phase::Serving | Phase::Waiting { .. } => {}
            Phase::Starting(build, _)
            | Phase::Prepared(build)
            | Phase::Building(build)
            | Phase::Handing { build, .. } => {
                actions.push(Action::Abandon(build.generation));
                let scheduled = |id| answer(id, RequestVerdict::Scheduled);
                actions.extend(build.everybody().map(scheduled));
            }
            Phase::Yielded { .. }
            | Phase::Leaving { .. }
            | Phase::Stopping { .. }
            | Phase::Ended => return actions,
        }
        self.phase = Phase::Leaving { until };
        actions.push(Action::Leave { budget });
        actions
    }
}
