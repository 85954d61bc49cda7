//! Everything that is known about the last end of a gateway: facts only, no conclusions.

use std::path::PathBuf;

use jiff::Timestamp;

use super::journal::{JournalLine, ProcessEnd};
use crate::control::protocol::Status;
use crate::launchd::job_print::JobState;
use crate::service::JobNow;
use crate::state::history::Recorded;
use crate::state::owner::Owner;
use crate::state::startup_throttle::ThrottleSummary;
use crate::systemd::Properties;
use crate::systemd::words::{ActiveState, ServiceResult, SubState, Word};

#[derive(Clone, Debug, Default)]
pub struct EndEvidence {
    pub instance: String,
    /// The current boot ([`crate::state::owner::boot_id`]).
    pub boot_id: String,
    /// What its manager reports, where it is installed and the manager answers.
    pub unit: Option<UnitSnapshot>,
    /// The same of a job of launchd.
    pub job: Option<JobNow>,
    /// What the gateway reports, where it answers.
    pub status: Option<Status>,
    /// Its last owner record, and whether that process lives.
    pub owner: Option<(Owner, bool)>,
    /// The history, the oldest entry first.
    pub record: Vec<Recorded>,
    /// The throttle record of this boot.
    pub throttle: Option<ThrottleSummary>,
    /// Whether a restart is announced that has not happened yet.
    pub announced: bool,
    /// The newest diagnostics bundle.
    pub bundle: Option<PathBuf>,
    /// The journal, the oldest line first.
    pub journal: Vec<JournalLine>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

impl EndEvidence {
    /// Forgets what was before `installed`, when its unit was written, unless its history is older, too:
    /// else it was another gateway of this name, which has been uninstalled. The journal and the manager
    /// keep what they saw of that one.
    pub fn forget_before(&mut self, installed: Timestamp) {
        if self.record.first().is_some_and(|line| line.at < installed) {
            return;
        }
        self.journal.retain(|line| line.at >= installed);
        if let Some(unit) = self
            .unit
            .as_mut()
            .filter(|unit| unit.started.is_some_and(|at| at < installed) && unit.main_pid == 0)
        {
            *unit = UnitSnapshot {
                name: std::mem::take(&mut unit.name),
                active: unit.active.clone(),
                sub: unit.sub.clone(),
                limit_starts: unit.limit_starts,
                limit_seconds: unit.limit_seconds,
                ..UnitSnapshot::default()
            };
        }
    }

    /// The name of its unit or job, where it is installed.
    pub fn installed_as(&self) -> Option<&str> {
        let unit = self.unit.as_ref().map(|unit| unit.name.as_str());
        unit.or(self.job.as_ref().map(|job| job.label.as_str()))
    }

    /// The name of its unit or job, or of the instance.
    pub fn subject(&self) -> &str {
        self.installed_as().unwrap_or(&self.instance)
    }

    /// Whether its manager is there and remembers no start of it.
    pub fn is_unstarted(&self) -> bool {
        let unit = self.unit.as_ref();
        unit.is_some_and(|unit| unit.started.is_none() && unit.exit.is_none())
            || self.job.as_ref().is_some_and(|job| job.runs() == Some(0))
    }

    /// Whether its manager remembers a start of it, which was in this boot.
    pub fn is_start_remembered(&self) -> bool {
        let unit = self.unit.as_ref();
        unit.is_some_and(|unit| unit.started.is_some())
            || self.job.as_ref().is_some_and(|job| job.runs() > Some(0))
    }

    /// Whether its manager is about to start it again.
    pub fn is_start_due(&self) -> bool {
        let unit = self.unit.as_ref();
        let job = self.job.as_ref().and_then(|job| job.print.as_ref());
        unit.is_some_and(|unit| unit.sub == SubState::AutoRestart)
            || job.is_some_and(|job| job.state == JobState::Scheduled)
    }

    pub fn is_running(&self) -> bool {
        self.status.is_some()
            || self
                .unit
                .as_ref()
                .is_some_and(|unit| unit.main_pid != 0 && unit.active != ActiveState::Deactivating)
            || (self.job.as_ref().and_then(|job| job.print.as_ref()))
                .is_some_and(|job| job.pid.is_some() && job.state != JobState::Ending)
            || self.owner.as_ref().is_some_and(|(_, lives)| *lives)
    }

    /// The unit, if the gateway is not running: then its result is that of the last run.
    pub fn stopped_unit(&self) -> Option<&UnitSnapshot> {
        self.unit.as_ref().filter(|_| !self.is_running())
    }
}

/// A unit as its manager reports it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitSnapshot {
    pub name: String,
    pub active: Word<ActiveState>,
    pub sub: Word<SubState>,
    pub result: Word<ServiceResult>,
    /// 0 for none.
    pub main_pid: u64,
    /// How the last main process ended, where that is known.
    pub exit: Option<ProcessEnd>,
    /// Exit code or signal of the last main process.
    pub exit_status: i32,
    /// Automatic restarts since the last start by hand.
    pub restarts: u64,
    /// When the last main process was started.
    pub started: Option<Timestamp>,
    pub active_since: Option<Timestamp>,
    pub inactive_since: Option<Timestamp>,
    /// StartLimitBurst=
    pub limit_starts: u64,
    /// StartLimitIntervalSec= in seconds; 0 for no limit.
    pub limit_seconds: u64,
}

impl UnitSnapshot {
    pub fn of(name: &str, properties: &Properties) -> Self {
        let time = |name: &str| {
            let usec = Some(properties.number(name)).filter(|usec| *usec != 0)?;
            Timestamp::from_microsecond(usec).ok()
        };
        Self {
            name: name.to_owned(),
            active: properties.text("ActiveState").into(),
            sub: properties.text("SubState").into(),
            result: properties.text("Result").into(),
            main_pid: properties.number("MainPID"),
            exit: ProcessEnd::of_si_code(properties.number("ExecMainCode")),
            exit_status: properties.number("ExecMainStatus"),
            restarts: properties.number("NRestarts"),
            started: time("ExecMainStartTimestamp"),
            active_since: time("ActiveEnterTimestamp"),
            inactive_since: time("InactiveEnterTimestamp"),
            limit_starts: properties.number("StartLimitBurst"),
            limit_seconds: properties.number::<u64>("StartLimitIntervalUSec") / 1_000_000,
        }
    }
}
