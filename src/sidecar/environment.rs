//! What a sidecar inherits: the gateway's environment without what was meant for the gateway alone.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::config::environment_file::Secrets;
use crate::config::{SET_NAMES, TEXT_MAX, VARIABLES_FILE, regular_file};
use crate::os::platform;
use crate::os::process::Stat;
use crate::os::working_directory::by_link;
use crate::supervisor::HINTS;
use crate::text::log::FILE_VARIABLE;
use crate::text::redact::Redactor;

/// The gateway's own settings. Not everything that begins with GATEWAY_: a program behind the
/// gateway may be a gateway itself, with settings of its own.
const OURS: &[&str] = &[
    "GATEWAY_CONFIG",
    "GATEWAY_INSTANCE",
    "GATEWAY_LISTEN",
    "GATEWAY_STATE_DIR",
    "GATEWAY_TOKEN_FILE",
    "GATEWAY_READER_TOKEN_FILE",
    "GATEWAY_HEALTH_PATHS",
    "GATEWAY_VIA",
    "GATEWAY_NO_RESPAWN",
    "GATEWAY_STARTUP_TRACE",
    FILE_VARIABLE,
    SET_NAMES,
    VARIABLES_FILE,
    PID,
    PID_START,
];

/// The gateway that a program was started from, and the start time by which its number is known to
/// be still its own: a helper that lost its parent knows its gateway by these alone.
const PID: &str = "GATEWAY_PID";
const PID_START: &str = "GATEWAY_PID_START";

/// Whether Python writes at once what is printed.
const PYTHON: &str = "PYTHONUNBUFFERED";

/// `GATEWAY_RESTART_DRAIN` and the like: the keys of `[restart]` and `[recovery]`.
const OURS_PREFIXES: [&str; 2] = ["GATEWAY_RESTART_", "GATEWAY_RECOVERY_"];

/// The environment that the gateway was started with, kept for its sidecars.
#[derive(Clone, Debug)]
pub struct Inherited {
    /// The environment without the scrubbed variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The names of those that `gatewayctl install --set` set: no file of variables replaces them.
    pub set: Vec<String>,
    /// The soft limit on open files that the gateway started with; it raises its own.
    pub open_files: Option<(u64, u64)>,
    /// The working directory, where a link leads to it, which each start follows anew.
    pub directory: Option<PathBuf>,
}

impl Inherited {
    /// Reads the environment of this process, and raises its soft limit on open files to the hard
    /// one.
    pub fn take() -> Self {
        let given = given(std::env::var_os(VARIABLES_FILE).map(PathBuf::from));
        let environment = std::env::vars_os()
            .filter(|(name, _)| !given.iter().any(|(key, _)| *name == **key))
            .chain(given.iter().map(|(key, value)| (key.into(), value.into())))
            .filter(|(name, _)| name.to_str().is_none_or(|name| !scrubbed(name)))
            .chain(this_process())
            .chain(unbuffered(std::env::var_os(PYTHON)))
            .collect();
        let in_file = given.iter().find(|(key, _)| key == SET_NAMES);
        let set = in_file.map(|(_, names)| names.clone());
        let set = set
            .or_else(|| std::env::var(SET_NAMES).ok())
            .unwrap_or_default();
        Self {
            environment,
            set: set.split(' ').map(str::to_owned).collect(),
            open_files: raise_open_files(),
            directory: by_link(std::env::var_os("PWD").map(PathBuf::from)),
        }
    }

    /// Tells the redactor which of the values are secret: a sidecar may print them.
    pub fn teach(&self, redactor: &Redactor) {
        let text = self
            .environment
            .iter()
            .filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        text.for_each(|(name, value)| redactor.learn_env(name, value));
    }
}

/// The variables of the file that `$GATEWAY_VARIABLES_FILE` names, as the service manager would have given them.
/// Without them a server may fail, which the log explains, but the front door answers.
fn given(file: Option<PathBuf>) -> Vec<(String, String)> {
    let Some(file) = file else {
        return Vec::new();
    };
    match regular_file::read_text(&file, TEXT_MAX) {
        Ok(text) => Secrets::variables_of(&text),
        Err(error) => {
            tracing::error!(
                "[gateway] the variables that --set gave are missing: cannot read {}: {error}",
                file.display()
            );
            Vec::new()
        }
    }
}

/// Python keeps what it prints in a buffer of some kilobytes where its output is a pipe, and so a server
/// seemed to print nothing, and its last words were lost. Whoever sets the variable has the last word.
fn unbuffered(set: Option<OsString>) -> Option<(OsString, OsString)> {
    set.is_none().then(|| (PYTHON.into(), "1".into()))
}

/// The variables that name this process.
fn this_process() -> Vec<(OsString, OsString)> {
    let pid = std::process::id();
    let start = Stat::read(pid).map(|stat| (PID_START, stat.start_time.to_string()));
    [(PID, pid.to_string())]
        .into_iter()
        .chain(start)
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// The gateway that this process was started from, with its start time, or 0 where that is not known.
/// Who sets the variables protects a process, and reaches nothing else.
pub fn started_from() -> Option<(u32, u64)> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let pid = u32::try_from(number(PID)?).ok()?;
    Some((pid, number(PID_START).unwrap_or_default()))
}

/// Whether it is meant for the gateway alone.
pub(super) fn scrubbed(name: &str) -> bool {
    HINTS.contains(&name)
        || OURS.contains(&name)
        || OURS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Raises the soft limit; tells which one servers get, and the hard one.
fn raise_open_files() -> Option<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let most = platform::descriptors_most().map_or(hard, |most| most.min(hard));
    // Without the raise the gateway serves fewer clients at once, which `limits.connections` may
    // never reach anyway.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, most, hard);
    Some((platform::server_descriptors(soft).min(hard), hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisor_hints_stay_with_the_gateway() {
        for name in HINTS.iter().chain(&[
            "GATEWAY_RESTART_DRAIN",
            "GATEWAY_RECOVERY_THROTTLE_MAX",
            "GATEWAY_NO_RESPAWN",
        ]) {
            assert!(scrubbed(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "PORT",
            "NODE_ENV",
            "GATEWAY_URL",
            "KUBERNETES_SERVICE_HOST",
        ] {
            assert!(!scrubbed(name), "{name}");
        }
    }
}
