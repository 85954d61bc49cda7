//! The home of a gateway under measure: a directory of its own with configuration and state, and an
//! environment in which nothing of the user's is.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::case::BenchCase;
use crate::os::port;

/// What a program needs to run; all else could make one machine's figures differ from another's.
const KEPT: [&str; 4] = ["PATH", "LANG", "SHELL", "LOGNAME"];

/// What switches the traces on, and says that nobody supervises it, wherever the benchmark runs.
const SET: [(&str, &str); 4] = [
    ("GATEWAY_RESTART_TRACE", "1"),
    ("GATEWAY_STARTUP_TRACE", "1"),
    ("GATEWAY_SUPERVISOR", "none"),
    ("NO_COLOR", "1"),
];

#[derive(Debug)]
pub struct BenchHome {
    dir: TempDir,
    /// Where the gateway listens.
    pub port: u16,
    /// Where the server listens that stands by itself.
    pub server_port: Option<u16>,
}

impl BenchHome {
    /// Makes a home for a gateway of this case, whose servers are the program `own`.
    ///
    /// # Errors
    /// When there is no port, or the files cannot be written.
    pub fn make(case: BenchCase, own: &Path) -> io::Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("gateway-bench-")
            .tempdir()?;
        let server_port = case.has_server().then(port::private).transpose()?;
        let mut front = port::private()?;
        while Some(front) == server_port {
            front = port::private()?;
        }
        let home = Self {
            dir,
            port: front,
            server_port,
        };
        let text = case.configuration(own, front, server_port);
        fs::write(home.config(), text)?;
        Ok(home)
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// The command that runs a gateway here.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        let kept = KEPT.map(|name| (name, std::env::var_os(name)));
        let kept = kept
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)));
        let set = SET.map(|(name, value)| (name, OsString::from(value)));
        command
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .arg("--state-dir")
            .arg(self.state())
            .env_clear()
            .envs(kept)
            .envs(set)
            .env("HOME", self.dir.path())
            .env("TMPDIR", self.dir.path())
            .current_dir(self.dir.path());
        command
    }

    /// Removes it.
    ///
    /// # Errors
    /// When something of it stays.
    pub fn remove(self) -> io::Result<()> {
        self.dir.close()
    }
}
