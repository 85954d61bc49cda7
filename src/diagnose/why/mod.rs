//! `gatewayctl why`: the cause of the last end or restart in one sentence, then the evidence.
//!
//! [`gather()`] collects the evidence, [`decide()`] finds the cause from it alone, [`sentence()`] and
//! [`evidence_lines()`] put both into words; [`next_commands()`] are what helps on.

mod advice;
mod cause;
mod decide;
mod evidence;
mod evidence_lines;
mod gather;
pub mod journal;
mod sentence;
mod timeline;

pub use self::advice::{last_words, next_commands};
pub use self::cause::EndCause;
pub use self::decide::decide;
pub use self::evidence::EndEvidence;
pub use self::evidence_lines::{EvidenceLine, evidence_lines};
pub use self::gather::gather;
pub use self::sentence::{clock, millis_between, sentence};
