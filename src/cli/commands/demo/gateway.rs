//! The gateway of the demo: a process of its own on a private port of loopback, with its files in a
//! temporary directory, which ends with this command.

use std::fs::{self, File};
use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::cli::target::Target;
use crate::cli::{CliError, Exit};
use crate::config::{DEFAULT_INSTANCE, regular_file};
use crate::control::protocol::{Method, Outcome, RestartParams, Stage};
use crate::os::child::ends_with_parent;
use crate::os::port;
use crate::os::process::PidFd;
use crate::state::paths::Paths;
use crate::supervisor::HINTS;

/// How long its server may take to start: a second, on a busy machine some.
const STARTS: Duration = Duration::from_secs(30);

/// How often it is asked whether it is ready: nothing tells another process.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// How long its orderly end may take: its work ends within a second.
const ENDS: Duration = Duration::from_secs(10);

/// Half a minute of it has some kilobytes.
const LOG_MAX: u64 = 1024 * 1024;

/// How many of the last lines of its log an error shows.
const LINES: usize = 8;

pub struct DemoGateway {
    pub port: u16,
    dir: TempDir,
    child: Child,
    process: PidFd,
    target: Target,
}

/// A restart that is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DemoRestart {
    /// Old and new run side by side.
    Server,
    /// The gateway's own process is replaced, with all sockets.
    Gateway,
    /// Two copies must not run: requests wait.
    Exclusive,
}

impl DemoRestart {
    pub const ALL: [Self; 3] = [Self::Server, Self::Gateway, Self::Exclusive];

    /// For programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "restart",
            Self::Gateway => "restart --fresh",
            Self::Exclusive => "restart of an exclusive server",
        }
    }

    /// For people.
    pub fn announcement(self) -> &'static str {
        match self {
            Self::Server => {
                "gatewayctl restart: a new copy of the server starts beside the old one"
            }
            Self::Gateway => {
                "gatewayctl restart --fresh: the gateway itself is replaced, and the server with it"
            }
            Self::Exclusive => {
                "a restart with --exclusive: the old server ends first, and requests wait for the new one"
            }
        }
    }
}

impl DemoGateway {
    /// Starts it; it is not ready yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start() -> io::Result<Self> {
        let own = std::env::current_exe()?;
        let dir = tempfile::Builder::new().prefix("gateway-demo-").tempdir()?;
        let port = port::private()?;
        let (config, state) = (dir.path().join("gateway.toml"), dir.path().join("state"));
        fs::write(&config, configuration(&own, port, false)?)?;
        let log = File::create(dir.path().join("log"))?;
        let mut command = Command::new(own.with_file_name("gateway"));
        command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--state-dir")
            .arg(&state)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        // It is nobody's service, wherever this command runs.
        for (name, _) in std::env::vars_os() {
            let ours = name.to_str();
            if ours.is_some_and(|name| name.starts_with("GATEWAY_") || HINTS.contains(&name)) {
                command.env_remove(name);
            }
        }
        let child = ends_with_parent(&mut command).spawn()?;
        let process = PidFd::open(child.id())?;
        let control = Paths::in_state_dir(&state).control;
        Ok(Self {
            port,
            dir,
            child,
            process,
            target: Target::at(DEFAULT_INSTANCE, control),
        })
    }

    /// Waits until its server serves.
    ///
    /// # Errors
    /// [`Exit::Failed`] when it ends, or takes too long.
    pub async fn until_ready(&self) -> Result<(), CliError> {
        let ready = async {
            while !matches!(self.target.status().await, Ok(status) if status.stage == Stage::Ready)
            {
                sleep(ASK_EVERY).await;
            }
        };
        tokio::select! {
            ready = timeout(STARTS, ready) => ready.map_err(|_| {
                let limit = STARTS.as_secs();
                Exit::Failed.error(format!("the gateway of the demo is not ready after {limit} s"))
            }),
            () = self.process_ended() => {
                Err(Exit::Failed.error("the gateway of the demo ended before it was ready"))
            }
        }
    }

    async fn process_ended(&self) {
        self.process.ended().wait().await;
    }

    /// Restarts, and says which process became which.
    ///
    /// # Errors
    /// What the gateway refuses or fails to do.
    pub async fn restart(&self, restart: DemoRestart) -> Result<String, CliError> {
        let method = match restart {
            DemoRestart::Server => Method::Restart(RestartParams::default()),
            DemoRestart::Gateway => Method::Restart(RestartParams {
                fresh: true,
                ..RestartParams::default()
            }),
            DemoRestart::Exclusive => {
                let failed = |error: io::Error| Exit::Failed.error(error.to_string());
                let own = std::env::current_exe().map_err(failed)?;
                let text = configuration(&own, self.port, true).map_err(failed)?;
                fs::write(self.dir.path().join("gateway.toml"), text).map_err(failed)?;
                Method::Reload
            }
        };
        let (mut client, before) = self.target.connect_and_ask().await?;
        let called = self.target.call(&mut client, &method, |_| ()).await;
        let outcome: Outcome = called.map_err(|error| self.target.call_failed(error))?;
        let server = |info: &[(String, u32)]| info.first().map_or(0, |(_, pid)| *pid);
        let servers = format!(
            "server pid {} -> {}",
            server(&outcome.before.sidecars),
            server(&outcome.after.sidecars)
        );
        Ok(match outcome.pid {
            Some(pid) => format!("gateway pid {} -> {pid}, {servers}", before.pid),
            None => servers,
        })
    }

    /// What it logged last.
    pub fn last_lines(&self) -> Vec<String> {
        let log = self.dir.path().join("log");
        let text = regular_file::read_text(&log, LOG_MAX).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(LINES)..];
        last.iter().map(|line| (*line).to_owned()).collect()
    }

    /// Ends it, with its server, and removes its files.
    pub async fn end(&mut self) {
        // What fails here has ended.
        let _ = self.process.signal(Signal::SIGTERM);
        if timeout(ENDS, self.process_ended()).await.is_err() {
            let _ = self.process.signal(Signal::SIGKILL);
        }
        let _ = self.child.wait();
    }
}

/// The configuration: one server, this program.
fn configuration(own: &std::path::Path, port: u16, exclusive: bool) -> io::Result<String> {
    let program = own.to_str().ok_or(io::ErrorKind::InvalidData)?;
    let command = ["demo", "--serve", "{port}"].map(str::to_owned);
    let command: Vec<String> = std::iter::once(program.to_owned()).chain(command).collect();
    let quoted = toml::Value::from(command);
    let overlap = if exclusive { "overlap = false\n" } else { "" };
    Ok(format!(
        "[gateway]\nlisten = [\"127.0.0.1:{port}\"]\n[sidecar.main]\ncommand = {quoted}\n{overlap}"
    ))
}
