//! Signals: held back as the first act of main, taken up when the loop can answer them.

use std::io;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{self, SignalKind};

/// The signals that mean something to a gateway.
const OURS: [Signal; 5] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
];

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    /// SIGTERM
    Stop,
    /// SIGINT; a second one ends at once.
    Interrupt,
    /// SIGHUP
    Reload,
    /// SIGUSR1
    Restart,
    /// SIGUSR2
    Respawn,
}

/// Keeps the signals pending until [`Signals::install`], so that none that arrives during the start
/// is lost or deadly.
pub fn hold() {
    // It fails only for an unknown `how`.
    let _ = set().thread_block();
}

/// Lets go of them without a handler, for an early end.
pub fn release() {
    let _ = set().thread_unblock();
}

pub(super) fn set() -> SigSet {
    OURS.into_iter().collect()
}

#[derive(Debug)]
pub struct Signals {
    term: unix::Signal,
    int: unix::Signal,
    hup: unix::Signal,
    usr1: unix::Signal,
    usr2: unix::Signal,
}

impl Signals {
    /// Installs the handlers and lets in what arrived meanwhile. Threads made before this have the
    /// signals blocked.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        let signals = Self {
            term: unix::signal(SignalKind::terminate())?,
            int: unix::signal(SignalKind::interrupt())?,
            hup: unix::signal(SignalKind::hangup())?,
            usr1: unix::signal(SignalKind::user_defined1())?,
            usr2: unix::signal(SignalKind::user_defined2())?,
        };
        release();
        Ok(signals)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> SignalRequest {
        tokio::select! {
            biased;
            Some(()) = self.term.recv() => SignalRequest::Stop,
            Some(()) = self.int.recv() => SignalRequest::Interrupt,
            Some(()) = self.hup.recv() => SignalRequest::Reload,
            Some(()) = self.usr1.recv() => SignalRequest::Restart,
            Some(()) = self.usr2.recv() => SignalRequest::Respawn,
            else => std::future::pending().await,
        }
    }
}
