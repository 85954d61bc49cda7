//! The text of the units. Pure: what is known goes in, text comes out. `units/` holds what the
//! defaults give.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::sandbox::Sandbox;
use super::unit_quoting;
use crate::config::{DEFAULT_INSTANCE, DEFAULT_PORT, Listen};
use crate::state::paths::Scope;

/// The oldest systemd that the text is made for when the version is not known: that of the oldest
/// supported Debian.
pub const OLDEST_SYSTEMD: u32 = 247;

/// The version that first knew the prefix `:` of a command line, which keeps `$` as it is.
const NO_REPLACEMENT: u32 = 244;

/// systemd's own default for the hard limit; the soft one carries 10,000 clients with an upstream
/// each, and room for files.
const NOFILE: &str = "1024:524288";

/// Which user the service runs as; only a system unit can choose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunAs {
    /// A temporary user that systemd allocates while the service runs (DynamicUser=).
    Dynamic,
    User(String),
}

/// Which instances a unit is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnitSubject {
    /// This one: `gateway.service` for `gateway`, `gateway@NAME.service` for the others.
    Instance(String),
    /// Any: `gateway@.service`.
    Template,
}

impl UnitSubject {
    /// The name to put into directives.
    fn name(&self) -> &str {
        match self {
            Self::Instance(name) => name,
            Self::Template => "%i",
        }
    }

    /// The unit's name without its type.
    pub fn stem(&self) -> String {
        match self {
            Self::Instance(name) if name == DEFAULT_INSTANCE => name.clone(),
            Self::Instance(name) => format!("{DEFAULT_INSTANCE}@{name}"),
            Self::Template => format!("{DEFAULT_INSTANCE}@"),
        }
    }
}

/// Everything that a unit says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnitPlan {
    /// Which instances it is for.
    pub subject: UnitSubject,
    /// Whose manager it is for.
    pub scope: Scope,
    /// What the service may do to the machine.
    pub sandbox: Sandbox,
    /// The folder of `gateway` and `gatewayctl`.
    pub bin_dir: PathBuf,
    /// Which user it runs as; without meaning in user scope.
    pub run_as: RunAs,
    /// A file of variables.
    pub env_file: Option<PathBuf>,
    /// Another one, of our own: what it says wins.
    pub secrets: Option<PathBuf>,
    /// What a socket unit listens on; empty for none.
    pub sockets: Vec<Listen>,
    /// Whether the gateway itself must bind a port that only root may bind.
    pub low_port: bool,
    /// The version of systemd.
    pub systemd: u32,
}

impl Default for UnitPlan {
    fn default() -> Self {
        Self {
            subject: UnitSubject::Instance(DEFAULT_INSTANCE.to_owned()),
            scope: Scope::System,
            sandbox: Sandbox::App,
            bin_dir: PathBuf::from("/usr/bin"),
            run_as: RunAs::Dynamic,
            env_file: None,
            secrets: None,
            sockets: Vec::new(),
            low_port: false,
            systemd: OLDEST_SYSTEMD,
        }
    }
}

/// A unit cannot say this.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("systemd cannot be told about `{path}`: it {why}")]
pub struct UnitTextError {
    path: String,
    why: &'static str,
}

impl UnitPlan {
    /// `gateway.service` or the like.
    pub fn service_name(&self) -> String {
        format!("{}.service", self.subject.stem())
    }

    /// `gateway.socket` or the like.
    pub fn socket_name(&self) -> String {
        format!("{}.socket", self.subject.stem())
    }

    /// Whether systemd makes up a user for it.
    pub fn is_dynamic(&self) -> bool {
        self.scope == Scope::System && self.run_as == RunAs::Dynamic
    }

    /// The service unit.
    ///
    /// # Errors
    /// [`UnitTextError`] when a path has a form that unit files cannot carry.
    pub fn service(&self) -> Result<String, UnitTextError> {
        let mut out = String::new();
        section(&mut out, "Unit");
        line(
            &mut out,
            "Description",
            &format!("Restart-safe front door ({})", self.subject.name()),
        );
        if self.scope == Scope::System {
            // Specific addresses and most servers need the network; a user's manager cannot order
            // itself after it.
            line(&mut out, "Wants", "network-online.target");
            // At shutdown the order is reversed: the bus is still there while the gateway asks
            // whether the machine goes down.
            line(&mut out, "After", "network-online.target dbus.service");
        }
        if !self.sockets.is_empty() {
            line(&mut out, "Requires", &self.socket_name());
            line(&mut out, "After", &self.socket_name());
        }
        // systemd's start limit would end with a closed port; the gateway slows itself down with
        // the port open.
        line(&mut out, "StartLimitIntervalSec", "0");

        section(&mut out, "Service");
        // Not notify-reload at any version: with it `systemctl reload` succeeds as soon as READY=1
        // comes, and READY=1 must come after a failed reload too. A synchronous ExecReload= is the
        // only way for a failed reload to fail; and notify-reload would send its SIGHUP besides, so
        // that every reload ran twice.
        line(&mut out, "Type", "notify");
        line(&mut out, "NotifyAccess", "main");
        line(
            &mut out,
            "ExecStart",
            &self.exec("gateway", &["run", "--instance", self.subject.name()])?,
        );
        line(
            &mut out,
            "ExecReload",
            &self.exec(
                "gatewayctl",
                &[
                    self.scope_flag(),
                    "--instance",
                    self.subject.name(),
                    "reload",
                ],
            )?,
        );
        self.environment(&mut out)?;
        self.identity(&mut out);
        self.life(&mut out);
        self.directories(&mut out);
        self.walls(&mut out);

        section(&mut out, "Install");
        if !self.sockets.is_empty() {
            line(&mut out, "Also", &self.socket_name());
        }
        line(&mut out, "WantedBy", self.wanted_by());
        Ok(out)
    }

    /// The unit of the proof run: the same service, started once to its end with `gateway check
    /// --start`.
    ///
    /// It has directories of its own, so that it never touches those of a running instance, and
    /// writes what it says to `log`.
    ///
    /// # Errors
    /// As [`service`](Self::service).
    pub fn proof(&self, log: &Path) -> Result<String, UnitTextError> {
        let instance = self.subject.name();
        let mut out = String::new();
        section(&mut out, "Unit");
        line(
            &mut out,
            "Description",
            &format!("Proof run of the gateway's command ({instance})"),
        );
        section(&mut out, "Service");
        line(&mut out, "Type", "oneshot");
        line(
            &mut out,
            "ExecStart",
            &self.exec("gateway", &["check", "--start", "--instance", instance])?,
        );
        self.environment(&mut out)?;
        self.identity(&mut out);
        line(&mut out, "TimeoutStartSec", "90");
        line(&mut out, "KillMode", "mixed");
        line(&mut out, "LimitNOFILE", NOFILE);
        line(&mut out, "ConfigurationDirectory", "gateway");
        line(
            &mut out,
            "RuntimeDirectory",
            &format!("gateway-proof-{instance}"),
        );
        line(
            &mut out,
            "Environment",
            &format!("STATE_DIRECTORY=%t/gateway-proof-{instance}"),
        );
        line(
            &mut out,
            "StandardOutput",
            &format!("file:{}", unit_quoting::whole(&text(log)?)),
        );
        line(&mut out, "StandardError", "inherit");
        self.walls(&mut out);
        Ok(out)
    }

    /// The socket unit.
    ///
    /// # Errors
    /// As [`service`](Self::service).
    pub fn socket(&self) -> Result<String, UnitTextError> {
        let mut out = String::new();
        section(&mut out, "Unit");
        line(
            &mut out,
            "Description",
            &format!(
                "Sockets of the restart-safe front door ({})",
                self.subject.name()
            ),
        );
        section(&mut out, "Socket");
        for listen in &self.sockets {
            let address = match listen {
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(path) => unit_quoting::whole(&text(path)?),
            };
            line(&mut out, "ListenStream", &address);
        }
        if self
            .sockets
            .iter()
            .any(|listen| matches!(listen, Listen::Unix(_)))
        {
            line(&mut out, "RemoveOnStop", "yes");
        }
        // More than 20 starts in 2 s would make systemd close the sockets for good.
        line(&mut out, "TriggerLimitIntervalSec", "0");
        section(&mut out, "Install");
        line(&mut out, "WantedBy", "sockets.target");
        Ok(out)
    }

    fn exec(&self, program: &str, args: &[&str]) -> Result<String, UnitTextError> {
        let path = text(&self.bin_dir.join(program))?;
        if path.contains(['"', '\'', '\\']) {
            // However it is written (systemd's string_is_safe(), tested on 252).
            return Err(UnitTextError {
                path,
                why: "has a quote or a backslash, and systemd starts no program with one in its path",
            });
        }
        if self.systemd < NO_REPLACEMENT && path.contains('$') {
            return Err(UnitTextError {
                path,
                why: "has a `$`, which systemd before version 244 would replace",
            });
        }
        let path = unit_quoting::program(&path);
        // The arguments are words of ours, instance names, and `%i`, which must stay as it is.
        Ok(format!("{path} {}", args.join(" ")))
    }

    fn environment(&self, out: &mut String) -> Result<(), UnitTextError> {
        for file in self.env_file.iter().chain(&self.secrets) {
            line(out, "EnvironmentFile", &unit_quoting::whole(&text(file)?));
        }
        Ok(())
    }

    fn identity(&self, out: &mut String) {
        if self.scope == Scope::User {
            return;
        }
        match &self.run_as {
            // The sandbox `strict` says DynamicUser= itself.
            RunAs::Dynamic if self.sandbox != Sandbox::Strict => line(out, "DynamicUser", "yes"),
            RunAs::Dynamic => {}
            RunAs::User(name) => line(out, "User", &unit_quoting::whole(name)),
        }
    }

    fn life(&self, out: &mut String) {
        line(out, "Restart", "always");
        line(out, "RestartSec", "100ms");
        if self.systemd >= 254 {
            // A gateway that dies again and again comes back at ever longer intervals, but always
            // within two seconds: clients wait in the queue of the listener meanwhile, and systemd
            // never resets this count by itself.
            line(out, "RestartSteps", "10");
            line(out, "RestartMaxDelaySec", "2s");
        }
        line(out, "RestartPreventExitStatus", "78");
        line(out, "WatchdogSec", "30");
        line(out, "TimeoutStartSec", "90");
        line(out, "TimeoutStopSec", "30");
        line(out, "KillMode", "mixed");
        if self.systemd >= 243 {
            line(out, "OOMPolicy", "continue");
        }
        line(out, "LimitNOFILE", NOFILE);
        line(out, "FileDescriptorStoreMax", "64");
    }

    fn directories(&self, out: &mut String) {
        let own = format!("gateway/{}", self.subject.name());
        line(out, "ConfigurationDirectory", "gateway");
        line(out, "StateDirectory", &own);
        line(out, "StateDirectoryMode", "0700");
        line(out, "RuntimeDirectory", &own);
        // Without this the path of a unix listener is gone after every restart.
        line(out, "RuntimeDirectoryPreserve", "restart");
    }

    fn walls(&self, out: &mut String) {
        if self.sandbox == Sandbox::Off {
            if self.low_port && self.scope == Scope::System {
                line(out, "AmbientCapabilities", "CAP_NET_BIND_SERVICE");
            }
            return;
        }
        if self.scope == Scope::System {
            let capability = if self.low_port {
                "CAP_NET_BIND_SERVICE"
            } else {
                ""
            };
            line(out, "CapabilityBoundingSet", capability);
            if self.low_port {
                line(out, "AmbientCapabilities", capability);
            }
        }
        for (key, value, since) in self.sandbox.lines(self.scope) {
            if self.systemd >= since {
                line(out, key, value);
            }
        }
    }

    /// A user may have an instance of the same name besides the machine's.
    fn scope_flag(&self) -> &'static str {
        match self.scope {
            Scope::System => "--system",
            Scope::User => "--user",
        }
    }

    fn wanted_by(&self) -> &'static str {
        match self.scope {
            Scope::System => "multi-user.target",
            Scope::User => "default.target",
        }
    }
}

fn section(out: &mut String, name: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    let _ = writeln!(out, "[{name}]");
}

fn line(out: &mut String, key: &str, value: &str) {
    let _ = writeln!(out, "{key}={value}");
}

/// A path as text that a unit file can carry.
fn text(path: &Path) -> Result<String, UnitTextError> {
    let Some(text) = path.to_str() else {
        return Err(UnitTextError {
            path: path.display().to_string(),
            why: "is not UTF-8",
        });
    };
    match unit_quoting::unfit(text) {
        Some(why) => Err(UnitTextError {
            path: text.to_owned(),
            why,
        }),
        None => Ok(text.to_owned()),
    }
}

/// The plan of `units/gateway.socket`: the default address.
pub fn default_socket() -> UnitPlan {
    UnitPlan {
        sockets: vec![Listen::Tcp(([127, 0, 0, 1], DEFAULT_PORT).into())],
        ..UnitPlan::default()
    }
}

#[cfg(test)]
mod tests;
