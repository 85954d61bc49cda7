//! What can go wrong in a sample, as codes that never change.

use schemars::JsonSchema;
use serde::Serialize;

/// Why a sample, or one restart in it, counts as failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BenchFailure {
    /// It could not be started, or had no good answer to /healthz in time.
    InitialHealthzTimeout,
    /// It had no good answer to /readyz in time.
    InitialReadyzTimeout,
    /// It did not say in time that it is ready.
    InitialReadyLogTimeout,
    /// It could not be asked to restart.
    RestartSignalFailed,
    /// It said nothing of the restart in time.
    RestartDeadlineTimeout,
    /// It ended during the restart.
    RestartChildExited,
    /// The last answer to /healthz, when the time had run out, was not good.
    NextHealthzTimeout,
    /// The last answer to /readyz, when the time had run out, was not good.
    NextReadyzTimeout,
    /// It began the restart, and did not say in time that it is ready.
    ReadyLogTimeout,
    /// It was ready, and its trace did not say when.
    TraceMissing,
    /// It ended with another code than 0 when it was asked to end.
    ChildNonzeroExit,
    /// It did not end when it was asked to, or left processes or files behind.
    CleanupFailed,
}

/// What was there at the end of a restart, or when the time for it had run out.
#[derive(Clone, Copy, Debug)]
pub struct RestartEvidence {
    pub child_exited: bool,
    /// The last answer to each was good, and to a request that was sent after the ready line, if there
    /// was one.
    pub healthz_good: bool,
    pub readyz_good: bool,
    /// It said that it restarts.
    pub begun: bool,
    pub ready_line: bool,
    pub trace: bool,
}

impl BenchFailure {
    /// The code as it stands in JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::InitialHealthzTimeout => "initial_healthz_timeout",
            Self::InitialReadyzTimeout => "initial_readyz_timeout",
            Self::InitialReadyLogTimeout => "initial_ready_log_timeout",
            Self::RestartSignalFailed => "restart_signal_failed",
            Self::RestartDeadlineTimeout => "restart_deadline_timeout",
            Self::RestartChildExited => "restart_child_exited",
            Self::NextHealthzTimeout => "next_healthz_timeout",
            Self::NextReadyzTimeout => "next_readyz_timeout",
            Self::ReadyLogTimeout => "ready_log_timeout",
            Self::TraceMissing => "trace_missing",
            Self::ChildNonzeroExit => "child_nonzero_exit",
            Self::CleanupFailed => "cleanup_failed",
        }
    }
}

impl RestartEvidence {
    /// The first that is missing, the most telling first: who ended answers nothing either.
    pub fn failure(self) -> Option<BenchFailure> {
        let checks = [
            (!self.child_exited, BenchFailure::RestartChildExited),
            (self.healthz_good, BenchFailure::NextHealthzTimeout),
            (self.readyz_good, BenchFailure::NextReadyzTimeout),
            (
                self.begun || self.ready_line,
                BenchFailure::RestartDeadlineTimeout,
            ),
            (self.ready_line, BenchFailure::ReadyLogTimeout),
            (self.trace, BenchFailure::TraceMissing),
        ];
        let missing = checks.into_iter().find(|(is_there, _)| !is_there);
        missing.map(|(_, code)| code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: RestartEvidence = RestartEvidence {
        child_exited: false,
        healthz_good: true,
        readyz_good: true,
        begun: true,
        ready_line: true,
        trace: true,
    };

    #[test]
    fn the_most_telling_comes_first() {
        let mut evidence = GOOD;
        assert_eq!(evidence.failure(), None);
        let mut expect = |worsen: fn(&mut RestartEvidence), code| {
            worsen(&mut evidence);
            assert_eq!(evidence.failure(), Some(code));
        };
        expect(|it| it.trace = false, BenchFailure::TraceMissing);
        expect(|it| it.ready_line = false, BenchFailure::ReadyLogTimeout);
        expect(|it| it.begun = false, BenchFailure::RestartDeadlineTimeout);
        expect(|it| it.readyz_good = false, BenchFailure::NextReadyzTimeout);
        expect(
            |it| it.healthz_good = false,
            BenchFailure::NextHealthzTimeout,
        );
        expect(
            |it| it.child_exited = true,
            BenchFailure::RestartChildExited,
        );
        let code = serde_json::to_string(&BenchFailure::ChildNonzeroExit).unwrap();
        assert_eq!(code, "\"child_nonzero_exit\"");
    }
}
