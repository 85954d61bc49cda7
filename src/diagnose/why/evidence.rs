//! Everything that is known when somebody asks why: facts only, nothing is concluded here.

use std::path::PathBuf;

use jiff::Timestamp;

use super::journal::Line;
use crate::control::protocol::Status;
use crate::service::unit_properties::Properties;
use crate::state::history::Recorded;
use crate::state::owner::Owner;
use crate::state::startup_throttle::Seen;

#[derive(Clone, Debug, Default)]
pub struct Evidence {
    pub instance: String,
    /// This boot ([`crate::state::owner::boot_id`]).
    pub boot_id: String,
    /// What its manager says, where it is installed and the manager answers.
    pub unit: Option<Unit>,
    /// What it says itself, where it answers.
    pub status: Option<Status>,
    /// Who owned it last, and whether that process lives.
    pub owner: Option<(Owner, bool)>,
    /// The record, the oldest first.
    pub record: Vec<Recorded>,
    /// The throttle's record of this boot.
    pub throttle: Option<Seen>,
    /// Whether a restart is announced that has not come.
    pub announced: bool,
    pub bundle: Option<PathBuf>,
    /// The journal, the oldest first.
    pub journal: Vec<Line>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

impl Evidence {
    /// What people call it: its unit, or its own name.
    pub fn subject(&self) -> &str {
        self.unit.as_ref().map_or(&self.instance, |unit| &unit.name)
    }

    /// Whether a life is under way.
    pub fn is_up(&self) -> bool {
        self.status.is_some()
            || self
                .unit
                .as_ref()
                .is_some_and(|unit| unit.main_pid != 0 && unit.active != "deactivating")
            || self.owner.as_ref().is_some_and(|(_, lives)| *lives)
    }
}

/// A unit as its manager sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    pub name: String,
    /// active, inactive, failed, activating, …
    pub active: String,
    /// running, dead, auto-restart, …
    pub sub: String,
    /// success, exit-code, signal, watchdog, start-limit-hit, …
    pub result: String,
    /// 0 when none runs.
    pub main_pid: u64,
    /// CLD_EXITED (1), CLD_KILLED (2), CLD_DUMPED (3); 0 when it is not known.
    pub exit_kind: u64,
    /// Exit code or signal of the last main process.
    pub exit_status: i32,
    /// Automatic restarts since the last start by hand.
    pub restarts: u64,
    /// When the last main process was started; none in a life that was not yet.
    pub started: Option<Timestamp>,
    /// When it became active.
    pub active_since: Option<Timestamp>,
    /// When it became inactive.
    pub inactive_since: Option<Timestamp>,
    /// How many starts are too many…
    pub limit_starts: u64,
    /// …within how many seconds; 0 for no limit.
    pub limit_seconds: u64,
}

impl Unit {
    /// Takes what a manager says.
    pub fn of(name: &str, properties: &Properties) -> Self {
        let time = |name: &str| {
            let usec = i64::try_from(properties.number(name))
                .ok()
                .filter(|usec| *usec != 0)?;
            Timestamp::from_microsecond(usec).ok()
        };
        Self {
            name: name.to_owned(),
            active: properties.text("ActiveState"),
            sub: properties.text("SubState"),
            result: properties.text("Result"),
            main_pid: properties.number("MainPID"),
            exit_kind: properties.number("ExecMainCode"),
            exit_status: i32::try_from(properties.number("ExecMainStatus")).unwrap_or(0),
            restarts: properties.number("NRestarts"),
            started: time("ExecMainStartTimestamp"),
            active_since: time("ActiveEnterTimestamp"),
            inactive_since: time("InactiveEnterTimestamp"),
            limit_starts: properties.number("StartLimitBurst"),
            limit_seconds: properties.number("StartLimitIntervalUSec") / 1_000_000,
        }
    }
}
