//! The flags of the commands that change what runs: `restart`, `update` and `inhibit`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};

use crate::config::Dur;
use crate::state::terms::REASON_MAX;

#[derive(Clone, Debug, Default, Args)]
pub struct RestartArgs {
    /// Cut old work instead of waiting for it. An installed gateway is restarted by its service
    /// manager, even if another gateway has its port, and its work gets one second
    #[arg(long, conflicts_with = "wait")]
    pub force: bool,
    /// How long old requests may take this time, e.g. 30s, or "forever" [default: `drain` of the
    /// configuration]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Wait>,
    /// The reason, for the history; at most 200 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Return only when the old copies have exited
    #[arg(long)]
    pub drained: bool,
    /// Restart into a fresh process, even if the gateway would restart within its own
    #[arg(long)]
    pub fresh: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct SidecarRestartArgs {
    /// The sidecar, as in [sidecar.NAME]; gatewayctl sidecars shows the names
    #[arg(value_name = "NAME")]
    pub sidecar: String,
    /// Cut its old work instead of waiting for it
    #[arg(long, conflicts_with = "wait")]
    pub force: bool,
    /// How long its old requests may take this time, e.g. 30s, or "forever" [default: `drain` of the
    /// configuration]
    #[arg(long, value_name = "DURATION")]
    pub wait: Option<Wait>,
    /// The reason, for the history; at most 200 characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    /// Return only when its old copy has exited
    #[arg(long)]
    pub drained: bool,
}

/// How long old requests may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    Limit(Duration),
    Forever,
}

impl Wait {
    /// In milliseconds. 0 means no limit, so the shortest limit is one millisecond.
    pub fn to_wire(self) -> u64 {
        match self {
            Self::Forever => 0,
            Self::Limit(limit) => (limit.as_millis() as u64).max(1),
        }
    }
}

impl std::str::FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "forever" => Ok(Self::Forever),
            _ => text
                .parse::<Dur>()
                .map(|dur| Self::Limit(dur.0))
                .map_err(|error| format!("{error}, or \"forever\"")),
        }
    }
}

fn reason(text: &str) -> Result<String, String> {
    match text.chars().count() {
        0..=REASON_MAX => Ok(text.to_owned()),
        length => Err(format!(
            "{length} characters; at most {REASON_MAX} are kept"
        )),
    }
}

#[derive(Clone, Debug, Args)]
pub struct UpdateArgs {
    /// The new gateway program
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Only say whether it can be done
    #[arg(long)]
    pub check: bool,
}

#[derive(Clone, Debug, Args)]
pub struct InhibitArgs {
    /// What the command does, in a few words, shown wherever something waits for it; at most 200
    /// characters
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub why: String,
    /// Stop waiting for the command after this long
    #[arg(long, value_name = "DURATION", value_parser = some_time)]
    pub ttl: Option<Dur>,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

fn some_time(text: &str) -> Result<Dur, String> {
    let time: Dur = text.parse()?;
    if time.0.as_millis() == 0 {
        Err("no time at all".to_owned())
    } else {
        Ok(time)
    }
}
