//! How long the end of a process may take: the requested time, within the limit of the supervisor.
//!
//! The gateway forces its own end before the supervisor sends SIGKILL: only then does it log what
//! was cut off, and end its sidecars properly.

use std::time::Duration;

use crate::config::{BEFORE_KILL, STOP_MARGIN};

/// The time between the drain of a restart and the forced end: for closing connections, ending
/// sidecars and writing the record.
pub const RESTART_MARGIN: Duration = Duration::from_secs(25);

/// The longest end in all while the machine shuts down, or the user's service manager ends.
pub const MACHINE_STOPPING: Duration = Duration::from_secs(30);

/// systemd's DefaultTimeoutStopSec=, for a unit whose service manager does not answer.
const UNANSWERED: Duration = Duration::from_secs(90);

/// How much of that is not used, because it is a guess.
const UNANSWERED_MARGIN: Duration = Duration::from_secs(15);

/// How often systemd is asked for more time.
pub const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// For how much time it is asked: enough that one late message does no harm.
pub const EXTEND_BY: Duration = Duration::from_secs(30);

/// Why a process ends, and how long the work under way may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedEnd {
    /// A stop, with a limit for the work under way.
    Stop(Duration),
    /// An end that makes room for the next process, with a limit for the work under way; none for
    /// no limit.
    Restart(Option<Duration>),
}

/// When the supervisor kills a process that does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTime {
    /// Never: there is no supervisor, or it has no limit.
    Endless,
    /// After this long (TimeoutStopSec=, the plist's ExitTimeOut), counted from the signal.
    Limit(Duration),
    /// There is a systemd, but its limit is not known.
    Unanswered,
}

/// The circumstances of an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// [`KillTime::Endless`] also for an end that the supervisor did not request.
    pub patience: KillTime,
    /// Whether the supervisor accepts EXTEND_TIMEOUT_USEC.
    pub extends: bool,
    /// Whether the machine shuts down, or the user's service manager ends
    /// ([`machine_stopping`](crate::systemd::machine_stopping)).
    pub machine_stopping: bool,
}

/// How long an end may take, counted from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndBudget {
    /// The limit for the work under way; none for no limit.
    pub drain: Option<Duration>,
    /// When the process ends, whatever is left; none when the drain has no limit: then the margin
    /// begins when closing begins.
    pub force_exit: Option<Duration>,
    /// Whether the supervisor must be asked for more time: at once and every [`EXTEND_EVERY`], each
    /// time for [`EXTEND_BY`].
    pub extend: bool,
}

impl EndBudget {
    pub fn of(asked: PlannedEnd, around: Surroundings) -> Self {
        let (drain, margin) = match asked {
            PlannedEnd::Stop(drain) => (Some(drain), STOP_MARGIN),
            PlannedEnd::Restart(drain) => (drain, RESTART_MARGIN),
        };
        let wanted = drain.map(|drain| drain.saturating_add(margin));
        // A stop is never extended: the one who asked for it wants an end.
        let may_extend =
            around.extends && matches!(asked, PlannedEnd::Restart(_)) && !around.machine_stopping;
        let allowed = around.patience.allows();
        let extend = may_extend
            && allowed.is_some_and(|allowed| wanted.is_none_or(|wanted| wanted > allowed));
        let cap = [
            allowed.filter(|_| !extend),
            around.machine_stopping.then_some(MACHINE_STOPPING),
        ]
        .into_iter()
        .flatten()
        .min();
        let capped = cap.filter(|cap| wanted.is_none_or(|wanted| wanted > *cap));
        Self {
            drain: capped.map_or(drain, |cap| Some(share(drain, cap))),
            force_exit: capped.or(wanted),
            extend,
        }
    }
}

impl KillTime {
    /// The part of it that the gateway may use.
    fn allows(self) -> Option<Duration> {
        match self {
            Self::Endless => None,
            // A very short limit is shared: half of it is ours.
            Self::Limit(limit) => Some(limit.saturating_sub(BEFORE_KILL).max(limit / 2)),
            Self::Unanswered => Some(UNANSWERED - UNANSWERED_MARGIN),
        }
    }
}

/// The part of a capped end that the work under way gets: all but the margin of a stop, and no less
/// than half.
fn share(drain: Option<Duration>, cap: Duration) -> Duration {
    let most = cap.saturating_sub(STOP_MARGIN).max(cap / 2);
    drain.map_or(most, |drain| drain.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALONE: Surroundings = Surroundings {
        patience: KillTime::Endless,
        extends: false,
        machine_stopping: false,
    };

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn limit(limit: u64) -> Surroundings {
        Surroundings {
            patience: KillTime::Limit(secs(limit)),
            ..ALONE
        }
    }

    #[test]
    fn what_was_asked_within_what_is_allowed() {
        let stop = |drain| PlannedEnd::Stop(secs(drain));
        let restart = |drain| PlannedEnd::Restart(Some(secs(drain)));
        let forever = PlannedEnd::Restart(None);
        let unanswered = Surroundings {
            patience: KillTime::Unanswered,
            ..ALONE
        };
        let down = |around| Surroundings {
            machine_stopping: true,
            ..around
        };
        let told = |around| Surroundings {
            extends: true,
            ..around
        };
        // (asked, around, drain, forced end, asked for more time)
        for (asked, around, drain, force_exit, extend) in [
            (stop(20), ALONE, Some(20), Some(25), false),
            (stop(20), limit(30), Some(20), Some(25), false),
            (stop(20), told(limit(30)), Some(20), Some(25), false),
            (stop(60), limit(30), Some(20), Some(25), false),
            (stop(60), told(limit(30)), Some(20), Some(25), false),
            (stop(20), limit(90), Some(20), Some(25), false),
            (stop(200), unanswered, Some(70), Some(75), false),
            (stop(20), limit(4), Some(1), Some(2), false),
            (stop(20), limit(0), Some(0), Some(0), false),
            (stop(20), down(ALONE), Some(20), Some(25), false),
            (stop(60), down(ALONE), Some(25), Some(30), false),
            (stop(60), down(limit(20)), Some(10), Some(15), false),
            (restart(300), ALONE, Some(300), Some(325), false),
            (forever, ALONE, None, None, false),
            (restart(0), ALONE, Some(0), Some(25), false),
            (restart(0), limit(30), Some(0), Some(25), false),
            (restart(300), limit(30), Some(20), Some(25), false),
            (restart(300), told(limit(30)), Some(300), Some(325), true),
            (restart(300), told(limit(400)), Some(300), Some(325), false),
            (forever, told(limit(30)), None, None, true),
            (forever, limit(30), Some(20), Some(25), false),
            (forever, told(ALONE), None, None, false),
            (restart(300), told(unanswered), Some(300), Some(325), true),
            (restart(300), unanswered, Some(70), Some(75), false),
            (
                restart(300),
                down(told(limit(30))),
                Some(20),
                Some(25),
                false,
            ),
            (forever, down(ALONE), Some(25), Some(30), false),
            (restart(300), down(limit(90)), Some(25), Some(30), false),
        ] {
            let budget = EndBudget::of(asked, around);
            let expected = EndBudget {
                drain: drain.map(secs),
                force_exit: force_exit.map(secs),
                extend,
            };
            assert_eq!(budget, expected, "{asked:?} {around:?}");
        }
    }

    #[test]
    fn our_own_end_comes_before_the_kill() {
        for limit_secs in 0..400 {
            for asked in [
                PlannedEnd::Stop(secs(20)),
                PlannedEnd::Stop(secs(600)),
                PlannedEnd::Restart(Some(secs(300))),
                PlannedEnd::Restart(None),
            ] {
                let budget = EndBudget::of(asked, limit(limit_secs));
                let end = budget.force_exit.unwrap();
                assert!(
                    end < secs(limit_secs).max(Duration::from_nanos(1)),
                    "{asked:?} {limit_secs}"
                );
                assert!(budget.drain.unwrap() <= end, "{asked:?} {limit_secs}");
            }
        }
    }
}
