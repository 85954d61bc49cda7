//! The text of the units. Pure: what is known goes in, text comes out. `units/` holds what the
//! defaults give.

use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::sandbox::Sandbox;
use crate::config::unit_quoting;
use crate::config::{DEFAULT_INSTANCE, DEFAULT_PORT, EnvFilePlaces, Listen};
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

impl RunAs {
    /// The user of a system unit that install wrote; none for a unit of a user.
    pub fn of_unit(text: &str) -> Option<Self> {
        let user = |line: &str| {
            line.strip_prefix("User=")
                .map(|name| name.replace("%%", "%"))
        };
        match text.lines().find_map(user) {
            Some(name) => Some(Self::User(name)),
            None => (text.lines().any(|line| line == "DynamicUser=yes")).then_some(Self::Dynamic),
        }
    }
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
    /// The directory of `gateway` and `gatewayctl`.
    pub bin_dir: PathBuf,
    /// Which user it runs as; without meaning in user scope.
    pub run_as: RunAs,
    /// A file of variables for all servers.
    pub env_file: Option<PathBuf>,
    /// Files of variables that the service's user may not read, each with the server that it is for:
    /// systemd passes them on.
    pub credentials: Vec<(String, PathBuf)>,
    /// Another one, of our own: what it says wins.
    pub secrets: Option<PathBuf>,
    /// What the service may write to though its sandbox would not let it.
    pub writable: Vec<PathBuf>,
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
            credentials: Vec::new(),
            secrets: None,
            writable: Vec::new(),
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
    pub fn service(&self) -> Result<String, UnitTextError> {
        let name = self.subject.name();
        let mut out = UnitText::default();
        self.dependencies(&mut out);

        out.section("Service");
        // Not notify-reload at any version: with it `systemctl reload` succeeds as soon as READY=1
        // comes, and READY=1 must come after a failed reload too. A synchronous ExecReload= is the
        // only way for a failed reload to fail; and notify-reload would send its SIGHUP besides, so
        // that every reload ran twice.
        out.line("Type", "notify");
        out.line("NotifyAccess", "main");
        out.line(
            "ExecStart",
            self.exec("gateway", &["run", "--instance", name])?,
        );
        // A user may have an instance of the same name besides the machine's.
        let scope = format!("--{}", self.scope);
        let reload = [&scope, "--instance", name, "reload"];
        out.line("ExecReload", self.exec("gatewayctl", &reload)?);
        self.environment(&mut out)?;
        self.identity(&mut out);
        self.supervision(&mut out);
        self.directories(&mut out);
        self.walls(&mut out);
        self.openings(&mut out)?;

        out.section("Install");
        if !self.sockets.is_empty() {
            out.line("Also", self.socket_name());
        }
        let target = match self.scope {
            Scope::System => "multi-user.target",
            Scope::User => "default.target",
        };
        out.line("WantedBy", target);
        Ok(out.0)
    }

    fn dependencies(&self, out: &mut UnitText) {
        let name = self.subject.name();
        out.section("Unit");
        out.line(
            "Description",
            format_args!("Restart-safe front door ({name})"),
        );
        if self.scope == Scope::System {
            // Specific addresses and most servers need the network; a user's manager cannot order
            // itself after it.
            out.line("Wants", "network-online.target");
            // At shutdown the order is reversed: the bus is still there while the gateway asks
            // whether the machine goes down.
            out.line("After", "network-online.target dbus.service");
        }
        if !self.sockets.is_empty() {
            out.line("Requires", self.socket_name());
            out.line("After", self.socket_name());
        }
        // systemd's start limit would end with a closed port; the gateway slows itself down with
        // the port open.
        out.line("StartLimitIntervalSec", "0");
    }

    /// The unit of the proof run: the same service, started once to its end with `gateway check
    /// --start`.
    ///
    /// It has directories of its own, so that it never touches those of a running instance, and
    /// writes what it says to `log`.
    pub fn proof(&self, log: &Path, limit: Duration) -> Result<String, UnitTextError> {
        let instance = self.subject.name();
        let mut out = UnitText::default();
        out.section("Unit");
        out.line(
            "Description",
            format_args!("Proof run of the gateway's command ({instance})"),
        );
        out.section("Service");
        out.line("Type", "oneshot");
        let check = ["check", "--start", "--instance", instance];
        out.line("ExecStart", self.exec("gateway", &check)?);
        self.environment(&mut out)?;
        self.identity(&mut out);
        out.line("TimeoutStartSec", limit.as_secs());
        out.line("KillMode", "mixed");
        out.line("LimitNOFILE", NOFILE);
        out.line("ConfigurationDirectory", "gateway");
        out.line("RuntimeDirectory", format_args!("gateway-proof-{instance}"));
        out.line(
            "Environment",
            format_args!("STATE_DIRECTORY=%t/gateway-proof-{instance}"),
        );
        out.line(
            "StandardOutput",
            format_args!("file:{}", unit_quoting::whole(&text(log)?)),
        );
        out.line("StandardError", "inherit");
        self.walls(&mut out);
        self.openings(&mut out)?;
        Ok(out.0)
    }

    /// The socket unit.
    pub fn socket(&self) -> Result<String, UnitTextError> {
        let name = self.subject.name();
        let mut out = UnitText::default();
        out.section("Unit");
        out.line(
            "Description",
            format_args!("Sockets of the restart-safe front door ({name})"),
        );
        out.section("Socket");
        for listen in &self.sockets {
            let address = match listen {
                Listen::Tcp(address) => address.to_string(),
                Listen::Unix(path) => unit_quoting::whole(&text(path)?),
            };
            out.line("ListenStream", address);
        }
        let is_unix = |listen: &Listen| matches!(listen, Listen::Unix(_));
        if self.sockets.iter().any(is_unix) {
            out.line("RemoveOnStop", "yes");
        }
        // The machine may get an address later: DHCP, a VPN.
        out.line("FreeBind", "yes");
        // More than 20 starts in 2 s would make systemd close the sockets for good.
        out.line("TriggerLimitIntervalSec", "0");
        out.section("Install");
        out.line("WantedBy", "sockets.target");
        Ok(out.0)
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

    fn environment(&self, out: &mut UnitText) -> Result<(), UnitTextError> {
        for file in self.env_file.iter().chain(&self.secrets) {
            out.line("EnvironmentFile", unit_quoting::whole(&text(file)?));
        }
        for (sidecar, file) in &self.credentials {
            let name = EnvFilePlaces::credential(sidecar);
            let file = unit_quoting::whole(&text(file)?);
            out.line("LoadCredential", format_args!("{name}:{file}"));
        }
        Ok(())
    }

    fn identity(&self, out: &mut UnitText) {
        if self.scope == Scope::User {
            return;
        }
        match &self.run_as {
            // The sandbox `strict` says DynamicUser= itself.
            RunAs::Dynamic if self.sandbox != Sandbox::Strict => out.line("DynamicUser", "yes"),
            RunAs::Dynamic => {}
            RunAs::User(name) => out.line("User", unit_quoting::whole(name)),
        }
    }

    fn supervision(&self, out: &mut UnitText) {
        out.line("Restart", "always");
        out.line("RestartSec", "100ms");
        if self.systemd >= 254 {
            // A gateway that dies again and again comes back at ever longer intervals, but always
            // within two seconds: clients wait in the queue of the listener meanwhile, and systemd
            // never resets this count by itself.
            out.line("RestartSteps", "10");
            out.line("RestartMaxDelaySec", "2s");
        }
        out.line("RestartPreventExitStatus", "78");
        out.line("WatchdogSec", "30");
        out.line("TimeoutStartSec", "90");
        out.line("TimeoutStopSec", "30");
        out.line("KillMode", "mixed");
        if self.systemd >= 243 {
            out.line("OOMPolicy", "continue");
        }
        out.line("LimitNOFILE", NOFILE);
        out.line("FileDescriptorStoreMax", "64");
    }

    fn directories(&self, out: &mut UnitText) {
        let own = format!("gateway/{}", self.subject.name());
        out.line("ConfigurationDirectory", "gateway");
        out.line("StateDirectory", &own);
        out.line("StateDirectoryMode", "0700");
        out.line("RuntimeDirectory", own);
        // Without this the path of a unix listener is gone after every restart.
        out.line("RuntimeDirectoryPreserve", "restart");
    }

    fn walls(&self, out: &mut UnitText) {
        if self.sandbox == Sandbox::Off {
            if self.low_port && self.scope == Scope::System {
                out.line("AmbientCapabilities", "CAP_NET_BIND_SERVICE");
            }
            return;
        }
        if self.scope == Scope::System && self.low_port {
            out.line("CapabilityBoundingSet", "CAP_NET_BIND_SERVICE");
            out.line("AmbientCapabilities", "CAP_NET_BIND_SERVICE");
        } else if self.scope == Scope::System {
            out.line("CapabilityBoundingSet", "");
        }
        for (key, value, since) in self.sandbox.lines(self.scope) {
            if self.systemd >= since {
                out.line(key, value);
            }
        }
    }
}

impl UnitPlan {
    /// Whether it has its own view of the file systems, with parts that are read-only.
    pub fn has_walls(&self) -> bool {
        self.scope == Scope::System && (self.sandbox != Sandbox::Off || self.is_dynamic())
    }

    fn openings(&self, out: &mut UnitText) -> Result<(), UnitTextError> {
        for path in self.writable.iter().filter(|_| self.has_walls()) {
            // The service starts without it, too: what is gone may come back.
            let path = format!("-{}", text(path)?);
            out.line(WRITABLE, unit_quoting::word(&path));
        }
        Ok(())
    }
}

const WRITABLE: &str = "ReadWritePaths";

/// What a unit that install wrote may write to.
pub fn writable_of_unit(text: &str) -> Vec<PathBuf> {
    let values = text
        .lines()
        .filter_map(|line| line.strip_prefix(WRITABLE)?.strip_prefix('='));
    let words = values.map(unit_quoting::read_word);
    words
        .filter_map(|word| Some(word.strip_prefix('-')?.into()))
        .collect()
}

/// The text of a unit while it is written.
#[derive(Default)]
struct UnitText(String);

impl UnitText {
    fn section(&mut self, name: &str) {
        let gap = if self.0.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.0, "{gap}[{name}]");
    }

    fn line(&mut self, key: &str, value: impl Display) {
        let _ = writeln!(self.0, "{key}={value}");
    }
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
