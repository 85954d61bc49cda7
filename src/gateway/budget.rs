//! How long an end may take: what was asked for, within what the supervisor allows.
//!
//! Our own forced end must come before the supervisor's SIGKILL: only then is it told what was cut,
//! and only then do sidecars get their own end.

use std::time::Duration;

use crate::config::{BEFORE_KILL, STOP_MARGIN};

/// From the end of the drain of a restart to the forced end: for closing, for the sidecars' ends,
/// for the record.
pub const RESTART_MARGIN: Duration = Duration::from_secs(25);

/// At shutdown of the machine, or at the end of the user's manager, an end takes no longer than
/// this in all.
pub const MACHINE_STOPPING: Duration = Duration::from_secs(30);

/// systemd's DefaultTimeoutStopSec=, for a unit whose manager does not answer …
const UNANSWERED: Duration = Duration::from_secs(90);

/// … and how much of it is left aside, because it is a guess.
const UNANSWERED_MARGIN: Duration = Duration::from_secs(15);

/// systemd is asked for more time so often …
pub const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// … and for so much, so that one late message does no harm.
pub const EXTEND_BY: Duration = Duration::from_secs(30);

/// What this process is to do before it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlannedEnd {
    /// Stop: what is under way gets this long.
    Stop(Duration),
    /// End so that the next one can follow: what is under way gets this long; none for as long as
    /// it takes.
    Restart(Option<Duration>),
}

/// When the supervisor kills what does not end by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTime {
    /// Nobody kills: no supervisor, or one without a limit.
    Endless,
    /// After this long (TimeoutStopSec=, the plist's ExitTimeOut), counted from the signal.
    Limit(Duration),
    /// There is a systemd, and it does not say.
    Unanswered,
}

/// What surrounds the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether a supervisor's clock runs, and how long. [`KillTime::Endless`] for an end that it
    /// did not ask for.
    pub patience: KillTime,
    /// It listens to EXTEND_TIMEOUT_USEC.
    pub extends: bool,
    /// The machine or the user's manager goes down
    /// ([`machine_stopping`](crate::systemd::machine_stopping)).
    pub machine_stopping: bool,
}

/// How long it may take, counted from the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndBudget {
    /// For what is under way; none for as long as it takes.
    pub drain: Option<Duration>,
    /// Then the process ends, whatever is left; none where the drain has no end: then the margin
    /// begins when closing begins.
    pub force_exit: Option<Duration>,
    /// The supervisor must be asked for more time: at once, every [`EXTEND_EVERY`], each time for
    /// [`EXTEND_BY`].
    pub extend: bool,
}

impl EndBudget {
    /// The budget of an end.
    pub fn of(asked: PlannedEnd, around: Surroundings) -> Self {
        let (drain, margin) = match asked {
            PlannedEnd::Stop(drain) => (Some(drain), STOP_MARGIN),
            PlannedEnd::Restart(drain) => (drain, RESTART_MARGIN),
        };
        let wanted = drain.map(|drain| drain.saturating_add(margin));
        // A stop is never extended: whoever asked for it wants it to end.
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
        match cap.filter(|cap| wanted.is_none_or(|wanted| wanted > *cap)) {
            None => Self {
                drain,
                force_exit: wanted,
                extend,
            },
            Some(cap) => Self {
                drain: Some(share(drain, cap)),
                force_exit: Some(cap),
                extend,
            },
        }
    }
}

impl KillTime {
    /// What is left of it for us.
    fn allows(self) -> Option<Duration> {
        match self {
            Self::Endless => None,
            // A very short limit is shared: half of it is ours.
            Self::Limit(limit) => Some(limit.saturating_sub(BEFORE_KILL).max(limit / 2)),
            Self::Unanswered => Some(UNANSWERED - UNANSWERED_MARGIN),
        }
    }
}

/// What of a capped end goes to what is under way: all but the stop's margin, and no less than
/// half.
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
        let going_down = |around| Surroundings {
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
            (stop(20), going_down(ALONE), Some(20), Some(25), false),
            (stop(60), going_down(ALONE), Some(25), Some(30), false),
            (stop(60), going_down(limit(20)), Some(10), Some(15), false),
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
                going_down(told(limit(30))),
                Some(20),
                Some(25),
                false,
            ),
            (forever, going_down(ALONE), Some(25), Some(30), false),
            (
                restart(300),
                going_down(limit(90)),
                Some(25),
                Some(30),
                false,
            ),
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
