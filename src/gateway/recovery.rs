//! The recovery ladder: what a gateway does after lives that ended unplanned, or with a configuration that is not valid.
//!
//! A pure machine, as [`super::lifecycle`] is: it takes events and gives actions; times are counted from the start of the
//! process. It always leads back: a wait ends, safe mode tries again, and what serves for long enough is trusted anew.

use std::time::Duration;

use serde::Serialize;

use super::alert::Alert;
use crate::state::throttle::Start;

/// Between two trials in safe mode.
pub const TRIAL_EVERY: Duration = Duration::from_secs(600);

/// What the configuration is worth at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Configuration {
    /// The user's, valid.
    Valid,
    /// The user's is not valid; the last good one takes its place.
    LastGood {
        /// What is wrong with the user's.
        why: String,
    },
    /// The user's is not valid, and there is no last good one.
    Nothing {
        /// What is wrong with it.
        why: String,
    },
}

/// Where on the ladder a gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    /// Everything runs.
    Normal,
    /// Sidecars wait until then.
    Throttled {
        /// The end of the wait.
        until: Duration,
        /// How long it is in all.
        delay: Duration,
        /// Which start in quick succession this is.
        count: u32,
    },
    /// Front door and control socket are up, sidecars are off.
    Safe {
        /// Why.
        reason: String,
        /// When they are tried again; none while they are.
        trial_at: Option<Duration>,
    },
    /// The last good configuration serves.
    LastGood {
        /// What is wrong with the user's.
        reason: String,
    },
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Time has passed: [`Recovery::deadline`] may be reached.
    Tick,
    /// An operator asks to go on at once (`gatewayctl recover`, or a restart or reload meanwhile).
    Recover,
    /// The configuration file changed.
    Changed,
    /// A generation of this configuration serves, all of it ready.
    Ready(Configuration),
    /// Something of what serves is not ready.
    Unready,
    /// What [`Action::Try`] asked for failed.
    Failed(String),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Build the first generation from the configuration at hand.
    Start,
    /// Read the configuration again, the last good one in its place, and build a generation from it.
    Try,
    /// `throttle::trial`: a death soon after leads back to safe mode.
    MarkTrial,
    /// `throttle::safe`: the trial is over.
    MarkSafe,
    /// `throttle::stable`: earlier starts are forgotten.
    MarkStable,
    /// Run `on_give_up`.
    Alert(Alert),
}

/// What led to safe mode: only deaths are a matter of the throttle's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    Deaths,
    Configuration,
}

/// The machine.
#[derive(Clone, Debug)]
pub struct Recovery {
    rung: Rung,
    cause: Cause,
    /// What is wrong with the user's configuration, while the last good one stands in for it.
    instead: Option<String>,
    /// `[recovery] throttle.stable`
    stable: Duration,
    /// When what serves will have served for long enough; none while something of it is not ready, and after that.
    stable_at: Option<Duration>,
    trusted: bool,
}

/// Where a gateway stands, for status and history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Shown {
    /// normal, throttled, safe-mode or last-good.
    pub rung: &'static str,
    /// Why, in a sentence; absent when normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds until sidecars are started or tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

impl Recovery {
    /// The rung of a start, and what it has to do.
    pub fn begin(start: Start, configuration: Configuration, stable: Duration, now: Duration) -> (Self, Vec<Action>) {
        let instead = match &configuration {
            Configuration::LastGood { why } => Some(why.clone()),
            Configuration::Valid | Configuration::Nothing { .. } => None,
        };
        let new = |rung, cause| Self { rung, cause, instead, stable, stable_at: None, trusted: false };
        match (start, configuration) {
            (Start::Safe { reason, again }, _) => {
                let machine = new(Rung::Safe { reason, trial_at: Some(now + TRIAL_EVERY) }, Cause::Deaths);
                // Somebody was told already; a loop of deaths in safe mode must not send a mail each time.
                let actions = if again { Vec::new() } else { vec![machine.alert()] };
                (machine, actions)
            }
            (_, Configuration::Nothing { why }) => {
                let reason = format!("the configuration is not valid, and there is no last good one: {why}");
                let machine = new(Rung::Safe { reason, trial_at: Some(now + TRIAL_EVERY) }, Cause::Configuration);
                let actions = vec![machine.alert()];
                (machine, actions)
            }
            (Start::Wait { delay, count }, _) => (new(Rung::Throttled { until: now + delay, delay, count }, Cause::Deaths), Vec::new()),
            (Start::Go, _) => {
                let mut machine = new(Rung::Normal, Cause::Deaths);
                let actions = machine.go();
                (machine, actions)
            }
        }
    }

    /// Where it stands.
    pub fn rung(&self) -> &Rung {
        &self.rung
    }

    /// When [`Event::Tick`] has something to do.
    pub fn deadline(&self) -> Option<Duration> {
        match &self.rung {
            Rung::Throttled { until, .. } => Some(*until),
            Rung::Safe { trial_at, .. } => *trial_at,
            Rung::Normal | Rung::LastGood { .. } => self.stable_at,
        }
    }

    /// The next step.
    pub fn step(&mut self, event: Event, now: Duration) -> Vec<Action> {
        match (event, &mut self.rung) {
            (Event::Tick, Rung::Throttled { until, .. }) if now >= *until => self.go(),
            (Event::Recover, Rung::Throttled { .. }) => self.go(),
            (Event::Tick, Rung::Safe { trial_at: Some(at), .. }) if now >= *at => self.attempt(),
            (Event::Recover | Event::Changed, Rung::Safe { trial_at: Some(_), .. }) => self.attempt(),
            // The user's file may be right again; what serves goes on meanwhile.
            (Event::Recover, Rung::LastGood { .. }) => vec![Action::Try],
            (Event::Failed(why), Rung::Safe { reason, trial_at: trial_at @ None }) => {
                *trial_at = Some(now + TRIAL_EVERY);
                if self.cause == Cause::Deaths {
                    return vec![Action::MarkSafe];
                }
                *reason = why;
                Vec::new()
            }
            (Event::Ready(configuration), _) => self.ready(configuration, now),
            (Event::Unready, _) => {
                self.stable_at = None;
                Vec::new()
            }
            (Event::Tick, Rung::Normal | Rung::LastGood { .. }) if self.stable_at.is_some_and(|at| now >= at) => {
                self.stable_at = None;
                self.trusted = true;
                vec![Action::MarkStable]
            }
            _ => Vec::new(),
        }
    }

    /// From the waiting room to the first generation.
    fn go(&mut self) -> Vec<Action> {
        match self.instead.clone() {
            Some(reason) => {
                self.rung = Rung::LastGood { reason };
                vec![Action::Start, self.alert()]
            }
            None => {
                self.rung = Rung::Normal;
                vec![Action::Start]
            }
        }
    }

    fn attempt(&mut self) -> Vec<Action> {
        if let Rung::Safe { trial_at, .. } = &mut self.rung {
            *trial_at = None;
        }
        let mark = (self.cause == Cause::Deaths).then_some(Action::MarkTrial);
        mark.into_iter().chain([Action::Try]).collect()
    }

    fn ready(&mut self, configuration: Configuration, now: Duration) -> Vec<Action> {
        if self.stable_at.is_none() && !self.trusted {
            self.stable_at = Some(now + self.stable);
        }
        match configuration {
            // Nothing that serves comes from nothing.
            Configuration::Nothing { .. } => Vec::new(),
            Configuration::Valid => {
                self.instead = None;
                self.rung = Rung::Normal;
                Vec::new()
            }
            Configuration::LastGood { why } => {
                self.instead = Some(why.clone());
                let before = std::mem::replace(&mut self.rung, Rung::LastGood { reason: why });
                let told = matches!(before, Rung::LastGood { .. });
                if told { Vec::new() } else { vec![self.alert()] }
            }
        }
    }

    fn alert(&self) -> Action {
        let Shown { rung, reason, .. } = self.shown(Duration::ZERO);
        Action::Alert(Alert { rung, reason: reason.unwrap_or_default() })
    }

    /// For status and history.
    pub fn shown(&self, now: Duration) -> Shown {
        let left = |at: Duration| at.saturating_sub(now).as_millis() as u64;
        match &self.rung {
            Rung::Normal => Shown { rung: "normal", reason: None, left_ms: None },
            Rung::Throttled { until, delay, count } => {
                let reason = format!("start {count} in quick succession after unplanned ends waits {} s", delay.as_secs());
                Shown { rung: "throttled", reason: Some(reason), left_ms: Some(left(*until)) }
            }
            Rung::Safe { reason, trial_at } => Shown { rung: "safe-mode", reason: Some(reason.clone()), left_ms: trial_at.map(left) },
            Rung::LastGood { reason } => Shown { rung: "last-good", reason: Some(reason.clone()), left_ms: None },
        }
    }

    /// Where it stands in a sentence that says what to do; none when normal.
    pub fn sentence(&self) -> Option<String> {
        match &self.rung {
            Rung::Normal => None,
            Rung::Throttled { .. } => {
                let reason = self.shown(Duration::ZERO).reason.unwrap_or_default();
                Some(format!("throttled: {reason} before it starts sidecars; `gatewayctl recover` starts them now"))
            }
            Rung::Safe { reason, trial_at: Some(_) } => {
                let every = TRIAL_EVERY.as_secs() / 60;
                Some(format!("safe mode: {reason}; sidecars are off and tried every {every} min, or now by `gatewayctl recover`"))
            }
            Rung::Safe { reason, trial_at: None } => Some(format!("safe mode: {reason}; sidecars are being tried")),
            Rung::LastGood { reason } => {
                Some(format!("the last good configuration serves, because the present one is not valid: {reason}"))
            }
        }
    }

    /// Until when requests that need a sidecar are refused; none while one may come at any moment.
    pub fn refused_until(&self) -> Option<Duration> {
        match &self.rung {
            Rung::Throttled { until, .. } => Some(*until),
            Rung::Safe { trial_at, .. } => *trial_at,
            Rung::Normal | Rung::LastGood { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests;
