//! The facts about who supervises this process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use nix::unistd::{Pid, getsid};

use super::verdict::SupervisorVerdict;
use crate::config::Env;
use crate::launchd::LABEL;
use crate::launchd::own_job::JobAnswer;
use crate::os::process::{self, Stat};
use crate::os::terminal;
use crate::systemd::UnitFacts;

/// Variables that a supervisor sets for the process it started. A process that only inherits them
/// would report readiness for that process, or take itself for it: they are no proof, and sidecars
/// do not get them.
pub const HINTS: &[&str] = &[
    // systemd
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
    // launchd
    "LAUNCH_JOB_LABEL",
    "LAUNCH_JOB_NAME",
    "XPC_SERVICE_NAME",
    // s6-overlay
    "S6_CONTAINER_ENVIRONMENT",
    // dinit
    "DINIT_SERVICE",
    "DINIT_CS_FD",
    // OpenRC
    "RC_SVCNAME",
    "RC_SERVICE",
    // supervisord
    "SUPERVISOR_ENABLED",
    "SUPERVISOR_PROCESS_NAME",
    "SUPERVISOR_GROUP_NAME",
    "SUPERVISOR_SERVER_URL",
    // pm2
    "pm_id",
    // ours
    "GATEWAY_SUPERVISOR",
];

/// Variables about the place of the machine, not about a supervisor. Programs need them, for example
/// to reach the cluster, so sidecars get them.
pub(super) const PLACES: &[&str] = &["KUBERNETES_SERVICE_HOST", "container"];

/// Files that container engines put into every container.
const CONTAINER_FILES: &[&str] = &["/.dockerenv", "/run/.containerenv"];

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// 0 when it is in another pid namespace.
    pub pid: u32,
    /// Its name: at most 15 bytes.
    pub comm: String,
    /// None where it may not be read.
    pub executable: Option<PathBuf>,
    /// The first words of its command line, with the name of a script.
    pub arguments: Vec<String>,
}

impl Parent {
    /// Whether it is the program `name`, a script that an interpreter runs included.
    pub(super) fn is(&self, name: &str) -> bool {
        // The kernel keeps 15 bytes of a name.
        let comm = name.get(..15).unwrap_or(name);
        let file = |path: &str| path.rsplit('/').next() == Some(name);
        self.comm == comm
            || self
                .executable
                .as_ref()
                .is_some_and(|path| path.file_name().is_some_and(|file| file == name))
            || self.arguments.iter().any(|argument| file(argument))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Those of [`HINTS`] (and a few about containers) that are set and not blank.
    pub environment: BTreeMap<String, String>,
    pub pid: u32,
    pub parent: Parent,
    /// /proc/self/cgroup.
    pub cgroup: String,
    pub macos: bool,
    /// Whether we have a controlling terminal.
    pub terminal: bool,
    /// Whether we are in another session than process 1: what a shell left behind, or a service that
    /// made a session of its own.
    pub other_session: bool,
    /// A file that only containers have.
    pub container_file: Option<String>,
    /// The label that a launchd job of this instance has.
    pub label: String,
    /// Of the unit that our process is in: [`facts_of`](crate::systemd::unit::facts_of).
    pub manager: Option<UnitFacts>,
    /// Of the job of launchd that our process is.
    pub job: JobAnswer,
    /// The verdict of a predecessor.
    pub handed: Option<SupervisorVerdict>,
}

impl Evidence {
    /// Looks at the real system. `manager`, `job` and `handed` are none: the caller asks for them.
    pub fn gather(env: &Env<'_>, instance: &str) -> Self {
        let seen = HINTS
            .iter()
            .chain(PLACES)
            .filter_map(|name| Some(((*name).to_owned(), env.text(name)?)));
        Self {
            environment: seen.filter(|(_, value)| !value.trim().is_empty()).collect(),
            pid: std::process::id(),
            parent: parent(),
            cgroup: std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default(),
            macos: cfg!(target_os = "macos"),
            // Wherever the standard streams go.
            terminal: terminal::is_there(),
            other_session: is_in_other_session(),
            container_file: CONTAINER_FILES
                .iter()
                .find(|path| std::path::Path::new(path).exists())
                .map(|path| (*path).to_owned()),
            label: format!("{LABEL}{instance}"),
            manager: None,
            job: JobAnswer::Unknown,
            handed: None,
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }
}

/// A session whose leader is in another pid namespace has no number here: neither has that of
/// process 1 then.
fn is_in_other_session() -> bool {
    let session = |pid| getsid(Some(Pid::from_raw(pid)));
    match (session(0), session(1)) {
        (Ok(ours), Ok(first)) => ours != first,
        _ => false,
    }
}

/// As much of a command line as holds an interpreter, an option of it and the script.
const ARGUMENTS: usize = 3;

fn parent() -> Parent {
    let pid = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or(0);
    let mut arguments = process::arguments(pid);
    arguments.truncate(ARGUMENTS);
    Parent {
        pid,
        comm: Stat::read(pid).map(|stat| stat.name).unwrap_or_default(),
        executable: process::executable(pid),
        arguments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_real_system_is_read() {
        let env = |name: &str| match name {
            "INVOCATION_ID" => Some("abc".into()),
            "NOTIFY_SOCKET" => Some("  ".into()),
            _ => None,
        };
        let evidence = Evidence::gather(&Env(&env), "one");
        let set: Vec<&String> = evidence.environment.keys().collect();
        assert_eq!(set, ["INVOCATION_ID"], "a blank one is not set");
        assert_eq!(evidence.pid, std::process::id());
        assert_eq!(evidence.label, "org.gatewayctl.one");
        assert!(evidence.manager.is_none() && evidence.handed.is_none());
    }

    #[test]
    fn a_parent_has_a_name_by_program_or_script() {
        let script = Parent {
            comm: "python3".into(),
            executable: Some("/usr/bin/python3.11".into()),
            arguments: vec!["python3".into(), "/usr/bin/supervisord".into(), "-n".into()],
            ..Parent::default()
        };
        assert!(script.is("supervisord") && !script.is("runsv"));
        let cut = Parent {
            comm: "supervise-daemo".into(),
            ..Parent::default()
        };
        assert!(cut.is("supervise-daemon"));
    }
}
