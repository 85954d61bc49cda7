//! How the process of a running gateway was started, and what its flags and variables make of its
//! configuration. It is shown, or tried with this user's own rights: never with greater ones.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::args::GatewayCli;
use crate::config::{self, ConfigError, Env, Loaded, Overrides};
use crate::control::client::SocketPeer;
use crate::control::protocol::Status;
use crate::os::process::{self, ProcessKey};

/// Arguments, environment and directory of a process.
#[derive(Debug)]
pub struct CommandStart {
    /// Its arguments, the program's name first.
    pub line: Vec<OsString>,
    pub environment: HashMap<OsString, OsString>,
    pub cwd: PathBuf,
}

impl CommandStart {
    /// Those of this gateway process; none where they cannot be known here.
    pub fn of(gateway: ProcessKey) -> Option<Self> {
        let process = PathBuf::from(format!("/proc/{}", gateway.pid));
        if !process::program(gateway.pid)?
            .file_name()?
            .as_bytes()
            .starts_with(b"gateway")
        {
            return None;
        }
        let start = Self {
            line: process::command_line(gateway.pid)?,
            environment: process::environment(gateway.pid)?.into_iter().collect(),
            cwd: std::fs::read_link(process.join("cwd")).ok()?,
        };
        // Else this may be of another process, which has its pid now.
        gateway.lives().then_some(start)
    }
}

/// Flags and environment of a gateway that this user started by hand.
#[derive(Debug)]
pub struct ProcessStart {
    pub flags: Overrides,
    environment: HashMap<OsString, OsString>,
    /// Relative paths of the configuration begin there.
    pub cwd: PathBuf,
}

impl ProcessStart {
    /// Those of the process that answers with this status; none where they cannot be known here.
    pub fn of_gateway(peer: SocketPeer, status: &Status) -> Option<Self> {
        let start = CommandStart::of(peer.process?)?;
        let mut flags = GatewayCli::read(start.line).ok()?.overrides();
        flags.instance = Some(status.instance.clone());
        if let Some(file) = &status.config {
            flags.config = Some(start.cwd.join(file));
        }
        Some(Self {
            flags,
            environment: start.environment,
            cwd: start.cwd,
        })
    }

    /// The configuration as the gateway would read it now.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        self.in_its_environment(|env| config::load(&self.flags, env))
    }

    /// What `of` says with the gateway's variables.
    pub fn in_its_environment<T>(&self, of: impl FnOnce(&Env<'_>) -> T) -> T {
        let variable = |name: &str| self.environment.get(OsStr::new(name)).cloned();
        of(&Env(&variable))
    }
}
