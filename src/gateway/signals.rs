//! Signals: held back as the first act of main, taken up when the loop can answer them.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{self, SignalKind};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    Stop,
    /// A stop; a second one ends at once.
    Interrupt,
    Reload,
    Restart,
    Respawn,
}

/// The signals that mean something to a gateway.
const OURS: [(Signal, SignalRequest); 5] = [
    (Signal::SIGTERM, SignalRequest::Stop),
    (Signal::SIGINT, SignalRequest::Interrupt),
    (Signal::SIGHUP, SignalRequest::Reload),
    (Signal::SIGUSR1, SignalRequest::Restart),
    (Signal::SIGUSR2, SignalRequest::Respawn),
];

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
    OURS.into_iter().map(|(signal, _)| signal).collect()
}

#[derive(Debug)]
pub struct Signals(Vec<(unix::Signal, SignalRequest)>);

impl Signals {
    /// Installs the handlers and lets in what arrived meanwhile. Threads made before this have the
    /// signals blocked.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install() -> io::Result<Self> {
        let handler = |signal| unix::signal(SignalKind::from_raw(signal as i32));
        let handled = OURS.map(|(signal, asked)| Ok((handler(signal)?, asked)));
        let signals = Self(handled.into_iter().collect::<io::Result<_>>()?);
        release();
        Ok(signals)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> SignalRequest {
        poll_fn(|context| {
            let mut arrived = self.0.iter_mut().filter_map(|(signal, asked)| {
                matches!(signal.poll_recv(context), Poll::Ready(Some(()))).then_some(*asked)
            });
            arrived.next().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
