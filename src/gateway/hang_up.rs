//! Tells a SIGHUP that comes because the terminal is closed from one that asks for a reload.
//!
//! The signal itself does not say it: the kernel sends it, and a shell passes it on to its jobs, some
//! shells just before they end and the terminal with them. But the terminal is gone, at that moment
//! or right after. A gateway that outlived its terminal without a signal, as after `disown`, was
//! meant to: from then on, SIGHUP asks for a reload again.

use std::time::{Duration, Instant};

use crate::os::terminal;

/// How long the signal and the end of the terminal may be apart: a shell saves its history between
/// them.
const APART: Duration = Duration::from_secs(2);

/// How often to look whether the terminal is there: often enough to see its end before [`APART`] is
/// over.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What is known of the controlling terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControllingTerminal {
    /// There is none, or its end does not matter.
    None,
    There {
        /// The last SIGHUP, which was taken for a reload.
        signal: Option<Instant>,
    },
    Gone {
        since: Instant,
    },
}

impl ControllingTerminal {
    /// The terminal of this process, if its end is to end this process. Call it before a handler for
    /// SIGHUP is installed.
    pub fn of_this_process() -> Self {
        if terminal::is_there() && !terminal::hang_up_is_ignored() {
            Self::There { signal: None }
        } else {
            Self::None
        }
    }

    /// Whether [`look`](Self::look) is needed every [`LOOK_EVERY`].
    pub fn matters(self) -> bool {
        self != Self::None
    }

    /// A SIGHUP came: whether it comes from the end of the terminal.
    pub fn signal(&mut self, there: bool, now: Instant) -> bool {
        self.look(there, now);
        match self {
            Self::None => false,
            Self::There { signal } => {
                *signal = Some(now);
                false
            }
            Self::Gone { .. } => true,
        }
    }

    /// Time has passed: whether a SIGHUP that was taken for a reload came from the end of the
    /// terminal.
    pub fn look(&mut self, there: bool, now: Instant) -> bool {
        let recent = |then: Instant| now.saturating_duration_since(then) <= APART;
        match *self {
            Self::There { signal } if !there => {
                *self = Self::Gone { since: now };
                signal.is_some_and(recent)
            }
            Self::Gone { since } if !recent(since) => {
                *self = Self::None;
                false
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THERE: ControllingTerminal = ControllingTerminal::There { signal: None };

    #[test]
    fn a_signal_is_a_reload_as_long_as_the_terminal_is_there_or_where_none_was() {
        let now = Instant::now();
        let mut terminal = THERE;
        assert!(!terminal.signal(true, now));
        assert!(!terminal.look(true, now + LOOK_EVERY));
        assert!(!terminal.look(false, now + Duration::from_secs(60)));
        let mut none = ControllingTerminal::None;
        assert!(!none.signal(false, now) && !none.look(false, now));
    }

    #[test]
    fn the_end_of_the_terminal_counts_just_before_and_just_after_the_signal() {
        let now = Instant::now();
        let mut after = THERE;
        assert!(after.signal(false, now));
        let mut before = THERE;
        assert!(!before.signal(true, now));
        assert!(before.look(false, now + LOOK_EVERY));
        let mut seen_first = THERE;
        assert!(!seen_first.look(false, now));
        assert!(seen_first.signal(false, now + LOOK_EVERY));
    }

    #[test]
    fn a_gateway_that_outlived_its_terminal_reloads() {
        let now = Instant::now();
        let mut terminal = THERE;
        assert!(!terminal.look(false, now));
        let later = now + Duration::from_secs(60);
        assert!(!terminal.look(false, later));
        assert!(!terminal.matters());
        assert!(!terminal.signal(false, later));
    }
}
