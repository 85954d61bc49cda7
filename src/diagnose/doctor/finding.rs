//! What a check is, and what it finds.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::facts::DoctorFacts;
use super::unit_facts::InstalledUnit;
use crate::text::words::words;

words! {
    /// How much a finding matters.
    pub enum Level {
        /// Something is broken, or the next restart, crash or boot breaks it.
        Error = "error",
        /// Something works now, but fails in unusual circumstances.
        Warning = "warning",
        /// Good to know; nothing has to be done.
        Note = "note",
    }
}

/// An entry of the table of checks, which is also the manual.
pub struct Check {
    /// In kebab-case. It never changes and is never used again for another check.
    pub code: &'static str,
    pub level: Level,
    /// What is wrong, in a few words, without a period.
    pub title: &'static str,
    /// Why it matters, in full sentences.
    pub why: &'static str,
    /// What to do, in full sentences; begins with "With --fix: " where `--fix` does it.
    pub cure: &'static str,
    pub fixable: bool,
    /// Finds the problem in the facts, if it is there.
    pub judge: fn(&DoctorFacts) -> Option<Problem>,
}

impl Check {
    /// What the entries of each level have in common.
    pub const ERROR: Self = Self {
        code: "",
        level: Level::Error,
        title: "",
        why: "",
        cure: "",
        fixable: false,
        judge: |_| None,
    };
    pub const WARNING: Self = Self {
        level: Level::Warning,
        ..Self::ERROR
    };
    pub const NOTE: Self = Self {
        level: Level::Note,
        ..Self::ERROR
    };
}

/// What a check found on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What is wrong here, in one line.
    pub message: String,
    /// The file, unit, process or address.
    pub place: String,
    /// Evidence, one item a line.
    pub detail: Vec<String>,
    pub remedy: Remedy,
}

impl Problem {
    /// A problem at a place, as a check returns it.
    pub fn at(place: impl ToString, message: impl Into<String>, remedy: Remedy) -> Option<Self> {
        Self::with(Vec::new(), place, message, remedy)
    }

    /// A problem with evidence.
    pub fn with(
        detail: Vec<String>,
        place: impl ToString,
        message: impl Into<String>,
        remedy: Remedy,
    ) -> Option<Self> {
        Some(Self {
            message: message.into(),
            place: place.to_string(),
            detail,
            remedy,
        })
    }

    /// A setting of the unit with its value, and with the value that corrects it.
    pub fn setting(
        unit: &InstalledUnit,
        key: &str,
        value: impl fmt::Display,
        wanted: &str,
    ) -> Option<Self> {
        let next = unit.set(&format!("{key}={wanted}"));
        let value = value.to_string();
        // The line may have changed since systemd read it.
        let is_read =
            !unit.properties.needs_reload || unit.value(key).is_none_or(|line| line == value);
        let place = match is_read {
            true => unit.place(key),
            false => format!("{}, as systemd read it last", unit.name()),
        };
        Self::at(place, format!("{key}={value}"), command(next))
    }
}

/// What to do about a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `--fix` does it; the text is the equivalent command.
    Fix(Fix, String),
    Command(String),
    /// No single command does it.
    Advice(String),
}

pub fn command(text: impl Into<String>) -> Remedy {
    Remedy::Command(text.into())
}

/// The remedy by a command that only root may run.
pub fn root_command(facts: &DoctorFacts, text: &str) -> Remedy {
    command(facts.rights.as_root(text))
}

pub fn advice(text: impl Into<String>) -> Remedy {
    Remedy::Advice(text.into())
}

/// The lines of a text, as evidence.
pub fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::to_owned).collect()
}

impl Remedy {
    /// The command or the advice.
    pub fn text(&self) -> &str {
        match self {
            Self::Fix(_, text) | Self::Command(text) | Self::Advice(text) => text,
        }
    }
}

/// What `--fix` may do: nothing that ends a process, breaks a connection, or overwrites what a user
/// wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fix {
    /// The service manager reads its unit files again.
    DaemonReload,
    /// The service manager forgets that the unit failed.
    ResetFailed,
    /// The unit starts at boot.
    Enable,
    /// The user's manager runs without a login.
    Linger,
    /// A file gets these permission bits.
    Mode(PathBuf, u32),
    /// Files of the state directory that are no longer needed are removed.
    RemoveState(Vec<OsString>),
    /// The gateway reads its configuration again.
    Reload,
}

/// A check and the problem that it found.
#[derive(Clone)]
pub struct Finding {
    pub check: &'static Check,
    pub problem: Problem,
    pub fix: FixState,
}

/// What became of a finding with `--fix`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FixState {
    Open,
    /// A second look did not find the problem any more.
    Fixed,
    /// Why the problem is still there.
    Failed(String),
}

impl Finding {
    pub fn is_fixed(&self) -> bool {
        self.fix == FixState::Fixed
    }

    /// Whether both are the same check at the same place.
    pub fn is_same(&self, other: &Self) -> bool {
        self.check.code == other.check.code && self.problem.place == other.problem.place
    }
}
