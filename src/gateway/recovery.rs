//! The recovery ladder: where a gateway stands after lives that ended unplanned, or with a
//! configuration that is not valid.
//!
//! A pure machine beside [`super::lifecycle`]: that one waits, builds and tries again; this one
//! says with which of its entries a life begins, follows its phases, and knows what is to be
//! remembered, told and shown. Times are counted from the start of the process. It always leads
//! back: a wait ends, safe mode tries again, and what serves for long enough is trusted anew.

pub mod driver;

use std::time::Duration;

use super::alert::{Alert, AlertKind};
use super::lifecycle::{Fallback, Phase, StartMode, TRIAL_EVERY};
use crate::state::startup_throttle::StartDecision;
use crate::state::terms::RungName;

/// What the configuration is worth at a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOrigin {
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

impl ConfigOrigin {
    /// What is wrong with the user's, when another one stands in for it.
    fn instead(&self) -> Option<String> {
        match self {
            Self::LastGood { why } => Some(why.clone()),
            Self::Valid | Self::Nothing { .. } => None,
        }
    }
}

/// Where on the ladder a gateway stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rung {
    Normal,
    /// Sidecars wait until then.
    Throttled {
        until: Duration,
        /// Which start in quick succession this is.
        count: u32,
    },
    /// Front door and control socket are up, sidecars are off.
    Safe {
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

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryAction {
    /// `throttle::trial`: a death soon after leads back to safe mode.
    MarkTrial,
    /// `throttle::safe`: the trial is over.
    MarkSafe,
    /// `throttle::stable`: earlier starts are forgotten.
    MarkStable,
    /// Run `on_give_up`.
    Alert(Alert),
}

#[derive(Clone, Debug)]
pub struct Recovery {
    rung: Rung,
    /// Whether deaths led to safe mode, not the configuration: only they are a matter of the
    /// throttle's record.
    by_deaths: bool,
    /// What is wrong with the user's configuration, while the last good one stands in for it.
    instead: Option<String>,
    /// `[recovery] throttle.stable`
    stable: Duration,
    /// When what serves will have served for long enough; none while something of it is not ready,
    /// and after that.
    stable_at: Option<Duration>,
    trusted: bool,
}

fn safe(reason: String) -> Rung {
    Rung::Safe {
        reason,
        trial_at: Some(TRIAL_EVERY),
    }
}

/// Where a gateway stands, for status and history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownRecovery {
    pub rung: RungName,
    /// Why, in a sentence; absent when normal.
    pub reason: Option<String>,
    /// Milliseconds until sidecars are started or tried.
    pub left_ms: Option<u64>,
}

impl Recovery {
    /// The rung of a start, and what is to be told about it.
    pub fn begin(
        start: StartDecision,
        configuration: ConfigOrigin,
        stable: Duration,
    ) -> (Self, Vec<RecoveryAction>) {
        let (rung, by_deaths, tell) = match (start, &configuration) {
            // Somebody was told already; a loop of deaths in safe mode must not send a mail each
            // time.
            (StartDecision::Safe { reason, again }, _) => (safe(reason), true, !again),
            (_, ConfigOrigin::Nothing { why }) => {
                let reason =
                    format!("the configuration is not valid, and there is no last good one: {why}");
                (safe(reason), false, true)
            }
            (StartDecision::Wait { delay, count }, _) => {
                let until = delay;
                (Rung::Throttled { until, count }, true, false)
            }
            (StartDecision::Go, ConfigOrigin::LastGood { why }) => {
                let reason = why.clone();
                (Rung::LastGood { reason }, true, true)
            }
            (StartDecision::Go, ConfigOrigin::Valid) => (Rung::Normal, true, false),
        };
        let machine = Self {
            rung,
            by_deaths,
            instead: configuration.instead(),
            stable,
            stable_at: None,
            trusted: false,
        };
        let alert = tell.then(|| machine.alert());
        (machine, Vec::from_iter(alert))
    }

    /// The rung of a successor: its predecessor serves, so there is nothing to recover from.
    pub fn successor(stable: Duration) -> Self {
        Self::begin(StartDecision::Go, ConfigOrigin::Valid, stable).0
    }

    /// How the lifecycle begins; `usual` is what a failing first start leads to elsewhere.
    pub fn entry(&self, usual: Fallback) -> StartMode {
        match &self.rung {
            Rung::Normal | Rung::LastGood { .. } => StartMode::First(usual),
            Rung::Throttled { until, .. } => StartMode::Later {
                at: *until,
                then: usual,
            },
            Rung::Safe { trial_at, .. } => StartMode::Later {
                at: trial_at.unwrap_or_default(),
                then: Fallback::Safe,
            },
        }
    }

    pub fn rung(&self) -> &Rung {
        &self.rung
    }

    /// When [`follow`](Self::follow) has something to do though nothing happened: what serves was
    /// ready for long enough.
    pub fn deadline(&self) -> Option<Duration> {
        self.stable_at
    }

    /// Follows the lifecycle; call it after each of its steps, when a sidecar changed, and at the
    /// deadline. `ready` says that a generation serves and all of it is ready.
    pub fn follow(&mut self, phase: &Phase, ready: bool, now: Duration) -> Vec<RecoveryAction> {
        let mut actions = self.climb(phase);
        if !ready {
            self.stable_at = None;
        } else if !self.trusted {
            let at = *self.stable_at.get_or_insert(now + self.stable);
            if now >= at {
                self.stable_at = None;
                self.trusted = true;
                actions.push(RecoveryAction::MarkStable);
            }
        }
        actions
    }

    fn climb(&mut self, phase: &Phase) -> Vec<RecoveryAction> {
        let deaths = self.by_deaths;
        match (phase, &mut self.rung) {
            (Phase::Starting(..) | Phase::Serving, Rung::Throttled { .. })
            | (Phase::Serving, Rung::Safe { .. }) => self.leave(),
            (
                Phase::Starting(..),
                Rung::Safe {
                    trial_at: trial_at @ Some(_),
                    ..
                },
            ) => {
                *trial_at = None;
                Vec::from_iter(deaths.then_some(RecoveryAction::MarkTrial))
            }
            (
                Phase::Waiting { until, .. },
                Rung::Safe {
                    trial_at: trial_at @ None,
                    ..
                },
            ) => {
                *trial_at = Some(*until);
                Vec::from_iter(deaths.then_some(RecoveryAction::MarkSafe))
            }
            _ => Vec::new(),
        }
    }

    /// The sidecars run, or are being started, after the throttle or safe mode.
    fn leave(&mut self) -> Vec<RecoveryAction> {
        match self.instead.clone() {
            Some(reason) => {
                self.rung = Rung::LastGood { reason };
                vec![self.alert()]
            }
            None => {
                self.rung = Rung::Normal;
                Vec::new()
            }
        }
    }

    /// A generation of this configuration serves from now on, or is about to be tried for the first
    /// time.
    pub fn adopted(&mut self, configuration: &ConfigOrigin) -> Vec<RecoveryAction> {
        self.instead = configuration.instead();
        match (&self.rung, configuration) {
            (Rung::LastGood { .. }, ConfigOrigin::Valid)
            | (Rung::Normal, ConfigOrigin::LastGood { .. }) => self.leave(),
            (Rung::LastGood { .. }, ConfigOrigin::LastGood { why }) => {
                self.rung = Rung::LastGood {
                    reason: why.clone(),
                };
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// A trial failed for this reason: where the configuration is the trouble, it is the reason of
    /// now.
    pub fn failed(&mut self, why: &str) {
        if let Rung::Safe { reason, .. } = &mut self.rung
            && !self.by_deaths
        {
            why.clone_into(reason);
        }
    }

    fn alert(&self) -> RecoveryAction {
        let ShownRecovery { rung, reason, .. } = self.shown(Duration::ZERO);
        RecoveryAction::Alert(Alert {
            kind: AlertKind::Rung(rung),
            reason: reason.unwrap_or_default(),
        })
    }

    /// For status and history.
    pub fn shown(&self, now: Duration) -> ShownRecovery {
        let left = |at: Duration| at.saturating_sub(now).as_millis() as u64;
        let (rung, reason, at) = match &self.rung {
            Rung::Normal => (RungName::Normal, None, None),
            Rung::Throttled { until, count } => {
                let delay = until.as_secs();
                let reason = format!(
                    "start {count} in quick succession after unplanned ends waits {delay} s"
                );
                (RungName::Throttled, Some(reason), Some(*until))
            }
            Rung::Safe { reason, trial_at } => {
                (RungName::SafeMode, Some(reason.clone()), *trial_at)
            }
            Rung::LastGood { reason } => (RungName::LastGood, Some(reason.clone()), None),
        };
        ShownRecovery {
            rung,
            reason,
            left_ms: at.map(left),
        }
    }

    /// Where it stands in a sentence that says what to do; none when normal.
    pub fn sentence(&self) -> Option<String> {
        match &self.rung {
            Rung::Normal => None,
            Rung::Throttled { .. } => {
                let reason = self.shown(Duration::ZERO).reason.unwrap_or_default();
                Some(format!(
                    "throttled: {reason} before it starts sidecars; `gatewayctl recover` starts them now"
                ))
            }
            Rung::Safe {
                reason,
                trial_at: Some(_),
            } => {
                let every = TRIAL_EVERY.as_secs() / 60;
                Some(format!(
                    "safe mode: {reason}; sidecars are off and tried every {every} min, or now by `gatewayctl recover`"
                ))
            }
            Rung::Safe {
                reason,
                trial_at: None,
            } => Some(format!("safe mode: {reason}; sidecars are being tried")),
            Rung::LastGood { reason } => Some(format!(
                "the last good configuration serves, because the present one is not valid: {reason}"
            )),
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
