//! Files of a service that changed after they were read: by the gateway for its current generation, or
//! by its service manager, which reads them only when it starts the service, so that no restart inside of the service
//! applies them.

use std::fmt;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::ServiceError;
use super::launchd_job::LaunchdJob;
use super::layout::{Installed, Layout};
use super::manager::Manager;
use super::manager_kind::ServiceManagerKind;
use super::start_stop::configuration;
use crate::config::{Config, Env, EnvFilePlaces};
use crate::systemd::Properties;
use crate::text::words::words;

/// More drop-ins in one directory are not looked at: nobody has so many.
const DROP_INS_MAX: usize = 100;

words! {
    /// What a file is for a service.
    pub enum FileRole {
        /// Its unit.
        Unit = "unit",
        /// Its property list.
        PropertyList = "property list",
        /// A drop-in of its unit.
        DropIn = "drop-in",
        /// Variables that systemd reads for it.
        Variables = "variables",
        /// The configuration.
        Configuration = "configuration",
        /// Variables of a server that the gateway reads.
        ServerVariables = "server variables",
    }
}

/// A file that changed after it was read for what runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnappliedFile {
    /// Its path.
    pub file: PathBuf,
    /// What it is for the service.
    pub role: FileRole,
    /// Whether it is gone.
    pub gone: bool,
}

impl UnappliedFile {
    /// Whether only a start by the service manager applies it; else a reload does.
    pub fn needs_start(&self) -> bool {
        match self.role {
            FileRole::Unit | FileRole::PropertyList | FileRole::DropIn | FileRole::Variables => {
                true
            }
            FileRole::Configuration | FileRole::ServerVariables => false,
        }
    }
}

impl fmt::Display for UnappliedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, role, gone } = self;
        let what = if *gone { "is gone" } else { "changed" };
        write!(f, "{} ({role}) {what}", file.display())
    }
}

/// What a gateway says of itself that matters here.
#[derive(Clone, Copy, Debug)]
pub struct RunningGateway<'a> {
    pub pid: u32,
    /// When it read its configuration, RFC 3339.
    pub config_read_at: Option<&'a str>,
}

/// The files of a service that changed after they were read for this gateway; none where another
/// process is its main one.
///
/// # Errors
/// When the manager does not answer.
pub async fn unapplied(
    env: &Env<'_>,
    unit: &Installed,
    gateway: RunningGateway<'_>,
) -> Result<Vec<UnappliedFile>, ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        let job = LaunchdJob::find(unit).await?;
        return Ok(match job.main_pid() == Some(gateway.pid) {
            true => of_job(env, &job, unit, gateway.config_read_at),
            false => Vec::new(),
        });
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let said = manager.properties(&unit.unit).await?;
    if said.number::<u32>("MainPID") != gateway.pid {
        return Ok(Vec::new());
    }
    Ok(changed(env, unit, &said, gateway.config_read_at))
}

/// launchd reads the property list when it loads the job, and nothing else of it.
fn of_job(
    env: &Env<'_>,
    job: &LaunchdJob<'_>,
    unit: &Installed,
    config_read_at: Option<&str>,
) -> Vec<UnappliedFile> {
    let list = UnappliedFile {
        file: unit.path.clone(),
        role: FileRole::PropertyList,
        gone: !unit.path.exists(),
    };
    let list = job.record().is_changed().then_some(list);
    let rest = changed(env, unit, &Properties::default(), config_read_at);
    list.into_iter().chain(rest).collect()
}

/// The same from what a manager says of the unit.
pub fn changed(
    env: &Env<'_>,
    unit: &Installed,
    said: &Properties,
    config_read_at: Option<&str>,
) -> Vec<UnappliedFile> {
    let Ok(layout) = Layout::of_service(unit, env) else {
        return Vec::new();
    };
    let mut found = changed_since_start(said, &layout.drop_in_dirs(&unit.unit));
    let read = config_read_at.and_then(|at| at.parse::<Timestamp>().ok());
    if let Some(read) = read.and_then(|at| u64::try_from(at.as_microsecond()).ok()) {
        let config = configuration(env, unit).ok().flatten();
        let files = config.into_iter().flat_map(|(file, config)| {
            let variables = of_servers(config, said);
            std::iter::once((file, FileRole::Configuration)).chain(variables)
        });
        found.extend(files.filter_map(|(file, role)| look(file, role, read)));
    }
    found
}

/// The files of variables that the gateway reads itself.
fn of_servers(config: Config, said: &Properties) -> Vec<(PathBuf, FileRole)> {
    let passed = said.credentials();
    let is_passed = |sidecar: &str| {
        let name = EnvFilePlaces::credential(sidecar);
        passed.iter().any(|(credential, _)| *credential == name)
    };
    let sidecars = config.sidecar.into_iter();
    sidecars
        .filter(|(name, _)| !is_passed(name))
        .filter_map(|(_, spec)| spec.env_file.filter(|file| file.is_absolute()))
        .map(|file| (file, FileRole::ServerVariables))
        .collect()
}

/// What only a start by systemd applies. The drop-ins are in `directories`, also those that it has not
/// read.
fn changed_since_start(said: &Properties, directories: &[PathBuf]) -> Vec<UnappliedFile> {
    // A hand-over gives the service another main process, which has the environment of the one
    // before, so the start of that process says nothing.
    let started: u64 = said.number("InactiveExitTimestamp");
    if started == 0 || said.number::<u32>("MainPID") == 0 {
        return Vec::new();
    }
    let mut drop_ins: Vec<PathBuf> = (said.texts("DropInPaths").into_iter())
        .map(PathBuf::from)
        .collect();
    for directory in directories {
        drop_ins.extend(drop_ins_of(directory));
    }
    let variables = (said.environment_files().into_iter())
        .map(|(file, _)| file)
        .chain(said.credentials().into_iter().map(|(_, file)| file));
    let unit = Some(said.text("FragmentPath")).filter(|path| !path.is_empty());
    let mut files: Vec<(PathBuf, FileRole)> = (unit.into_iter())
        .map(|path| (path.into(), FileRole::Unit))
        .chain(drop_ins.into_iter().map(|path| (path, FileRole::DropIn)))
        .chain(variables.map(|path| (path.into(), FileRole::Variables)))
        .filter(|(path, _)| path.is_absolute())
        .collect();
    files.sort_by(|(one, _), (other, _)| one.cmp(other));
    files.dedup_by(|(one, _), (other, _)| one == other);
    let look = |(file, role)| look(file, role, started);
    files.into_iter().filter_map(look).collect()
}

/// Whether a file changed after it was read, or is gone.
fn look(file: PathBuf, role: FileRole, read: u64) -> Option<UnappliedFile> {
    let missing = |facts: &io::Result<Metadata>| {
        let error = facts.as_ref().err();
        error.is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
    };
    let (link, target) = (file.symlink_metadata(), file.metadata());
    let gone = missing(&link) || missing(&target);
    // What this user may not look at may be as it was.
    let later = |facts: io::Result<Metadata>| facts.is_ok_and(|facts| written(&facts) > read);
    (gone || later(link) || later(target)).then_some(UnappliedFile { file, role, gone })
}

/// When a file was written or put in its place, in microseconds. The time of the last write alone is
/// kept by copies of older files.
fn written(facts: &Metadata) -> u64 {
    let micros = i128::from(facts.ctime()) * 1_000_000 + i128::from(facts.ctime_nsec()) / 1000;
    u64::try_from(micros).unwrap_or_default()
}

fn drop_ins_of(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "conf"))
        .take(DROP_INS_MAX)
        .collect()
}

/// Has the manager read all unit files anew.
///
/// # Errors
/// When it does not, or this user may not ask for it.
pub async fn read_units(env: &Env<'_>, unit: &Installed) -> Result<(), ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return Ok(());
    }
    let manager = Manager::connect(unit.scope, env).await?;
    manager.daemon_reload().await
}

/// Refuses to start or restart a service whose files of variables cannot be used: its servers would be
/// down afterwards.
/// What this user may not read is left to systemd.
///
/// # Errors
/// Which, and why.
pub async fn check_variables(env: &Env<'_>, unit: &Installed) -> Result<(), ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return Ok(());
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let said = manager.properties(&unit.unit).await?;
    for (file, optional) in said.environment_files() {
        let looked = std::fs::metadata(&file);
        let missing = looked.is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
        if missing && !optional {
            let message = format!("{file} is missing, without which systemd does not start it");
            return Err(ServiceError::config(message));
        }
    }
    let ours = EnvFilePlaces::credential("");
    let passed = said.credentials().into_iter();
    let passed = passed.filter(|(name, _)| name.starts_with(&ours));
    let config = configuration(env, unit).ok().flatten();
    let read = config.map(|(_, config)| of_servers(config, &said));
    let read = read.unwrap_or_default().into_iter().map(|(file, _)| file);
    let mut files = passed.map(|(_, file)| PathBuf::from(file)).chain(read);
    let fault = |file: &PathBuf| match EnvFilePlaces::default().read("", file) {
        Err(error) if !error.is_permission() => Some(error),
        _ => None,
    };
    match files.find_map(|file| fault(&file).filter(|_| file.is_absolute())) {
        Some(error) => Err(ServiceError::config(format!(
            "{error}; nothing was changed"
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_replaced_or_removed_since_the_start_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.env");
        std::fs::write(&file, "A=1").unwrap();
        let written = written(&file.metadata().unwrap());
        let told = |read| {
            let seen = look(file.clone(), FileRole::Variables, read);
            seen.map(|seen| seen.to_string())
        };
        assert_eq!(told(written), None);
        let expected = format!("{} (variables) changed", file.display());
        assert_eq!(told(written - 1), Some(expected.clone()));
        // An older file in its place.
        let older = dir.path().join("older");
        std::fs::write(&older, "A=2").unwrap();
        let past = std::time::UNIX_EPOCH;
        let opened = std::fs::File::options().write(true).open(&older).unwrap();
        opened.set_modified(past).unwrap();
        std::fs::rename(&older, &file).unwrap();
        assert_eq!(told(written - 1), Some(expected));
        std::fs::remove_file(&file).unwrap();
        let gone = format!("{} (variables) is gone", file.display());
        assert_eq!(told(u64::MAX), Some(gone.clone()));
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        assert_eq!(told(u64::MAX), Some(gone));
    }
}
