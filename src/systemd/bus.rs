//! The way to a service manager: the system's or the user's bus, or its private socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use zbus::Connection;
use zbus::connection::Builder;

use super::private::PrivateSocket;
use crate::config::Env;
use crate::state::paths::{Scope, is_foreign, runtime_dir};

/// No call takes long but a job, and those are awaited by their signal; libdbus waits 25 s, and so
/// does systemctl.
const CALL_LIMIT: Duration = Duration::from_secs(25);

/// Exists exactly where systemd is the init, as sd_booted(3) has it.
const BOOTED: &str = "/run/systemd/system";

/// The manager of a unit.
#[zbus::proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(crate) trait SystemdManager {
    /// Turns signals on for this connection.
    fn subscribe(&self) -> zbus::Result<()>;
    /// Reads all unit files anew.
    fn reload(&self) -> zbus::Result<()>;
    /// The unit whose control group holds a process.
    #[zbus(name = "GetUnitByPID")]
    fn get_unit_by_pid(&self, pid: u32) -> zbus::Result<zbus::OwnedObjectPath>;
    /// Loads a unit, whether its file exists or not.
    fn load_unit(&self, name: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn start_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn stop_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn restart_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    fn reload_unit(&self, name: &str, mode: &str) -> zbus::Result<zbus::OwnedObjectPath>;
    /// Starts a unit that has no file.
    fn start_transient_unit(
        &self,
        name: &str,
        mode: &str,
        properties: &[(&str, zbus::Variant<'_>)],
        aux: &[(&str, &[(&str, zbus::Variant<'_>)])],
    ) -> zbus::Result<zbus::OwnedObjectPath>;
    /// Forgets that the unit failed.
    fn reset_failed_unit(&self, name: &str) -> zbus::Result<()>;
    /// Makes the links of `[Install]`; with `force`, over links that lead elsewhere.
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<(String, String, String)>)>;
    fn disable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
    ) -> zbus::Result<Vec<(String, String, String)>>;
    /// enabled, disabled, static, …
    fn get_unit_file_state(&self, file: &str) -> zbus::Result<String>;
    /// The version, as in "252.39-1~deb12u2".
    #[zbus(property(emits_changed_signal = "false"))]
    fn version(&self) -> zbus::Result<String>;
    /// initializing, starting, running, degraded, maintenance, stopping.
    #[zbus(property(emits_changed_signal = "false"))]
    fn system_state(&self) -> zbus::Result<String>;
}

/// The properties of a unit or of a job.
pub(crate) async fn properties(
    connection: &Connection,
    path: zbus::OwnedObjectPath,
) -> zbus::Result<zbus::fdo::PropertiesProxy<'_>> {
    zbus::fdo::PropertiesProxy::builder(connection)
        .destination("org.freedesktop.systemd1")
        .path(path)
        .build()
        .await
}

/// What a job of the manager does: start, stop, restart, and others.
pub(crate) async fn job_type(
    connection: &Connection,
    job: zbus::OwnedObjectPath,
) -> zbus::Result<String> {
    let interface = zbus::names::InterfaceName::try_from("org.freedesktop.systemd1.Job")?;
    let kind = properties(connection, job)
        .await?
        .get(interface, "JobType")
        .await?;
    String::try_from(kind)
}

/// Logins, of which we need only lingering.
#[zbus::proxy(
    interface = "org.freedesktop.login1.Manager",
    default_service = "org.freedesktop.login1",
    default_path = "/org/freedesktop/login1"
)]
pub(crate) trait Login {
    /// Keeps a user's manager up without a session; `interactive` may ask for a password.
    fn set_user_linger(&self, uid: u32, enable: bool, interactive: bool) -> zbus::Result<()>;
}

/// Why no manager answers.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unreachable {
    /// The machine was not booted by systemd.
    #[error("this machine does not run systemd: its first process is `{init}`")]
    NotBooted {
        /// The name of process 1.
        init: String,
    },
    /// There is one, but no way to it.
    #[error("{}", tried.join("; "))]
    NoAnswer {
        /// Every way, and how it ended.
        tried: Vec<String>,
    },
}

/// Connects to the manager of a scope: over the bus, or without one over the manager's private
/// socket, which only root (or the user of a user's manager) may use. A bus without a manager on
/// it, as dbus-launch makes, does not count.
pub(crate) async fn connect(scope: Scope, env: &Env<'_>) -> Result<Connection, Unreachable> {
    if !booted() {
        let init = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
        return Err(Unreachable::NotBooted {
            init: init.trim().to_owned(),
        });
    }
    let mut tried: Vec<String> = Vec::new();
    for address in bus_addresses(scope, env) {
        match answering(Builder::address(address.as_str())).await {
            Ok(connection) => return Ok(connection),
            Err(error) => tried.push(format!("{address}: {error}")),
        }
    }
    for path in private_sockets(scope, env) {
        let connected = match UnixStream::connect(&path).await {
            Ok(stream) => answering(Builder::socket(PrivateSocket(stream)).p2p()).await,
            Err(error) => Err(error.into()),
        };
        match connected {
            Ok(connection) => return Ok(connection),
            Err(error) => tried.push(format!("{}: {error}", path.display())),
        }
    }
    Err(Unreachable::NoAnswer { tried })
}

/// Whether systemd is the init of this machine.
pub(crate) fn booted() -> bool {
    Path::new(BOOTED).is_dir()
}

/// A connection at whose other end a manager answers.
async fn answering(builder: Builder<'_>) -> zbus::Result<Connection> {
    let connection = builder.method_timeout(CALL_LIMIT).build().await?;
    SystemdManagerProxy::new(&connection)
        .await?
        .version()
        .await?;
    Ok(connection)
}

/// The system bus, for login1.
pub(crate) async fn system_bus() -> zbus::Result<Connection> {
    Builder::system().method_timeout(CALL_LIMIT).build().await
}

fn private_sockets(scope: Scope, env: &Env<'_>) -> Vec<PathBuf> {
    match scope {
        Scope::System if nix::unistd::geteuid().is_root() => vec!["/run/systemd/private".into()],
        Scope::System => Vec::new(),
        Scope::User => vec![runtime_dir(env).join("systemd/private")],
    }
}

fn bus_addresses(scope: Scope, env: &Env<'_>) -> Vec<String> {
    match scope {
        Scope::System => vec![
            env.text("DBUS_SYSTEM_BUS_ADDRESS")
                .unwrap_or_else(|| "unix:path=/run/dbus/system_bus_socket".to_owned()),
        ],
        // The manager's own bus first: the variable may name one of a desktop or a remote session.
        Scope::User => {
            let own = format!("unix:path={}", runtime_dir(env).join("bus").display());
            let is_foreign = |address: &String| {
                let path = address.strip_prefix("unix:path=").unwrap_or_default();
                is_foreign(Path::new(path.split(',').next().unwrap_or_default()))
            };
            let session = env
                .text("DBUS_SESSION_BUS_ADDRESS")
                .filter(|address| *address != own && !is_foreign(address));
            std::iter::once(own).chain(session).collect()
        }
    }
}

/// The name of this user, as logind knows it, or the number of one that has no name.
pub(crate) fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    let user = nix::unistd::User::from_uid(uid).ok().flatten();
    user.map_or_else(|| uid.to_string(), |user| user.name)
}
