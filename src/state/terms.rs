//! The words of requests and of the recovery ladder, as the history records them and the control
//! protocol sends them.

use crate::text::words::words;

words! {
    /// Where the next generation lives.
    pub enum StrategyName {
        /// In the same process, beside the old one.
        InProcess = "in-process",
        /// In a fresh process that takes over listeners and lock.
        Respawn = "respawn",
        /// In the process that the supervisor starts when this one has ended.
        Exit = "exit",
        /// Nowhere: the request was refused before a place was chosen.
        None = "none",
    }
}

words! {
    /// A step of a restart, reload or stop.
    pub enum ProgressStage {
        /// The request is accepted.
        Accepted = "accepted",
        /// A fresh process has what it needs to take over.
        Preparing = "preparing",
        /// A sidecar or a fresh process is being started.
        Starting = "starting",
        /// A sidecar is ready.
        Ready = "ready",
        /// The next generation has all new requests.
        Switched = "switched",
        /// A sidecar that must not run twice serves on until its work of this moment is done.
        Fading = "fading",
        /// A sidecar is being replaced; new requests wait.
        Holding = "holding",
        /// A sidecar has ended.
        Stopped = "stopped",
        /// The next run of a sidecar failed; what ran before is started again.
        Restoring = "restoring",
        /// The old generation finishes its work.
        Draining = "draining",
        /// The old generation is gone.
        Drained = "drained",
    }
}
