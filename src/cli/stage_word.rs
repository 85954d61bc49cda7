//! What a gateway is doing, in words for people: what it says itself, and what is seen of one that
//! does not answer.

use crate::control::protocol::Stage;
use crate::text::words::words;

words! {
    /// What a gateway is doing, in words.
    pub enum StageWord {
        /// The first generation is being built, or the service manager starts it.
        Starting = "starting",
        /// The current generation serves.
        Ready = "ready",
        /// It serves, but a sidecar is down.
        Degraded = "degraded",
        /// The next generation is being built.
        Restarting = "restarting",
        /// It serves, and an older generation finishes its work.
        Draining = "draining",
        /// It ends.
        Stopping = "stopping",
        /// The first generation failed and is tried again, or the service failed.
        Failed = "failed",
        /// Earlier lives ended too soon: the sidecars wait before they are started.
        Throttled = "throttled",
        /// Front door and control only.
        SafeMode = "safe mode",
        /// Another process has its address or its name; it waits for the end of that one.
        StandingBy = "standing by",
        /// The service does not run.
        Stopped = "stopped",
        /// The service runs, but this user may not ask it.
        Running = "running",
        /// The service runs, but does not answer root either.
        Silent = "silent",
        /// Its control socket does not answer.
        NoAnswer = "no answer",
        /// Nothing answers.
        NotRunning = "not running",
        /// The service manager cannot be asked.
        Unknown = "unknown",
    }
}

impl From<Stage> for StageWord {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Starting => Self::Starting,
            Stage::Ready => Self::Ready,
            Stage::Degraded => Self::Degraded,
            Stage::Restarting => Self::Restarting,
            Stage::Draining => Self::Draining,
            Stage::Stopping => Self::Stopping,
            Stage::Failed => Self::Failed,
            Stage::Throttled => Self::Throttled,
            Stage::SafeMode => Self::SafeMode,
            Stage::StandingBy => Self::StandingBy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::words::Words;

    #[test]
    fn a_stage_has_the_same_words_in_every_place() {
        for stage in Stage::ALL {
            assert_eq!(StageWord::from(*stage).word(), stage.in_words());
        }
    }
}
