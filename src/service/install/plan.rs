//! What install would make of a request on this machine. Nothing is changed here.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::access;
use super::account::account;
use super::address_conflicts;
use super::chosen::{self, UnitChoices};
use super::config_text::{self, Invocation};
use super::file_transaction::PlannedFile;
use super::instance_files::InstanceFiles;
use super::notes;
use super::request::InstallRequest;
use super::socket_place;
use super::variables;
use crate::config::{Config, DEFAULT_INSTANCE, Env, Listen, MAIN_SIDECAR};
use crate::os::port;
use crate::os::working_directory::by_link;
use crate::service::error::ServiceError;
use crate::service::layout::{Installed, Layout, installed, usual_scope};
use crate::service::manager::systemctl;
use crate::service::manager_kind::ServiceManagerKind;
use crate::service::provenance::Written;
use crate::service::rights::{Rights, more_rights};
use crate::service::start_stop::several;
use crate::service::unit_text::{OLDEST_SYSTEMD, RunAs, UnitPlan, UnitSubject, UnitTextError};
use crate::state::paths::Scope;
use crate::text::redact::Redactor;
use crate::text::shell;

/// What the machine and the caller are.
pub(super) struct InstallFacts {
    pub layout: Layout,
    pub place: Invocation,
    pub bin_dir: PathBuf,
    pub systemd: u32,
    is_root: bool,
    pub sudo_user: Option<String>,
    low_ports: u16,
}

impl InstallFacts {
    /// Looks around.
    pub fn gather(env: &Env<'_>, layout: Layout, systemd: u32) -> Result<Self, ServiceError> {
        let cwd = std::env::current_dir().map_err(|error| {
            ServiceError::failed(format!("the current directory cannot be read: {error}"))
        })?;
        let path = env.text("PATH").unwrap_or_else(|| {
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()
        });
        let sudo_user = env
            .text("SUDO_USER")
            .filter(|_| nix::unistd::geteuid().is_root());
        Ok(Self {
            bin_dir: bin_dir(&path)?,
            place: Invocation {
                // A link in its name stays one: each start of the service follows it.
                cwd: by_link(env.path("PWD")).unwrap_or(cwd),
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
            low_ports: port::unprivileged_start(),
        })
    }
}

/// The directory of both programs, by the name under which it is in PATH where that leads to the same:
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
    .next(format!("ls -l {}", shell::word(&dir))))
}

/// The scope that is meant: as said, where it is installed, else the user's unless root asks.
pub(super) fn scope(env: &Env<'_>, request: &InstallRequest) -> Scope {
    let is_meant = |one: &Installed| {
        let name = request.instance.as_ref();
        name.is_none_or(|name| *name == one.instance)
    };
    let known = || installed(env, None).into_iter().find(is_meant);
    request
        .scope
        .or_else(|| known().map(|one| one.scope))
        .unwrap_or_else(usual_scope)
}

/// What would be done.
pub(super) struct InstallPlan {
    pub installed: Installed,
    pub unit: UnitPlan,
    pub contents: InstanceFiles,
    pub notes: Vec<String>,
    /// A socket unit of ours that is not wanted any more.
    pub former_socket: Option<String>,
    /// Knows every secret of the configuration.
    pub redactor: Redactor,
    files: Vec<PlannedFile>,
}

impl InstallPlan {
    /// Decides.
    pub fn make(
        env: &Env<'_>,
        request: &InstallRequest,
        facts: &InstallFacts,
    ) -> Result<Self, ServiceError> {
        let layout = &facts.layout;
        let instance = choose_instance(env, request, layout.scope)?;
        let (asked, before) = (request, chosen_before(layout, &instance)?);
        let request = &request.over(before.clone());
        variables::check(asked, &facts.place)?;
        let contents = InstanceFiles::make(request, instance.clone(), layout, &facts.place)?;
        guard_other_command(request, &contents)?;
        refuse_nothing(&contents.config, &layout.config_file(&contents.instance))?;
        let unit = unit_plan(request, facts, &contents)?;
        let hidden = match refuse_hidden_tmp(&unit, &contents.config) {
            Err(refusal) if asked.only_shows() => Some(refusal),
            judged => judged.map(|()| None)?,
        };
        access::check(&unit, &contents.config, &unit.writable)?;
        let listen = &contents.config.gateway.listen;
        socket_place::refuse_closed(&unit, layout, &instance, listen)?;
        let (files, former_socket) = files(layout, &unit, &contents)?;
        let installed = Installed {
            instance,
            scope: layout.scope,
            manager: ServiceManagerKind::Systemd,
            unit: unit.service_name(),
            path: layout.units.join(unit.service_name()),
            socket: request.socket.then(|| unit.socket_name()),
        };
        let mut notes = notes::of(&unit, &contents);
        notes.extend(hidden.map(|refusal| {
            let way = refusal.next.unwrap_or_default();
            let why = refusal.message;
            format!("without --dry-run and --diff this is refused: {why}; {way}")
        }));
        notes.extend(access::note_read_only(&unit, &contents.config));
        notes.extend(variables::unused(asked, &contents));
        let kept = chosen::kept(asked, contents.base.clone(), &before);
        if !kept.is_empty() {
            notes.push(format!(
                "as before: {} (--unset takes one back)",
                kept.join(", ")
            ));
        }
        notes.extend(address_conflicts::check_installed(
            env,
            &installed,
            &contents.config.gateway.listen,
        )?);
        Ok(Self {
            installed,
            unit,
            notes,
            former_socket,
            files,
            redactor: contents.redactor(request),
            contents,
        })
    }

    /// The files that would be written or removed.
    pub fn changed(&self) -> impl Iterator<Item = &PlannedFile> {
        self.files.iter().filter(|file| file.changes())
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
                "{} is installed with another command; nothing was changed",
                unit.instance
            ))
            .lines(self.redactor.text(diff.trim_end()).lines())
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
        .next(format!(
            "{}\nthe same command with --user   (a service of your own)",
            more_rights()
        )))
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

/// What the unit that is there was made with, if it is one of ours.
fn chosen_before(layout: &Layout, instance: &str) -> Result<UnitChoices, ServiceError> {
    let unit = UnitPlan {
        subject: UnitSubject::Instance(instance.to_owned()),
        ..UnitPlan::default()
    };
    let at = |name: String| Written::look(&layout.units.join(name));
    let socket = !matches!(
        at(unit.socket_name())?,
        Written::Foreign(_) | Written::Absent
    );
    Ok(match at(unit.service_name())? {
        Written::ByUs(text) | Written::Edited(text) => {
            UnitChoices::read(&text, &layout.secrets_file(instance), socket)
        }
        Written::Foreign(_) | Written::Absent => UnitChoices::default(),
    })
}

/// What the unit will say.
fn unit_plan(
    request: &InstallRequest,
    facts: &InstallFacts,
    contents: &InstanceFiles,
) -> Result<UnitPlan, ServiceError> {
    let listen = &contents.config.gateway.listen;
    let main = contents.config.sidecar.get(MAIN_SIDECAR);
    let run_as = run_as(request, facts, main.and_then(|main| main.cwd.as_deref()))?;
    let sandbox = request.sandbox.unwrap_or_default();
    let scope = facts.layout.scope;
    let credentials =
        variables::credentials(facts.systemd, scope, (&run_as, sandbox), &contents.config)?;
    Ok(UnitPlan {
        subject: UnitSubject::Instance(contents.instance.clone()),
        scope: facts.layout.scope,
        sandbox,
        bin_dir: facts.bin_dir.clone(),
        run_as,
        low_port: needs_low_port(request, facts, listen)?,
        env_file: variables::of_all(request, &contents.config),
        credentials,
        secrets: contents.secrets_file(),
        writable: (request.writable.iter())
            .map(|path| facts.place.cwd.join(path))
            .collect(),
        sockets: if request.socket {
            listen.clone()
        } else {
            Vec::new()
        },
        systemd: facts.systemd,
    })
}

/// A service that answers nothing but its own status is not what anybody means.
fn refuse_nothing(config: &Config, file: &Path) -> Result<(), ServiceError> {
    if !config.sidecar.is_empty() || !config.route.is_empty() {
        return Ok(());
    }
    let next = if file.exists() {
        format!(
            "write one into {} ([sidecar.main]), then again",
            file.display()
        )
    } else {
        "gatewayctl config init   (a file to write servers into)".to_owned()
    };
    Err(ServiceError::usage(
        "there is nothing to serve: no command is given, and the configuration has no server",
    )
    .next(format!("gatewayctl install … -- COMMAND\n{next}")))
}

fn refuse_hidden_tmp(unit: &UnitPlan, config: &Config) -> Result<(), ServiceError> {
    match config_text::lost_in_tmp(config) {
        Some(lost) if unit.sandbox.hides_tmp(unit.scope) || unit.is_dynamic() => Err(
            ServiceError::failed(format!("{lost}, and a service has a /tmp of its own"))
                .next("move it out of /tmp, or add: --run-as USER --sandbox off"),
        ),
        _ => Ok(()),
    }
}

/// The files of the service, and the socket unit that is not wanted any more.
fn files(
    layout: &Layout,
    unit: &UnitPlan,
    contents: &InstanceFiles,
) -> Result<(Vec<PlannedFile>, Option<String>), ServiceError> {
    let unfit = |error: UnitTextError| ServiceError::usage(error.to_string());
    let planned = |name: String, text| PlannedFile::new(layout.units.join(name), text, 0o644);
    let mut files = Vec::new();
    if let Some(file) = &contents.config_file {
        files.push(config_access(file.clone(), layout.scope, &unit.run_as)?);
    }
    files.extend(contents.variables.clone());
    let service = unit.service().map_err(unfit)?;
    files.push(planned(unit.service_name(), Some(service))?);
    let wanted = !unit.sockets.is_empty();
    let socket = wanted.then(|| unit.socket().map_err(unfit)).transpose()?;
    let socket = planned(unit.socket_name(), socket)?;
    let former = !wanted && matches!(socket.now, Written::ByUs(_));
    if wanted || former {
        files.push(socket);
    }
    Ok((files, former.then(|| unit.socket_name())))
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

/// The user that is named, else the one who called sudo, else the owner of the server's directory, else
/// a temporary one.
fn run_as(
    request: &InstallRequest,
    facts: &InstallFacts,
    cwd: Option<&Path>,
) -> Result<RunAs, ServiceError> {
    if facts.layout.scope == Scope::User {
        return match request.run_as {
            Some(_) => Err(ServiceError::usage(
                "--run-as is for the machine's services: a user's services run as that user",
            )
            .next(Rights::now().again_as_root("--system"))),
            None => Ok(RunAs::Dynamic),
        };
    }
    let sudo_user = || facts.sudo_user.clone().map(RunAs::User);
    let owner = || cwd.and_then(owner).map(RunAs::User);
    match request.run_as.clone().or_else(sudo_user).or_else(owner) {
        Some(RunAs::User(name)) => Ok(RunAs::User(account(&name)?.name)),
        Some(RunAs::Dynamic) | None => Ok(RunAs::Dynamic),
    }
}

/// The user who has a directory; none for root, and for a number without an account.
fn owner(directory: &Path) -> Option<String> {
    let uid = Uid::from_raw(std::fs::metadata(directory).ok()?.uid());
    let account = User::from_uid(uid).ok().flatten()?;
    (!uid.is_root()).then_some(account.name)
}

fn needs_low_port(
    request: &InstallRequest,
    facts: &InstallFacts,
    listen: &[Listen],
) -> Result<bool, ServiceError> {
    if request.socket && facts.layout.scope == Scope::System {
        return Ok(false);
    }
    let low = listen
        .iter()
        .filter_map(Listen::port)
        .find(|port| *port != 0 && *port < facts.low_ports);
    match (low, facts.layout.scope) {
        (None, _) => Ok(false),
        (Some(_), Scope::System) => Ok(true),
        (Some(port), Scope::User) => Err(ServiceError::permission(format!(
            "port {port} needs root"
        ))
        .next(format!(
            "{}   (a system service)\n--listen 127.0.0.1:PORT   (a port above {})",
            Rights::now().again_as_root("--system"),
            facts.low_ports - 1
        ))),
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
            let account = account(name)?;
            if !account.uid.is_root() {
                file.mode = 0o640;
                file.group = Some(account.gid.as_raw());
            }
        }
    }
    Ok(file)
}
