//! Facts about an installed service: its files, and what its manager reports.

use std::path::{self, PathBuf};
use std::time::Duration;

use crate::service::manager::systemctl;
use crate::service::provenance::Written;
use crate::service::{Installed, Rights, UnappliedFile};
use crate::state::paths::Scope;
use crate::systemd::WaitsFor;
use crate::systemd::words::{
    ActiveState, KillMode, LoadState, NotifyAccess, OomPolicy, RestartPolicy, ServiceResult,
    ServiceType, SubState, UnitFileState, Word,
};

/// An installed service.
#[derive(Clone, Debug)]
pub struct InstalledUnit {
    pub installed: Installed,
    pub rights: Rights,
    /// What its manager reports; the defaults where the manager does not answer.
    pub properties: UnitProperties,
    /// Why the manager does not answer.
    pub unreachable: Option<String>,
    /// The unit file and its drop-ins, in the order in which systemd reads them.
    pub files: Vec<UnitFile>,
    /// Who wrote the unit file.
    pub written: Written,
    /// Whether the unit file is in the directory where install writes.
    pub in_our_place: bool,
    /// The difference to what this version writes.
    pub outdated: Option<String>,
    /// Files of the same name that the unit file hides.
    pub shadowed: Vec<PathBuf>,
    /// Whether the user's manager runs without a login; none in system scope.
    pub lingers: Option<bool>,
    pub env_files: Vec<UnitEnvFile>,
    /// The names of what systemd reads for it (LoadCredential=).
    pub credentials: Vec<String>,
    /// What its sandbox lets it write besides (ReadWritePaths=).
    pub writable: Vec<String>,
    /// What changed after the service was started, so that it is not applied.
    pub unapplied: Vec<UnappliedFile>,
    /// Names of variables that the unit sets and whose values are secret.
    pub secrets: Vec<String>,
    /// Whether systemd creates a temporary user for it (DynamicUser=).
    pub dynamic: bool,
    /// Whether the account of `User=` exists; true without `User=`.
    pub has_account: bool,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// What journald reports that it dropped of the service's log in this boot.
    pub suppressed: Vec<String>,
}

impl InstalledUnit {
    /// The systemctl command for its scope.
    pub fn systemctl(&self, rest: &str) -> String {
        let command = systemctl(self.installed.scope, rest);
        match self.installed.scope {
            Scope::System => self.rights.as_root(&command),
            Scope::User => command,
        }
    }

    /// The last line that makes a setting, with its file.
    fn last_line(&self, key: &str) -> Option<(&UnitFile, &UnitLine)> {
        self.files
            .iter()
            .flat_map(|file| file.lines.iter().map(move |line| (file, line)))
            .rfind(|(_, line)| line.key == key)
    }

    /// Where a setting is made: file and line, or the unit file where no line makes it.
    pub fn place(&self, key: &str) -> String {
        self.last_line(key).map_or_else(
            || self.file().to_string(),
            |(file, line)| format!("{}:{}", file.path.display(), line.number),
        )
    }

    /// The value of the last line that makes a setting.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.last_line(key).map(|(_, line)| line.value.as_str())
    }

    /// Its unit file.
    pub fn file(&self) -> path::Display<'_> {
        self.installed.path.display()
    }

    /// Its name, as in "gateway.service".
    pub fn name(&self) -> &str {
        &self.installed.unit
    }

    /// It and its socket unit.
    pub fn names(&self) -> Vec<&str> {
        let socket = self.installed.socket.as_deref();
        std::iter::once(self.name()).chain(socket).collect()
    }

    /// The command that overrides a setting in a drop-in.
    pub fn set(&self, wanted: &str) -> String {
        format!(
            "{}   (then write under [Service]: {wanted})",
            self.systemctl(&format!("edit {}", self.name()))
        )
    }
}

/// What a service manager reports about a service.
#[derive(Clone, Debug, Default)]
pub struct UnitProperties {
    /// systemd's version.
    pub version: u32,
    pub load: Word<LoadState>,
    /// Why it is not loaded.
    pub load_error: String,
    pub active: Word<ActiveState>,
    pub sub: Word<SubState>,
    pub result: Word<ServiceResult>,
    pub file_state: Word<UnitFileState>,
    /// Whether its files changed after systemd read them.
    pub needs_reload: bool,
    pub service_type: Word<ServiceType>,
    pub notify_access: Word<NotifyAccess>,
    pub kill_mode: Word<KillMode>,
    pub restart: Word<RestartPolicy>,
    /// RestartSec=
    pub restart_delay: Duration,
    /// TimeoutStopSec=; none for no limit.
    pub timeout_stop: Option<Duration>,
    /// WatchdogSec=; none when it is off.
    pub watchdog: Option<Duration>,
    /// FileDescriptorStoreMax=
    pub fd_store: u64,
    pub oom_policy: Word<OomPolicy>,
    /// The hard limit of LimitNOFILE=.
    pub nofile: u64,
    /// StartLimitIntervalSec=; none when it is off.
    pub limit_interval: Option<Duration>,
    /// StartLimitBurst=
    pub limit_burst: u64,
    /// RestartPreventExitStatus=
    pub prevent: Vec<i32>,
    /// StandardOutput= and StandardError=
    pub output: Vec<String>,
    pub environment: Vec<String>,
    /// Units of After=, Wants= and Requires=.
    pub wants: Vec<String>,
    /// The program of ExecStart=.
    pub program: Option<PathBuf>,
    /// Automatic restarts since the last start by hand.
    pub restarts: u64,
    /// 0 for none.
    pub main_pid: u32,
    /// Whether a socket unit holds its listeners.
    pub socket: bool,
    pub user: String,
    /// The STATUS= that the gateway sent last.
    pub status_text: String,
    /// What it waits for: until then it has no control socket.
    pub waits_for: Option<WaitsFor>,
}

/// A unit file or a drop-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    pub path: PathBuf,
    pub lines: Vec<UnitLine>,
}

/// A `key=value` line of a unit file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitLine {
    pub number: usize,
    pub key: String,
    pub value: String,
}

/// A file of EnvironmentFile=.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitEnvFile {
    pub path: PathBuf,
    /// Whether it may be missing.
    pub optional: bool,
    /// Permission bits; none where it is missing.
    pub mode: Option<u32>,
    /// Whether it sets a secret variable.
    pub secret: bool,
    /// The variables that systemd reads in another way than dotenv does, or not at all.
    pub misread: Vec<String>,
    /// Whether it and its directory belong to root or the caller and are no links, so that no other
    /// user chose what the path leads to.
    pub ours: bool,
}
