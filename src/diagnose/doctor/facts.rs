//! What is known of a gateway and the machine it runs on, gathered once. Checks look at nothing
//! else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::{Config, Listen};
use crate::control::protocol::Status;
use crate::service::Installed;
use crate::service::provenance::Written;
use crate::state::owner::Owner;
use crate::state::paths::Scope;

#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The gateway that is meant.
    pub instance: String,
    /// The flags that name it, with a blank before them.
    pub flags: String,
    pub user: String,
    /// Its service, where it is installed.
    pub unit: Option<Unit>,
    pub config: Configuration,
    /// Its state directory, where it is known.
    pub state: Option<State>,
    /// What it says of itself, where it answers.
    pub live: Option<Status>,
    /// Its process, where it may be looked at.
    pub process: Option<Process>,
    /// Its addresses, those of the configuration or of the running gateway.
    pub ports: Vec<Port>,
    /// Other gateways of this machine.
    pub neighbours: Vec<Neighbour>,
    pub machine: Machine,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

/// An installed service, as its files and its manager have it.
#[derive(Clone, Debug)]
pub struct Unit {
    /// Name, scope, place.
    pub installed: Installed,
    /// Whether who asks may not change it.
    pub needs_sudo: bool,
    /// What its manager says; none where it cannot be asked.
    pub says: Option<Says>,
    /// Why its manager cannot be asked.
    pub unreachable: Option<String>,
    /// Its file and its drop-ins, in the order in which systemd reads them.
    pub files: Vec<UnitFile>,
    /// Whose the file is.
    pub written: Written,
    /// Whether it lies where install writes.
    pub in_our_place: bool,
    /// How it differs from what this version writes.
    pub outdated: Option<String>,
    /// Files of the same name that it hides.
    pub shadowed: Vec<PathBuf>,
    /// Whether the user's manager runs without a login; none in system scope.
    pub lingers: Option<bool>,
    /// Its files of variables.
    pub env_files: Vec<EnvFile>,
    /// Names of variables that it sets and that are secret by their names.
    pub secrets: Vec<String>,
    /// Whether systemd makes its user up.
    pub dynamic: bool,
    /// Whether the account of `User=` is there; true where there is none.
    pub has_account: bool,
    /// The number of its user, where it is known.
    pub uid: Option<u32>,
    /// The group of that user.
    pub gid: Option<u32>,
    /// What journald left out of its log in this boot, in journald's words.
    pub suppressed: Vec<String>,
}

impl Unit {
    /// systemctl of its scope.
    pub fn systemctl(&self, rest: &str) -> String {
        let sudo = if self.needs_sudo { "sudo " } else { "" };
        format!(
            "{sudo}{}",
            crate::service::manager::systemctl(self.installed.scope, rest)
        )
    }

    /// The place where a setting is made: the last line that makes it, else the unit's file.
    pub fn place(&self, key: &str) -> String {
        let mut made = self
            .files
            .iter()
            .flat_map(|file| file.lines.iter().map(move |line| (file, line)))
            .filter(|(_, line)| line.key == key);
        made.next_back().map_or_else(
            || self.installed.path.display().to_string(),
            |(file, line)| format!("{}:{}", file.path.display(), line.number),
        )
    }

    /// The value of a setting that is made last.
    pub fn value(&self, key: &str) -> Option<&str> {
        let mut made = self
            .files
            .iter()
            .flat_map(|file| &file.lines)
            .filter(|line| line.key == key);
        made.next_back().map(|line| line.value.as_str())
    }

    /// The command that takes a setting back: out of a drop-in, or by an own one.
    pub fn set(&self, wanted: &str) -> String {
        format!(
            "{}   (and write, under [Service]: {wanted})",
            self.systemctl(&format!("edit {}", self.installed.unit))
        )
    }
}

/// What a service manager says of a service.
#[derive(Clone, Debug, Default)]
pub struct Says {
    /// systemd's version.
    pub version: u32,
    /// loaded, not-found, bad-setting, error, masked.
    pub load: String,
    /// Why it is not loaded.
    pub load_error: String,
    /// active, failed, …
    pub active: String,
    /// running, auto-restart, …
    pub sub: String,
    /// success, start-limit-hit, …
    pub result: String,
    /// enabled, disabled, …
    pub file_state: String,
    /// Its files changed since they were read.
    pub needs_reload: bool,
    /// Type=
    pub kind: String,
    /// NotifyAccess=
    pub notify_access: String,
    /// KillMode=
    pub kill_mode: String,
    /// Restart=
    pub restart: String,
    /// RestartSec=
    pub restart_delay: Duration,
    /// TimeoutStopSec=; none without limit.
    pub timeout_stop: Option<Duration>,
    /// WatchdogSec=; none when it is off.
    pub watchdog: Option<Duration>,
    /// FileDescriptorStoreMax=
    pub fd_store: u64,
    /// OOMPolicy=
    pub oom_policy: String,
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
    /// Environment=
    pub environment: Vec<String>,
    /// Units that it orders itself after, wants or requires.
    pub wants: Vec<String>,
    /// The program of ExecStart=.
    pub program: Option<PathBuf>,
    /// Automatic restarts since the last start by hand.
    pub restarts: u64,
    /// Its main process; 0 for none.
    pub main_pid: u32,
    /// Whether a socket unit holds its listeners.
    pub socket: bool,
    /// User=
    pub user: String,
    /// What the service says of itself.
    pub status: String,
}

impl Says {
    /// Whether it is up.
    pub fn is_active(&self) -> bool {
        matches!(self.active.as_str(), "active" | "reloading")
    }
}

/// A unit's file or a drop-in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFile {
    pub path: PathBuf,
    pub lines: Vec<Setting>,
    /// Permission bits.
    pub mode: u32,
}

/// A line of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setting {
    pub number: usize,
    /// Before the `=`.
    pub key: String,
    pub value: String,
}

/// A file of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    pub path: PathBuf,
    /// Whether it may be missing.
    pub optional: bool,
    /// Permission bits; none where it is missing.
    pub mode: Option<u32>,
    /// Whether it sets a variable that is secret.
    pub secret: bool,
    /// Whether it and its folder are root's, or the caller's, and no link: nobody else chose what
    /// it leads to.
    pub ours: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Configuration {
    /// Where it is, or would be.
    pub path: PathBuf,
    /// Permission bits, owner and group; none where there is no file.
    pub access: Option<(u32, u32, u32)>,
    /// What it says; the defaults where there is none. None where it is not valid or cannot be
    /// read.
    pub valid: Option<Config>,
    /// Why it is not valid.
    pub invalid: Option<String>,
    /// Names of keys that hold secrets.
    pub secrets: Vec<String>,
    /// Whether it is not the one that the running gateway serves; none where that cannot be known.
    pub unapplied: Option<bool>,
    /// Sidecars whose program is not there: name and program.
    pub missing: Vec<(String, String)>,
    /// Folders of `cwd` that are not there: name of the sidecar and folder.
    pub no_folder: Vec<(String, PathBuf)>,
    /// Folders of a configured PATH that are not there: name of the sidecar and folder.
    pub no_path: Vec<(String, PathBuf)>,
}

impl Configuration {
    /// What it says, or the defaults.
    pub fn get(&self) -> Config {
        self.valid.clone().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default)]
pub struct State {
    pub dir: PathBuf,
    pub uid: u32,
    /// Permission bits.
    pub mode: u32,
    /// The type of its file system, where it is one that loses or does not lock.
    pub poor_file_system: Option<String>,
    /// Free bytes and inodes in percent.
    pub free: Option<(u64, u64)>,
    /// The record of the owner.
    pub owner: Option<Owner>,
    /// Whether the process of that record lives; none where that cannot be known.
    pub owner_lives: Option<bool>,
    /// Files that were set aside because they could not be understood.
    pub aside: Vec<PathBuf>,
    /// An announcement of a restart, and how old it is.
    pub intent: Option<(PathBuf, Duration)>,
    /// Predecessors that live past their time: process, and how long.
    pub overdue: Vec<(u32, Duration)>,
    /// Diagnostics bundles of the last day, the newest first.
    pub bundles: Vec<PathBuf>,
    /// The process that holds the lock, where it is no gateway.
    pub lock_holder: Option<(u32, String)>,
}

#[derive(Clone, Debug, Default)]
pub struct Process {
    pub pid: u32,
    pub program: PathBuf,
    /// Whether the file of its program was replaced or removed.
    pub replaced: bool,
    pub environment: BTreeMap<String, String>,
    /// Descriptors in use and their limit.
    pub fds: Option<(u64, u64)>,
    /// How long it lives.
    pub age: Duration,
}

/// An address and who holds it.
#[derive(Clone, Debug)]
pub struct Port {
    pub listen: Listen,
    /// Processes that listen there and do not belong to this gateway.
    pub strangers: Vec<Stranger>,
}

/// A process that holds an address of ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stranger {
    /// Its number; 0 where it is hidden.
    pub pid: u32,
    pub name: String,
    pub uid: u32,
    /// Its service, where it has one.
    pub unit: Option<String>,
    /// Whether it is a gateway.
    pub is_gateway: bool,
}

/// Another gateway of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    pub instance: String,
    pub unit: String,
    /// Where its unit lies.
    pub path: PathBuf,
    /// Whose manager runs it.
    pub scope: Scope,
    pub listen: Vec<Listen>,
}

#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// net.core.somaxconn
    pub somaxconn: Option<u64>,
    /// net.ipv4.ip_local_port_range
    pub ephemeral: Option<(u16, u16)>,
    /// net.ipv4.ip_local_reserved_ports
    pub reserved: String,
    /// Whether the journal survives a boot; none where there is no journal.
    pub journal_kept: Option<bool>,
    /// Why no file can be watched, where none can.
    pub inotify: Option<String>,
}

/// Whether a path lies where files go by themselves, or in a folder of builds.
pub fn is_passing(path: &Path) -> bool {
    let root = ["/tmp", "/var/tmp", "/dev/shm", "/run/user"]
        .iter()
        .any(|root| path.starts_with(root));
    let text = path.to_string_lossy();
    root || text.contains("/target/debug/") || text.contains("/target/release/")
}
