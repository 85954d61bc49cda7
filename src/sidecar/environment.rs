//! What a sidecar inherits: the gateway's environment without what was meant for the gateway alone.

use std::ffi::OsString;

use crate::redact::Redactor;

/// Variables that speak of the gateway's own supervisor, socket and log. A sidecar that believed them would report
/// readiness for the gateway, or take itself for the supervised process.
const SCRUBBED: &[&str] = &[
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "FDSTORE",
    "MAINPID",
    "MANAGERPID",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "SYSTEMD_EXEC_PID",
    "MEMORY_PRESSURE_WATCH",
    "MEMORY_PRESSURE_WRITE",
    "STATE_DIRECTORY",
    "RUNTIME_DIRECTORY",
    "CONFIGURATION_DIRECTORY",
    "LAUNCH_JOB_LABEL",
    "LAUNCH_JOB_NAME",
    "XPC_SERVICE_NAME",
    "S6_CONTAINER_ENVIRONMENT",
    "SUPERVISOR_ENABLED",
    "SUPERVISOR_PROCESS_NAME",
    "SUPERVISOR_GROUP_NAME",
    "SUPERVISOR_SERVER_URL",
];

/// The gateway's own settings. Not everything that begins with GATEWAY_: a program behind the gateway may be a gateway
/// itself, with settings of its own.
const OURS: &[&str] = &[
    "GATEWAY_CONFIG",
    "GATEWAY_INSTANCE",
    "GATEWAY_LISTEN",
    "GATEWAY_STATE_DIR",
    "GATEWAY_TOKEN_FILE",
    "GATEWAY_HEALTH_PATHS",
    "GATEWAY_VIA",
    "GATEWAY_SUPERVISOR",
    "GATEWAY_NO_RESPAWN",
    "GATEWAY_STARTUP_TRACE",
];

/// `GATEWAY_RESTART_DRAIN` and the like: the keys of `[restart]` and `[recovery]`.
const OURS_PREFIXES: [&str; 2] = ["GATEWAY_RESTART_", "GATEWAY_RECOVERY_"];

/// What the gateway got from whoever started it, kept for its sidecars.
#[derive(Clone, Debug)]
pub struct Inherited {
    /// The environment without the scrubbed variables.
    pub environment: Vec<(OsString, OsString)>,
    /// The soft limit on open files that the gateway started with; it raises its own.
    pub open_files: Option<(u64, u64)>,
}

impl Inherited {
    /// Reads the environment of this process, and raises its soft limit on open files to the hard one.
    pub fn take() -> Self {
        let environment = std::env::vars_os().filter(|(name, _)| name.to_str().is_none_or(|name| !scrubbed(name))).collect();
        Self { environment, open_files: raise_open_files() }
    }

    /// Tells the redactor which of the values are secret: a sidecar may print them.
    pub fn teach(&self, redactor: &Redactor) {
        let text = self.environment.iter().filter_map(|(name, value)| Some((name.to_str()?, value.to_str()?)));
        text.for_each(|(name, value)| redactor.learn_env(name, value));
    }
}

fn scrubbed(name: &str) -> bool {
    SCRUBBED.contains(&name) || OURS.contains(&name) || OURS_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Raises the soft limit; tells what it was.
fn raise_open_files() -> Option<(u64, u64)> {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    // Without the raise the gateway serves fewer clients at once, which `limits.connections` may never reach anyway.
    let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    Some((soft, hard))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn supervisor_hints_stay_with_the_gateway() {
        for name in [
            "NOTIFY_SOCKET",
            "INVOCATION_ID",
            "LISTEN_FDS",
            "GATEWAY_SUPERVISOR",
            "GATEWAY_RESTART_DRAIN",
            "GATEWAY_RECOVERY_THROTTLE_MAX",
            "XPC_SERVICE_NAME",
        ] {
            assert!(scrubbed(name), "{name}");
        }
        for name in ["PATH", "HOME", "PORT", "NODE_ENV", "GATEWAY_URL"] {
            assert!(!scrubbed(name), "{name}");
        }
    }
}
