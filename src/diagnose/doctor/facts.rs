//! Facts about a gateway and its machine, gathered once. A check sees nothing else.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::unit_facts::{InstalledUnit, UnitProperties};
use crate::config::{Config, Listen};
use crate::control::protocol::Status;
use crate::service::{Installed, JobSurvey, Rights};
use crate::state::owner::Owner;
use crate::state::paths::Scope;
use crate::systemd::words::LoadState;
use crate::text::redact::Redactor;

#[derive(Clone, Debug, Default)]
pub struct DoctorFacts {
    pub instance: String,
    /// The flags that select the gateway, with a leading blank.
    pub flags: String,
    /// The name of the caller.
    pub user: String,
    /// Those of the caller.
    pub rights: Rights,
    /// The service, where it is installed.
    pub unit: Option<InstalledUnit>,
    /// The job, where it is installed under launchd.
    pub job: Option<InstalledJob>,
    pub config: ConfigFile,
    pub server_files: ServerFiles,
    pub state_dir: Option<StateDir>,
    /// What the gateway reports, where it answers.
    pub status: Option<Status>,
    /// Set where it takes connections at its control socket, but does not answer there.
    pub silent: Option<SilentGateway>,
    /// The control socket at which it answers.
    pub control: Option<PathBuf>,
    /// Its process, where the caller may look at it.
    pub process: Option<RunningProcess>,
    /// The addresses of the configuration and of the running gateway.
    pub addresses: Vec<FrontAddress>,
    pub other_gateways: Vec<OtherGateway>,
    pub machine: MachineFacts,
    /// What could not be looked at, and why.
    pub unseen: Vec<String>,
}

impl DoctorFacts {
    /// The unit and what its manager reports, where systemd has loaded it.
    pub fn loaded_unit(&self) -> Option<(&InstalledUnit, &UnitProperties)> {
        let unit = self.unit.as_ref()?;
        (unit.properties.load == LoadState::Loaded).then_some((unit, &unit.properties))
    }

    /// The main process of the service.
    pub fn main_pid(&self) -> Option<u32> {
        Some(self.unit.as_ref()?.properties.main_pid).filter(|pid| *pid != 0)
    }

    /// A redactor that knows every secret of the configuration and of the unit.
    pub fn redactor(&self) -> Redactor {
        let redactor = self.config.get().redactor();
        for pair in self
            .unit
            .iter()
            .flat_map(|unit| &unit.properties.environment)
        {
            if let Some((key, value)) = pair.split_once('=') {
                redactor.learn_env(key, value);
            }
        }
        redactor
    }
}

/// A job of launchd.
#[derive(Clone, Debug)]
pub struct InstalledJob {
    pub installed: Installed,
    /// Whom its file belongs to, and who may change it.
    pub file: Option<FileAccess>,
    /// Who must be its owner.
    pub owner: u32,
    /// What it says and what launchd says, or why launchd cannot be asked.
    pub survey: Result<JobSurvey, String>,
    /// The directories of the owner that macOS lets no job into.
    pub protected: Vec<PathBuf>,
}

impl InstalledJob {
    /// Its file, for a finding.
    pub fn place(&self) -> String {
        self.installed.path.display().to_string()
    }

    pub fn survey(&self) -> Option<&JobSurvey> {
        self.survey.as_ref().ok()
    }
}

#[derive(Clone, Debug, Default)]
pub struct ConfigFile {
    /// Where it is, or would be.
    pub path: PathBuf,
    /// None where there is no file.
    pub access: Option<FileAccess>,
    /// The defaults where there is no file; none where it is invalid or cannot be read.
    pub valid: Option<Config>,
    /// Why it is invalid.
    pub invalid: Option<String>,
    /// The keys that hold secrets.
    pub secrets: Vec<String>,
    /// Whether the running gateway uses another version of the file; none where that is not known.
    pub unapplied: Option<bool>,
    /// Sidecars whose program does not exist: sidecar and program.
    pub missing_programs: Vec<(String, String)>,
    /// Sidecars whose `cwd` does not exist: sidecar and directory.
    pub missing_cwd: Vec<(String, PathBuf)>,
    /// Directories of a configured PATH that do not exist: sidecar and directory.
    pub missing_path: Vec<(String, PathBuf)>,
}

impl ConfigFile {
    /// The configuration, or the defaults where it is not valid.
    pub fn get(&self) -> Config {
        self.valid.clone().unwrap_or_default()
    }
}

/// What the service's user may do with the files of its servers.
#[derive(Clone, Debug, Default)]
pub struct ServerFiles {
    /// Sidecars whose file of variables cannot be used, and why.
    pub bad_env_files: Vec<(String, String)>,
    /// Sidecars that cannot write to their working directory.
    pub read_only_cwds: Vec<(String, PathBuf)>,
}

/// Who may access a file.
#[derive(Clone, Copy, Debug)]
pub struct FileAccess {
    /// Permission bits.
    pub mode: u32,
    pub owner: u32,
    pub group: u32,
}

impl FileAccess {
    /// Whether a user may read the file; root may read every file.
    pub fn lets_read(self, uid: u32, gid: Option<u32>) -> bool {
        let bit = if uid == self.owner {
            0o400
        } else if gid == Some(self.group) {
            0o040
        } else {
            0o004
        };
        uid == 0 || self.mode & bit != 0
    }
}

#[derive(Clone, Debug, Default)]
pub struct StateDir {
    pub dir: PathBuf,
    pub uid: u32,
    /// The user of the gateway that it is for: files are removed only while it belongs to this one.
    pub keeper: u32,
    /// Permission bits.
    pub mode: u32,
    /// The type of its file system, where that loses files or locks.
    pub poor_file_system: Option<String>,
    /// Free bytes and inodes in percent.
    pub free: Option<(u64, u64)>,
    pub owner: Option<Owner>,
    /// Whether the process of the owner record lives; none where that is not known.
    pub owner_lives: Option<bool>,
    /// Damaged files that were set aside.
    pub set_aside: Vec<PathBuf>,
    /// A restart intent and its age.
    pub intent: Option<(PathBuf, Duration)>,
    /// Old gateway processes past their drain time: pid, and since when.
    pub overdue: Vec<(u32, Duration)>,
    /// Diagnostics bundles of the last day, the newest first.
    pub bundles: Vec<PathBuf>,
    /// The process that holds the lock, where it is not a gateway: pid and name.
    pub lock_holder: Option<(u32, String)>,
}

/// A gateway that is suspended or stuck.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SilentGateway {
    pub pid: u32,
    /// Why it gives no answer.
    pub message: String,
    /// What makes it answer again.
    pub next: String,
}

#[derive(Clone, Debug, Default)]
pub struct RunningProcess {
    pub pid: u32,
    pub program: PathBuf,
    /// Whether the file of its program was replaced or removed.
    pub replaced: bool,
    pub environment: BTreeMap<String, String>,
    /// Descriptors in use and their limit.
    pub descriptors: Option<(u64, u64)>,
    /// Time since its start.
    pub age: Duration,
}

/// An address of the front door.
#[derive(Clone, Debug)]
pub struct FrontAddress {
    pub listen: Listen,
    /// Processes that listen there and do not belong to this gateway.
    pub others: Vec<AddressHolder>,
}

/// A process that listens at an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressHolder {
    /// 0 where it is hidden from the caller.
    pub pid: u32,
    pub name: String,
    pub uid: u32,
    /// Its service, where it has one.
    pub unit: Option<String>,
    pub is_gateway: bool,
}

/// Another gateway that is installed on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherGateway {
    pub instance: String,
    /// Where its unit file is.
    pub path: PathBuf,
    pub scope: Scope,
    pub listen: Vec<Listen>,
}

#[derive(Clone, Debug, Default)]
pub struct MachineFacts {
    /// net.core.somaxconn
    pub somaxconn: Option<u64>,
    /// net.ipv4.ip_local_port_range
    pub ephemeral_ports: Option<(u16, u16)>,
    /// net.ipv4.ip_local_reserved_ports
    pub reserved_ports: String,
    /// Whether the journal survives a boot; none where there is no journal.
    pub journal_kept: Option<bool>,
    /// Why no file can be watched, where none can.
    pub inotify: Option<String>,
}

/// Whether a path is in a directory that is cleaned up at boot or by age, or in a build directory.
pub fn is_temporary(path: &Path) -> bool {
    let cleaned = ["/tmp", "/var/tmp", "/dev/shm", "/run/user"]
        .iter()
        .any(|dir| path.starts_with(dir));
    let text = path.to_string_lossy();
    cleaned || text.contains("/target/debug/") || text.contains("/target/release/")
}
