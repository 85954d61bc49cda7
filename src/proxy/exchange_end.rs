//! How a request ended, for the access log and the metrics.

use crate::text::words::words;

words! {
    /// How a request ended.
    pub enum ExchangeEnd {
        /// All of the answer was handed over.
        Done = "done",
        /// The client left before.
        ClientGone = "client-gone",
        /// A limit of time was reached.
        TimedOut = "timed-out",
        /// The gateway did not pass it on.
        Refused = "refused",
        /// The server behind gave no answer, or broke it off.
        Failed = "failed",
        /// The gateway ended a stream or a tunnel in order: for a restart or a stop.
        Ended = "ended",
        /// The gateway broke it off: its time was over, in a drain or a stop.
        Cut = "cut",
    }
}
