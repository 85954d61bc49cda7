//! Text that leaves the process: control characters escaped, secrets redacted, log and trace.

pub mod absent;
pub mod escape;
pub mod human;
pub mod last_words;
pub mod log;
mod log_file;
mod log_queue;
pub mod log_tap;
pub mod mistyped_command;
pub mod percent;
pub mod redact;
pub mod roff;
pub mod shell;
pub mod words;
