//! What there is to see about who supervises this process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::verdict::SupervisorVerdict;
use crate::config::Env;
use crate::systemd::UnitFacts;

/// Variables by which a supervisor speaks to the process it started. Whoever inherits them without
/// being that process would report readiness for it, or take itself for it: they are hints and no
/// proof, and they stay with the gateway.
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

/// Variables that tell where the machine is, not who supervises. Programs need them, to reach the
/// cluster for one, so they are passed on.
pub(super) const PLACES: &[&str] = &["KUBERNETES_SERVICE_HOST", "container"];

/// Files that container engines put into every container.
const CONTAINER_FILES: &[&str] = &["/.dockerenv", "/run/.containerenv"];

/// The kind of system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Platform {
    #[default]
    Linux,
    MacOs,
    Other,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Parent {
    /// Its process id; 0 when it lives in another pid namespace.
    pub pid: u32,
    /// Its name: at most 15 bytes.
    pub comm: String,
    /// Its executable, where that may be read.
    pub executable: Option<PathBuf>,
    /// The first words of its command line: a script's name is there.
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

/// What there is to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Those of [`HINTS`] (and a few that tell of containers) that are set and not blank.
    pub environment: BTreeMap<String, String>,
    pub pid: u32,
    pub parent: Parent,
    /// /proc/self/cgroup.
    pub cgroup: String,
    /// The kind of system.
    pub platform: Platform,
    /// Whether we have a controlling terminal.
    pub terminal: bool,
    /// A file that only containers have.
    pub container_file: Option<String>,
    /// The label that a launchd job of this instance has.
    pub label: String,
    /// What the manager says about the unit that our process is in
    /// ([`facts_of`](crate::systemd::unit::facts_of)).
    pub manager: Option<UnitFacts>,
    /// What a predecessor found and handed over.
    pub handed: Option<SupervisorVerdict>,
}

impl Evidence {
    /// Looks at the real system. The manager and the predecessor speak for themselves: `manager`
    /// and `handed` are none.
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
            platform: match std::env::consts::OS {
                "linux" => Platform::Linux,
                "macos" => Platform::MacOs,
                _ => Platform::Other,
            },
            // It opens for a process with a controlling terminal, wherever the standard streams go.
            terminal: std::fs::File::open("/dev/tty").is_ok(),
            container_file: CONTAINER_FILES
                .iter()
                .find(|path| std::path::Path::new(path).exists())
                .map(|path| (*path).to_owned()),
            label: format!("org.gatewayctl.{instance}"),
            manager: None,
            handed: None,
        }
    }

    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        self.environment.get(name).map(String::as_str)
    }
}

/// As much of a command line as holds an interpreter, an option of it and the script.
const ARGUMENTS: usize = 3;

#[cfg(target_os = "macos")]
fn parent() -> Parent {
    let pid = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or(0);
    Parent {
        pid,
        comm: crate::os::process::Stat::read(pid)
            .map(|stat| stat.name)
            .unwrap_or_default(),
        executable: crate::os::process::executable(pid),
        arguments: crate::os::process::Process::read(pid)
            .into_iter()
            .flat_map(|parent| parent.arguments)
            .take(ARGUMENTS)
            .collect(),
    }
}

#[cfg(target_os = "linux")]
fn parent() -> Parent {
    let pid = u32::try_from(nix::unistd::getppid().as_raw()).unwrap_or(0);
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
    Parent {
        pid,
        comm: std::fs::read_to_string(folder.join("comm"))
            .map(|comm| comm.trim_end_matches('\n').to_owned())
            .unwrap_or_default(),
        executable: std::fs::read_link(folder.join("exe")).ok(),
        arguments: line
            .split(|byte| *byte == 0)
            .take(ARGUMENTS)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect(),
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
        assert_eq!(
            evidence.environment.keys().collect::<Vec<_>>(),
            ["INVOCATION_ID"],
            "a blank one is not set"
        );
        assert_eq!(
            (evidence.pid, evidence.label.as_str()),
            (std::process::id(), "org.gatewayctl.one")
        );
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
        assert!(
            Parent {
                comm: "supervise-daemo".into(),
                ..Parent::default()
            }
            .is("supervise-daemon")
        );
    }
}
