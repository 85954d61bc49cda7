//! The signals that end a command which has something to end itself: a gateway of its own.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{CliError, Exit};

/// The exit code of a command that Ctrl-C ended, as shells have it.
const CODE: u8 = 130;

/// Ctrl-C, SIGTERM and the end of the terminal.
#[derive(Debug)]
pub struct Interrupts([Signal; 3]);

impl Interrupts {
    /// From here on they end nothing by themselves.
    ///
    /// # Errors
    /// [`Exit::Failed`] when they cannot be heard.
    pub fn hear() -> Result<Self, CliError> {
        let kinds = [
            SignalKind::interrupt(),
            SignalKind::terminate(),
            SignalKind::hangup(),
        ];
        match kinds.map(signal) {
            [Ok(interrupt), Ok(terminate), Ok(hang_up)] => {
                Ok(Self([interrupt, terminate, hang_up]))
            }
            _ => Err(Exit::Failed.error("cannot begin: the signals that end it cannot be heard")),
        }
    }

    /// Waits for one of them.
    pub async fn heard(&mut self) {
        let [interrupt, terminate, hang_up] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

/// How a command ends that was interrupted; `what` is its gateway.
pub fn interrupted(what: &str) -> CliError {
    Exit::Command(CODE).error(format!(
        "interrupted; {what} has ended, and its files are gone"
    ))
}
