//! Signals: held back as the first act of main, taken up when the loop can answer them.

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::Interval;

use super::hang_up::{ControllingTerminal, LOOK_EVERY};
use super::option_future::every;
use crate::os::process::orphans;
use crate::os::terminal;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignalRequest {
    Stop,
    /// A stop; a second one ends at once.
    Interrupt,
    /// A stop, because the terminal is closed.
    HangUp,
    Reload,
    Restart,
    Respawn,
}

impl SignalRequest {
    /// Whether the process is to end.
    pub fn ends(self) -> bool {
        matches!(self, Self::Stop | Self::Interrupt | Self::HangUp)
    }
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

/// Receives signals. It also reaps the children that nobody else reaps, because whoever waits for
/// anything in this process waits for signals, too.
#[derive(Debug)]
pub struct Signals {
    handled: Vec<(unix::Signal, SignalRequest)>,
    children: unix::Signal,
    terminal: ControllingTerminal,
    looks: Interval,
}

impl Signals {
    /// Installs the handlers and lets in what arrived meanwhile. Threads made before this have the
    /// signals blocked.
    ///
    /// # Errors
    /// When a handler cannot be installed.
    pub fn install(terminal: ControllingTerminal) -> io::Result<Self> {
        let handler = |signal| unix::signal(SignalKind::from_raw(signal as i32));
        let handled = OURS.map(|(signal, asked)| Ok((handler(signal)?, asked)));
        let signals = Self {
            handled: handled.into_iter().collect::<io::Result<_>>()?,
            children: unix::signal(SignalKind::child())?,
            terminal,
            looks: every(LOOK_EVERY),
        };
        // What a shell left behind may have ended before there was a handler.
        orphans::reap();
        release();
        Ok(signals)
    }

    /// Waits for the next one.
    pub async fn next(&mut self) -> SignalRequest {
        poll_fn(|context| {
            while self.children.poll_recv(context).is_ready() {
                orphans::reap();
            }
            self.poll(context)
        })
        .await
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<SignalRequest> {
        while self.terminal.matters() && self.looks.poll_tick(context).is_ready() {
            if self.terminal.look(terminal::is_there(), Instant::now()) {
                return Poll::Ready(SignalRequest::HangUp);
            }
        }
        let mut arrived = self.handled.iter_mut().filter_map(|(signal, asked)| {
            matches!(signal.poll_recv(context), Poll::Ready(Some(()))).then_some(*asked)
        });
        match arrived.next() {
            Some(SignalRequest::Reload)
                if self.terminal.matters()
                    && self.terminal.signal(terminal::is_there(), Instant::now()) =>
            {
                Poll::Ready(SignalRequest::HangUp)
            }
            Some(asked) => Poll::Ready(asked),
            None => Poll::Pending,
        }
    }
}
