//! What install would make of a request on this machine. Nothing is changed here.

use std::path::{Path, PathBuf};

use super::address_conflicts;
use super::config_text::{self, Invocation};
use super::file_transaction::PlannedFile;
use super::instance_files::InstanceFiles;
use super::request::InstallRequest;
use crate::config::{Config, DEFAULT_INSTANCE, Env, Listen};
use crate::service::accounts;
use crate::service::error::ServiceError;
use crate::service::layout::{Installed, Layout, installed};
use crate::service::manager::systemctl;
use crate::service::provenance::Written;
use crate::service::sandbox::Sandbox;
use crate::service::start_stop::several;
use crate::service::unit_text::{OLDEST_SYSTEMD, RunAs, UnitPlan, UnitSubject};
use crate::state::paths::Scope;
use crate::text::redact::Redactor;

/// Ports below are root's where the kernel does not say otherwise.
const LOW_PORTS: u16 = 1024;

/// What the machine and the caller are.
pub(super) struct InstallFacts {
    pub layout: Layout,
    pub place: Invocation,
    pub bin_dir: PathBuf,
    systemd: u32,
    is_root: bool,
    pub sudo_user: Option<String>,
    low_ports: u16,
}

impl InstallFacts {
    /// Looks around.
    ///
    /// # Errors
    /// When `gateway` does not lie beside `gatewayctl`, or the current folder is gone.
    pub fn gather(env: &Env<'_>, layout: Layout, systemd: u32) -> Result<Self, ServiceError> {
        let cwd = std::env::current_dir().map_err(|error| {
            ServiceError::failed(format!("the current folder cannot be read: {error}"))
        })?;
        let path = env.text("PATH").unwrap_or_else(|| {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
        });
        let sudo_user = env
            .text("SUDO_USER")
            .filter(|_| nix::unistd::geteuid().is_root());
        let low_ports = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(LOW_PORTS);
        Ok(Self {
            bin_dir: bin_dir(&path)?,
            place: Invocation {
                cwd,
                path,
                sudo: sudo_user.is_some(),
            },
            layout,
            systemd: if systemd == 0 {
                OLDEST_SYSTEMD
            } else {
                systemd
            },
            is_root: nix::unistd::geteuid().is_root(),
            sudo_user,
            low_ports,
        })
    }
}

/// The folder of both programs, by the name under which it is in PATH where that leads to the same:
/// updates may move what links lead to.
fn bin_dir(path: &str) -> Result<PathBuf, ServiceError> {
    let here = std::env::current_exe().map_err(|error| {
        ServiceError::failed(format!("cannot find out where gatewayctl lies: {error}"))
    })?;
    let dir = here.parent().unwrap_or(Path::new("/usr/bin")).to_owned();
    let known = std::env::split_paths(path).find(|dir| {
        dir.is_absolute()
            && dir
                .join("gatewayctl")
                .canonicalize()
                .is_ok_and(|found| found == here)
            && dir.join("gateway").exists()
    });
    let dir = known.unwrap_or(dir);
    if dir.join("gateway").exists() {
        return Ok(dir);
    }
    Err(ServiceError::failed(format!(
        "`gateway` is not beside gatewayctl in {}",
        dir.display()
    ))
    .next(format!("ls -l {}", dir.display())))
}

/// The scope that is meant: as said, where it is installed, else the user's unless root asks.
pub(super) fn scope(env: &Env<'_>, request: &InstallRequest) -> Scope {
    let usual = if nix::unistd::geteuid().is_root() {
        Scope::System
    } else {
        Scope::User
    };
    let known = || {
        let all = installed(env, None);
        let mut named = all.into_iter().filter(|one| {
            request
                .instance
                .as_ref()
                .is_none_or(|name| *name == one.instance)
        });
        named.next().map(|one| one.scope)
    };
    request.scope.or_else(known).unwrap_or(usual)
}

/// What would be done.
pub(super) struct InstallPlan {
    pub installed: Installed,
    pub unit: UnitPlan,
    pub config: Config,
    /// The configuration that the running gateway was started with.
    pub former: Config,
    pub notes: Vec<String>,
    /// A socket unit of ours that is not wanted any more.
    pub former_socket: Option<String>,
    files: Vec<PlannedFile>,
    redactor: Redactor,
    contents: InstanceFiles,
}

impl InstallPlan {
    /// Decides.
    ///
    /// # Errors
    /// Every refusal that needs no change to be known.
    pub fn make(
        env: &Env<'_>,
        request: &InstallRequest,
        facts: &InstallFacts,
    ) -> Result<Self, ServiceError> {
        let layout = &facts.layout;
        let instance = choose_instance(env, request, layout.scope)?;
        let contents = InstanceFiles::make(request, instance.clone(), layout, &facts.place)?;
        let config = contents.config.clone();
        guard_other_command(request, &contents)?;

        let run_as = run_as(request, facts)?;
        let low_port = needs_low_port(request, facts, &config)?;
        let plan = UnitPlan {
            subject: UnitSubject::Instance(instance.clone()),
            scope: layout.scope,
            sandbox: request.sandbox,
            bin_dir: facts.bin_dir.clone(),
            run_as: run_as.clone(),
            env_file: env_file(request, facts)?,
            secrets: contents.secrets_file(),
            sockets: if request.socket {
                config.gateway.listen.clone()
            } else {
                Vec::new()
            },
            low_port,
            systemd: facts.systemd,
        };
        let dynamic = layout.scope == Scope::System && run_as == RunAs::Dynamic;
        if (request.sandbox.hides_tmp(layout.scope) || dynamic)
            && let Some(lost) = config_text::lost_in_tmp(&config)
        {
            let error =
                ServiceError::failed(format!("{lost}, and a service has a /tmp of its own"));
            return Err(error.next("move it out of /tmp, or add: --run-as USER --sandbox off"));
        }

        let unfit = |error: crate::service::unit_text::UnitTextError| {
            ServiceError::usage(error.to_string())
        };
        let unit_file = layout.units.join(plan.service_name());
        let mut files = Vec::new();
        if let Some(file) = contents.configuration()? {
            files.push(config_access(file, layout.scope, &run_as)?);
        }
        files.extend(contents.variables()?);
        files.push(PlannedFile::new(
            unit_file.clone(),
            Some(plan.service().map_err(unfit)?),
            0o644,
        )?);
        let socket_file = layout.units.join(plan.socket_name());
        let socket = if request.socket {
            Some(plan.socket().map_err(unfit)?)
        } else {
            None
        };
        let socket_file = PlannedFile::new(socket_file, socket, 0o644)?;
        let former_socket = (!request.socket && matches!(socket_file.now, Written::ByUs(_)))
            .then(|| plan.socket_name());
        if request.socket || former_socket.is_some() {
            files.push(socket_file);
        }
        let mut notes = Vec::new();
        if layout.scope == Scope::User && request.sandbox == Sandbox::Strict {
            notes.push("in user scope `strict` is the same as `app`: the rest of it takes a privileged manager".to_owned());
        }
        if dynamic {
            notes.push(
                "it runs as a temporary user (DynamicUser); --run-as USER chooses another"
                    .to_owned(),
            );
        }
        if dynamic && contents.tells_in_command() {
            notes.push(
                "everybody on this machine can read the secret in the command; --set NAME=SECRET hides one, --run-as USER the whole"
                    .to_owned(),
            );
        }
        let installed = Installed {
            instance,
            scope: layout.scope,
            unit: plan.service_name(),
            path: unit_file,
            socket: request.socket.then(|| plan.socket_name()),
        };
        notes.extend(address_conflicts::check_installed(
            env,
            &installed,
            &config.gateway.listen,
        )?);
        let redactor = contents.redactor(request);
        Ok(Self {
            installed,
            unit: plan,
            config,
            former: contents.former.clone(),
            notes,
            former_socket,
            files,
            redactor,
            contents,
        })
    }

    /// The files that would be written or removed.
    pub fn changed(&self) -> impl Iterator<Item = &PlannedFile> {
        self.files.iter().filter(|file| file.changes())
    }

    /// Knows every secret of the configuration.
    pub fn redactor(&self) -> &Redactor {
        &self.redactor
    }

    /// Refuses to touch what we did not write, and to put another command in the place of the one
    /// that is installed.
    pub fn refuse_unasked(&self, request: &InstallRequest) -> Result<(), ServiceError> {
        if request.overwrite {
            return Ok(());
        }
        let unit = &self.installed;
        if let Some(file) = self.changed().find(|file| !file.now.is_free()) {
            let edit = systemctl(unit.scope, &format!("edit {}", unit.unit));
            return Err(ServiceError::not_ours(&file.path, file.now.why_not(), &self.redactor.text(&file.diff())).next(format!(
                "gatewayctl install … --overwrite   (writes over it; a copy is kept, and uninstall puts back what was not ours)\n{edit}   (a drop-in: keeps changes of the unit for ever)"
            )));
        }
        match self.contents.other_command() {
            None => Ok(()),
            Some(diff) => Err(ServiceError::refused(format!(
                "{} is installed with another command; nothing was changed\n{}",
                unit.instance,
                self.redactor.text(diff.trim_end())
            ))
            .next("gatewayctl install … --overwrite   (in its place)\ngatewayctl install --instance NAME --listen ADDRESS …   (a second gateway)")),
        }
    }

    /// Refuses what only root may do, before anything is done.
    pub fn refuse_unprivileged(&self, facts: &InstallFacts) -> Result<(), ServiceError> {
        if self.installed.scope == Scope::User || facts.is_root {
            return Ok(());
        }
        Err(ServiceError::permission(format!(
            "only root may write {}",
            self.installed.path.display()
        ))
        .next("the same command with sudo\nthe same command with --user   (a service of your own)"))
    }
}

pub(super) fn choose_instance(
    env: &Env<'_>,
    request: &InstallRequest,
    scope: Scope,
) -> Result<String, ServiceError> {
    if let Some(name) = &request.instance {
        return Ok(name.clone());
    }
    let mut all = installed(env, Some(scope));
    match all.len() {
        0 => Ok(DEFAULT_INSTANCE.to_owned()),
        1 => Ok(all.remove(0).instance),
        _ => Err(several(&all)),
    }
}

/// Another command on another address is most likely meant as a second gateway, not as the end of
/// the first.
fn guard_other_command(
    request: &InstallRequest,
    contents: &InstanceFiles,
) -> Result<(), ServiceError> {
    if request.instance.is_some()
        || request.overwrite
        || contents.other_command().is_none()
        || !contents.moves()
    {
        return Ok(());
    }
    let instance = &contents.instance;
    Err(ServiceError::refused(format!("{instance} is installed with another command on another address")).next(format!(
        "gatewayctl install --instance NAME …   (a second gateway)\ngatewayctl install --instance {instance} --overwrite …   (in its place)"
    )))
}

fn run_as(request: &InstallRequest, facts: &InstallFacts) -> Result<RunAs, ServiceError> {
    if facts.layout.scope == Scope::User {
        return match request.run_as {
            Some(_) => Err(ServiceError::usage(
                "--run-as is for the machine's services: a user's services run as that user",
            )
            .next("the same command with sudo and --system")),
            None => Ok(RunAs::Dynamic),
        };
    }
    match request.run_as.as_ref().or(facts.sudo_user.as_ref()) {
        Some(name) => Ok(RunAs::User(accounts::account(name)?.name)),
        None => Ok(RunAs::Dynamic),
    }
}

fn needs_low_port(
    request: &InstallRequest,
    facts: &InstallFacts,
    config: &Config,
) -> Result<bool, ServiceError> {
    if request.socket && facts.layout.scope == Scope::System {
        return Ok(false);
    }
    let low = config
        .gateway
        .listen
        .iter()
        .filter_map(Listen::port)
        .find(|port| *port != 0 && *port < facts.low_ports);
    match (low, facts.layout.scope) {
        (None, _) => Ok(false),
        (Some(_), Scope::System) => Ok(true),
        (Some(port), Scope::User) => Err(ServiceError::permission(format!(
            "port {port} needs root"
        ))
        .next(format!("sudo gatewayctl install …   (a system service)\n--listen 127.0.0.1:PORT   (a port above {})", facts.low_ports - 1))),
    }
}

fn env_file(
    request: &InstallRequest,
    facts: &InstallFacts,
) -> Result<Option<PathBuf>, ServiceError> {
    let Some(file) = &request.env_file else {
        return Ok(None);
    };
    let file = facts.place.cwd.join(file);
    match std::fs::metadata(&file) {
        Ok(meta) if meta.is_file() => Ok(Some(file)),
        Ok(_) => Err(ServiceError::usage(format!(
            "--env-file {}: not a file",
            file.display()
        ))),
        Err(error) => Err(ServiceError::file("read", &file, &error)),
    }
}

/// A configuration may hold secrets: only its reader may read it. A temporary user (DynamicUser) has
/// no group before it runs.
fn config_access(
    mut file: PlannedFile,
    scope: Scope,
    run_as: &RunAs,
) -> Result<PlannedFile, ServiceError> {
    match (scope, run_as) {
        (Scope::User, _) => {}
        (Scope::System, RunAs::Dynamic) => file.mode = 0o644,
        (Scope::System, RunAs::User(name)) => {
            let account = accounts::account(name)?;
            if !account.uid.is_root() {
                file.mode = 0o640;
                file.group = Some(account.gid.as_raw());
            }
        }
    }
    Ok(file)
}
