//! What `gatewayctl status` adds about an installed gateway: whether its files are as install wrote
//! them, and with `--deep` what its manager and the journal know.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::config::{Env, Listen};
use crate::control::protocol::Status;
use crate::diagnose::why::journal::{self, JournalEvent};
use crate::os::port::{self, Depth};
use crate::service::manager::Manager;
use crate::service::provenance::Written;
use crate::service::{self, Installed};
use crate::state::startup_throttle;
use crate::text::absent;
use crate::text::human::{count, span};
use crate::text::words::words;

/// How many of the journal's last complaints are shown.
const COMPLAINTS: usize = 5;

words! {
    /// In what way a file is not as install wrote it.
    pub enum DriftKind {
        /// It was changed.
        Edited = "edited",
        /// Install did not write it.
        Foreign = "foreign",
        /// It is a drop-in.
        DropIn = "drop-in",
    }
}

/// A file that is not as install wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Drift {
    /// Its path.
    pub file: String,
    /// In what way.
    pub what: DriftKind,
}

/// What only `--deep` looks at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Deep {
    /// The unit, where it is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<UnitSummary>,
    /// Who has the listeners: the gateway, those that finish their work for it, and the service
    /// manager.
    pub holders: Vec<String>,
    /// Starts in quick succession, where they are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rapid_starts: Option<u32>,
    /// The last complaints in its journal.
    pub complaints: Vec<String>,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// What the manager says of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UnitSummary {
    /// Its name.
    pub name: String,
    /// active, inactive, failed, …
    pub active: String,
    /// running, dead, auto-restart, …
    pub sub: String,
    /// How the last run ended, in systemd's word.
    pub result: String,
    /// Automatic restarts since the last start by hand.
    pub restarts: u64,
    /// How many listeners the manager keeps (fd store).
    pub stored: u64,
    /// The watchdog's time in milliseconds; absent for none.
    #[serde(default, skip_serializing_if = "absent::zero")]
    pub watchdog_ms: u64,
    /// Memory in use, in bytes; absent where it is not counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// Whether files changed since the manager read them.
    pub needs_reload: bool,
}

/// The files of a unit that are not as install wrote them; drop-ins, which are where users are to
/// change a unit, only with `deep`.
pub fn drift(env: &Env<'_>, unit: &Installed, deep: bool) -> Vec<Drift> {
    let socket = unit.socket.as_ref();
    let socket = socket.map(|socket| unit.path.with_file_name(socket));
    let config = service::configuration(env, unit).ok().flatten();
    let files = [
        Some(unit.path.clone()),
        socket,
        config.map(|(file, _)| file),
    ];
    let mut found: Vec<Drift> = files
        .into_iter()
        .flatten()
        .filter_map(|file| look(&file, deep))
        .collect();
    if deep {
        found.extend(drop_ins(&unit.path).iter().map(|file| Drift {
            file: file.display().to_string(),
            what: DriftKind::DropIn,
        }));
    }
    found
}

fn look(file: &Path, deep: bool) -> Option<Drift> {
    let what = match Written::at(file).ok()? {
        Written::Edited(_) => DriftKind::Edited,
        Written::Foreign(_) if deep => DriftKind::Foreign,
        _ => return None,
    };
    Some(Drift {
        file: file.display().to_string(),
        what,
    })
}

fn drop_ins(unit: &Path) -> Vec<PathBuf> {
    let mut dir = unit.as_os_str().to_owned();
    dir.push(".d");
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .collect();
    files.sort();
    files
}

impl Deep {
    /// Looks.
    pub async fn look(env: &Env<'_>, unit: Option<&Installed>, status: &Status) -> Self {
        let state = Path::new(&status.state_dir);
        let rapid_starts = startup_throttle::look(state).map(|seen| seen.count);
        let mut deep = Self {
            holders: holders(status),
            rapid_starts,
            ..Self::default()
        };
        let Some(unit) = unit else { return deep };
        match facts(env, unit).await {
            Ok(facts) => deep.unit = Some(facts),
            Err(error) => deep
                .unseen
                .push(format!("the service manager: {}", error.message)),
        }
        match journal::of_unit(unit.scope, &unit.unit) {
            Ok(lines) => {
                let all: Vec<String> = lines
                    .into_iter()
                    .filter(|line| line.event == JournalEvent::Gateway)
                    .map(|line| format!("{} {}", line.at.strftime("%FT%TZ"), line.text))
                    .collect();
                deep.complaints = all[all.len().saturating_sub(COMPLAINTS)..].to_vec();
            }
            Err(why) => deep.unseen.push(format!("the journal: {why}")),
        }
        deep
    }

    /// For people: a label and a text each.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::new();
        if let Some(unit) = &self.unit {
            let memory = unit
                .memory
                .map_or(String::new(), |bytes| format!(", {} MiB", bytes >> 20));
            lines.push((
                "unit",
                format!(
                    "{}: {} ({}), Result {}{memory}",
                    unit.name, unit.active, unit.sub, unit.result
                ),
            ));
            let restarts = count(unit.restarts, "automatic restart");
            let stored = count(unit.stored, "listener");
            let watchdog = match unit.watchdog_ms {
                0 => "none".to_owned(),
                millis => span(millis),
            };
            lines.push((
                "",
                format!("{restarts}, {stored} stored, watchdog {watchdog}"),
            ));
            if unit.needs_reload {
                let text = "its files changed since systemd read them: systemctl daemon-reload";
                lines.push(("", text.to_owned()));
            }
        }
        let mut list = |label, texts: &[String]| {
            let labels = std::iter::once(label).chain(std::iter::repeat(""));
            lines.extend(labels.zip(texts.iter().cloned()));
        };
        list("held by", &self.holders);
        if let Some(starts) = self.rapid_starts.filter(|starts| *starts > 1) {
            let starts = count(u64::from(starts), "start");
            list("throttle", &[format!("{starts} in quick succession")]);
        }
        list("journal", &self.complaints);
        lines.extend(self.unseen.iter().map(|why| ("unseen", why.clone())));
        lines
    }
}

/// The processes that hold one of the gateway's listeners.
fn holders(status: &Status) -> Vec<String> {
    let addresses = status
        .listeners
        .iter()
        .filter_map(|address| address.parse::<Listen>().ok());
    let mut found: Vec<String> = addresses
        .flat_map(|listen| port::who(&listen, &[status.pid], Depth::All))
        .map(|holder| holder.to_string())
        .collect();
    found.sort();
    found.dedup();
    found
}

async fn facts(env: &Env<'_>, unit: &Installed) -> Result<UnitSummary, service::ServiceError> {
    let properties = Manager::connect(unit.scope, env)
        .await?
        .properties(&unit.unit)
        .await?;
    // systemd writes what is not known, or infinite, as the largest number.
    let known = |name: &str| {
        Some(properties.number(name)).filter(|number| *number != u64::MAX && *number != 0)
    };
    Ok(UnitSummary {
        name: unit.unit.clone(),
        active: properties.text("ActiveState"),
        sub: properties.text("SubState"),
        result: properties.text("Result"),
        restarts: properties.number("NRestarts"),
        stored: properties.number("NFileDescriptorStore"),
        watchdog_ms: known("WatchdogUSec").unwrap_or(0) / 1000,
        memory: known("MemoryCurrent"),
        needs_reload: properties.flag("NeedDaemonReload"),
    })
}
