//! What a check is, and what it finds.

use std::path::PathBuf;

use super::facts::Facts;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is broken, or a restart, a crash or a boot will break it.
    Error,
    /// It works, and goes wrong on a bad day.
    Warning,
    /// Good to know; nothing need be done.
    Note,
}

impl Level {
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// One thing that is looked at. The table of them is the program and the manual at once.
pub struct Check {
    /// Its name, in kebab-case: never changed, never used again for something else.
    pub code: &'static str,
    /// How much it matters.
    pub level: Level,
    /// What is wrong, in a few words.
    pub what: &'static str,
    /// Why it matters, in a sentence or two.
    pub why: &'static str,
    /// What is done about it.
    pub cure: &'static str,
    /// Whether `--fix` mends it.
    pub mends: bool,
    /// Looks at the facts.
    pub judge: fn(&Facts) -> Option<Seen>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What is wrong here, in one line.
    pub message: String,
    /// The file, unit, process or address.
    pub place: String,
    /// Evidence, a line each.
    pub detail: Vec<String>,
    pub remedy: Remedy,
}

impl Seen {
    /// A finding at a place.
    pub fn at(place: impl ToString, message: impl Into<String>, remedy: Remedy) -> Option<Self> {
        Some(Self {
            message: message.into(),
            place: place.to_string(),
            detail: Vec::new(),
            remedy,
        })
    }

    #[must_use]
    pub fn with(mut self, detail: Vec<String>) -> Self {
        self.detail = detail;
        self
    }
}

/// What to do about a finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// `--fix` does it; the text is the command that does the same.
    Mend(Mend, String),
    Command(String),
    /// No command alone does it.
    Advice(String),
}

pub fn command(text: impl Into<String>) -> Remedy {
    Remedy::Command(text.into())
}

/// Advice.
pub fn advice(text: impl Into<String>) -> Remedy {
    Remedy::Advice(text.into())
}

impl Remedy {
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mend(..) => "mend",
            Self::Command(_) => "command",
            Self::Advice(_) => "advice",
        }
    }

    /// The command or the advice.
    pub fn text(&self) -> &str {
        match self {
            Self::Mend(_, text) | Self::Command(text) | Self::Advice(text) => text,
        }
    }
}

/// What `--fix` may do: nothing that ends a process, cuts a client, or writes over what somebody
/// wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mend {
    /// The service manager reads its unit files anew.
    DaemonReload,
    /// The service manager forgets that the unit failed.
    ResetFailed,
    /// The unit starts at boot.
    Enable,
    /// The user's manager runs without a login.
    Linger,
    /// A file gets other permission bits.
    Mode(PathBuf, u32),
    /// Files of ours that nobody needs are removed.
    Remove(Vec<PathBuf>),
    /// The gateway reads its configuration anew.
    Reload,
}
