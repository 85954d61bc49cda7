//! `gatewayctl install`: looks, decides, shows, proves, writes, starts - in this order.

mod address_conflicts;
mod config_text;
mod file_transaction;
mod instance_files;
mod launchd_preview;
mod plan;
mod test_start;

use std::path::PathBuf;

use serde::Serialize;

use self::plan::{InstallPlan, MachineFacts};
use super::error::ServiceError;
use super::layout::{Installed, Layout};
use super::linger;
use super::manager::{Job, Manager, UnitState, journalctl, systemctl};
use super::sandbox::Sandbox;
use super::start_stop::{Say, bring_up, run, run_unit, scope_name};
use super::wait_ready;
use crate::config::{Env, Listen};
use crate::state::paths::Scope;
use crate::text::redact::Redactor;
use file_transaction::FileTransaction;

/// Who starts the services of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceManagerKind {
    Systemd,
    Launchd,
}

impl Default for ServiceManagerKind {
    fn default() -> Self {
        if cfg!(target_os = "macos") {
            Self::Launchd
        } else {
            Self::Systemd
        }
    }
}

/// Puts a question to whoever typed the command: the answer, or none where nobody can be asked.
pub type Ask<'a> = &'a dyn Fn(&str) -> Option<bool>;

/// What is asked for: the flags of `gatewayctl install`.
#[derive(Clone, Debug, Default)]
pub struct InstallRequest {
    /// `--instance`
    pub instance: Option<String>,
    /// `--user` or `--system`
    pub scope: Option<Scope>,
    /// `--now`
    pub now: bool,
    /// `--listen`
    pub listen: Vec<Listen>,
    /// `--exclusive`
    pub exclusive: bool,
    /// `--port`
    pub port: Option<u16>,
    /// `--ready`
    pub ready: Option<String>,
    /// `--socket`
    pub socket: bool,
    /// `--run-as`
    pub run_as: Option<String>,
    /// `--env-file`
    pub env_file: Option<PathBuf>,
    /// `--set`
    pub set: Vec<(String, String)>,
    /// `--sandbox`
    pub sandbox: Sandbox,
    /// `--for`
    pub supervisor: ServiceManagerKind,
    /// `--yes`
    pub yes: bool,
    /// `--dry-run`
    pub dry_run: bool,
    /// `--diff`
    pub diff: bool,
    /// `--overwrite`
    pub overwrite: bool,
    /// `-- COMMAND…`
    pub command: Vec<String>,
}

/// What install has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InstallReport {
    /// Always true; an error has its own object.
    pub ok: bool,
    pub instance: String,
    /// system or user.
    pub scope: &'static str,
    pub unit: String,
    /// Where the unit lies.
    pub unit_file: PathBuf,
    /// Where the configuration lies, or would.
    pub config: PathBuf,
    /// installed, updated, already installed, dry run.
    pub outcome: &'static str,
    /// What was done, or would be.
    pub actions: Vec<String>,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What would be written, or what would change; only with `--dry-run` and `--diff`. Secrets are
    /// hidden.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileText>,
    pub listen: Vec<String>,
    /// Whether it runs and is ready.
    pub ready: bool,
    /// The main process, 0 when none runs.
    pub pid: u32,
    /// The command that shows its log.
    pub journal: String,
}

/// A file and its text, or its difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileText {
    pub path: PathBuf,
    pub text: String,
}

/// Installs a gateway as a service.
///
/// # Errors
/// See [`ServiceError`]; unless it says otherwise nothing was changed.
pub async fn install(
    env: &Env<'_>,
    request: &InstallRequest,
    say: Say<'_>,
    ask: Ask<'_>,
) -> Result<InstallReport, ServiceError> {
    if request.supervisor == ServiceManagerKind::Launchd {
        return launchd_preview::look(env, request);
    }
    let scope = plan::scope(env, request);
    let manager = Manager::connect(scope, env).await?;
    let layout = Layout::of(scope, env)?;
    let facts = MachineFacts::gather(env, layout, manager.version().await?)?;
    let plan = InstallPlan::make(env, request, &facts)?;
    let redactor = plan.redactor();
    let unit = &plan.installed;
    let state = manager.state(&unit.unit).await?;
    let todo = Todo::find(&manager, request, &plan, &state).await;
    let mut report = InstallReport {
        ok: true,
        instance: unit.instance.clone(),
        scope: scope_name(scope),
        unit: unit.unit.clone(),
        unit_file: unit.path.clone(),
        config: facts.layout.config_file(&unit.instance),
        outcome: "dry run",
        actions: todo.actions(&plan),
        notes: plan.notes.clone(),
        files: Vec::new(),
        listen: plan
            .config
            .gateway
            .listen
            .iter()
            .map(Listen::to_string)
            .collect(),
        ready: false,
        pid: state.main_pid,
        journal: journalctl(scope, &unit.unit),
    };
    if request.diff {
        report.files = plan
            .changed()
            .map(|file| FileText {
                path: file.path.clone(),
                text: redactor.text(&file.diff()),
            })
            .collect();
        return Ok(report);
    }
    plan.refuse_unasked(request)?;
    if request.dry_run {
        report.files = texts(&plan, redactor);
        return Ok(report);
    }
    plan.refuse_unprivileged(&facts)?;
    report.ready = state.is_active();
    if todo.is_empty() {
        report.outcome = "already installed";
        report.notes.clear();
        return Ok(report);
    }
    if todo.start && plan.former_socket.is_none() && !todo.hand_over {
        // The socket unit may be up while its service is down.
        let socket_up = match &unit.socket {
            Some(socket) => manager.state(socket).await?.is_active(),
            None => false,
        };
        let ours = |listen: &&Listen| {
            (socket_up || !state.is_down()) && plan.former.gateway.listen.contains(listen)
        };
        address_conflicts::check_free(
            plan.config.gateway.listen.iter().filter(|listen| {
                !ours(listen) && (state.is_down() || plan.unit.sockets.is_empty())
            }),
        )?;
    }
    todo.consent(request, &plan, ask)?;
    report.outcome = if unit.path.exists() {
        "updated"
    } else {
        "installed"
    };
    carry_out(&manager, &facts, &plan, &todo, &mut report, say).await?;
    if request.now {
        report.pid = start(&manager, &plan, &todo, &state, say)
            .await
            .map_err(|error| {
                if todo.active {
                    error
                } else {
                    tries_on(error, unit)
                }
            })?;
        report.ready = true;
    } else if todo.active && todo.files {
        let apply = if todo.unit {
            systemctl(scope, &format!("restart {}", unit.unit))
        } else {
            "gatewayctl reload".to_owned()
        };
        report
            .notes
            .push(format!("it runs as before until: {apply}"));
    }
    Ok(report)
}

/// A service that is installed and does not start keeps trying, as after a crash.
fn tries_on(error: ServiceError, unit: &Installed) -> ServiceError {
    let undo = format!(
        "gatewayctl uninstall --instance {}   (it is installed and keeps trying until then)",
        unit.instance
    );
    let next = error
        .next
        .as_ref()
        .map_or(undo.clone(), |next| format!("{next}\n{undo}"));
    error.next(next)
}

/// What is left to do.
struct Todo {
    files: bool,
    unit: bool,
    prove: bool,
    enable: bool,
    /// The former socket unit starts at boot.
    disable_socket: bool,
    linger: bool,
    start: bool,
    active: bool,
    /// The socket unit must begin to hold the listeners that the running service holds itself.
    hand_over: bool,
}

impl Todo {
    async fn find(
        manager: &Manager,
        request: &InstallRequest,
        plan: &InstallPlan,
        state: &UnitState,
    ) -> Self {
        let files = plan.changed().next().is_some();
        let active = state.is_active() && state.main_pid != 0;
        let exclusive = plan.config.sidecar.values().any(|spec| !spec.overlaps());
        let socket_up = match &plan.installed.socket {
            Some(socket) => manager
                .state(socket)
                .await
                .is_ok_and(|state| state.is_active()),
            None => true,
        };
        let mut enabled = manager.is_enabled(&plan.installed.unit).await;
        if let Some(socket) = &plan.installed.socket {
            enabled &= manager.is_enabled(socket).await;
        }
        let disable_socket = match &plan.former_socket {
            Some(socket) => manager.is_enabled(socket).await,
            None => false,
        };
        let hand_over = active && !socket_up;
        let start = request.now && (!active || files || hand_over);
        Self {
            files,
            // systemd reads units and variables only when it starts the service.
            unit: plan
                .changed()
                .any(|file| file.path == plan.installed.path || file.shown.is_some()),
            // Two copies of a server that must be alone would harm each other.
            prove: !plan.config.sidecar.is_empty() && (files || start) && !(active && exclusive),
            enable: !enabled,
            disable_socket,
            linger: plan.installed.scope == Scope::User && !linger::is_on(),
            start,
            active,
            hand_over,
        }
    }

    /// Whether the addresses of a running service go to its socket unit or come from it, which
    /// takes one stop.
    fn stops(&self, plan: &InstallPlan) -> bool {
        self.active && (self.hand_over || plan.former_socket.is_some())
    }

    /// Asks before it stops what runs.
    fn consent(
        &self,
        request: &InstallRequest,
        plan: &InstallPlan,
        ask: Ask<'_>,
    ) -> Result<(), ServiceError> {
        if !self.stops(plan) {
            return Ok(());
        }
        let unit = &plan.installed.unit;
        let from_to = if self.hand_over {
            "from the service to its socket unit"
        } else {
            "from the socket unit to the service"
        };
        let what = format!(
            "{unit} must stop for a moment: its addresses go {from_to}, and clients are refused meanwhile"
        );
        if !request.now {
            return Err(ServiceError::usage(format!("{what}; nothing was changed"))
                .next("the same command with --now --yes   (now)\ngatewayctl stop   (before it, at a time of your choice)"));
        }
        match if request.yes { Some(true) } else { ask(&what) } {
            Some(true) => Ok(()),
            Some(false) => Err(ServiceError::refused("nothing was changed")),
            None => Err(ServiceError::usage(format!(
                "{what}; nothing was changed, because nobody could be asked"
            ))
            .next("the same command with --yes")),
        }
    }

    fn is_empty(&self) -> bool {
        !(self.files || self.enable || self.linger || self.start)
    }

    fn actions(&self, plan: &InstallPlan) -> Vec<String> {
        let unit = &plan.installed.unit;
        let mut actions: Vec<String> = plan
            .changed()
            .map(file_transaction::PlannedFile::action)
            .collect();
        let stop =
            format!("stop {unit} for a moment, while its addresses change hands (asks first)");
        let steps = [
            (self.files, "make systemd read its unit files".to_owned()),
            (
                self.prove,
                "prove in a passing unit that the command starts".to_owned(),
            ),
            (self.enable, format!("enable {unit}")),
            (
                self.linger,
                "turn lingering on, so that it runs without a login".to_owned(),
            ),
            (self.start && self.stops(plan), stop),
            (
                self.start,
                format!("{} {unit} and wait until it is ready", self.verb()),
            ),
        ];
        actions.extend(
            steps
                .into_iter()
                .filter(|(wanted, _)| *wanted)
                .map(|(_, text)| text),
        );
        actions
    }

    fn verb(&self) -> &'static str {
        match (self.active, self.unit || self.hand_over) {
            (false, _) => "start",
            (true, true) => "restart",
            (true, false) => "reload",
        }
    }
}

/// Everything but the start. What fails is undone.
async fn carry_out(
    manager: &Manager,
    facts: &MachineFacts,
    plan: &InstallPlan,
    todo: &Todo,
    report: &mut InstallReport,
    say: Say<'_>,
) -> Result<(), ServiceError> {
    let mut applied = FileTransaction::default();
    for file in plan.changed() {
        say(&file.doing());
        file.changed_lines()
            .iter()
            .for_each(|line| say(&plan.redactor().text(line)));
        applied.apply(file)?;
    }
    let done = prepare(manager, facts, plan, todo, say).await;
    match done {
        Ok(note) => {
            report.notes.extend(note);
            report.notes.extend(applied.keep());
            Ok(())
        }
        Err(error) => {
            drop(applied);
            // What is reported is why it failed; that systemd reads the old files again is only
            // tidiness.
            let _ = manager.daemon_reload().await;
            Err(error)
        }
    }
}

async fn prepare(
    manager: &Manager,
    facts: &MachineFacts,
    plan: &InstallPlan,
    todo: &Todo,
    say: Say<'_>,
) -> Result<Option<String>, ServiceError> {
    if todo.prove {
        say("proving that the command starts as a service");
        test_start::prove(manager, &facts.layout, &plan.unit, plan.redactor()).await?;
    }
    // The proof unit is gone, too.
    manager.daemon_reload().await?;
    let state = manager.state(&plan.installed.unit).await?;
    if state.load != "loaded" {
        return Err(ServiceError::failed(format!(
            "systemd does not accept {} ({})",
            plan.installed.path.display(),
            state.load
        ))
        .next(format!(
            "systemd-analyze verify {}",
            plan.installed.path.display()
        )));
    }
    if todo.enable {
        let mut units = vec![plan.installed.unit.as_str()];
        units.extend(plan.installed.socket.as_deref());
        say(&format!("enabling {}", units.join(" ")));
        manager.enable(&units).await?;
    }
    if let Some(socket) = plan.former_socket.as_ref().filter(|_| todo.disable_socket) {
        manager.disable(&[socket]).await?;
    }
    if todo.linger {
        linger::turn_on(&facts.layout).await
    } else {
        Ok(None)
    }
}

/// Starts it, or brings the changes into what runs. The main process.
async fn start(
    manager: &Manager,
    plan: &InstallPlan,
    todo: &Todo,
    state: &UnitState,
    say: Say<'_>,
) -> Result<u32, ServiceError> {
    let unit = &plan.installed;
    if let Some(socket) = &plan.former_socket
        && !manager.state(socket).await?.is_down()
    {
        // It holds the addresses that the service must bind now, and takes the service down with
        // it.
        run_unit(manager, Job::Stop, unit, socket, say).await?;
    }
    if !todo.active || todo.hand_over || plan.former_socket.is_some() {
        if todo.active {
            // A socket unit cannot start while the service holds the addresses; and a service whose
            // new unit file no longer speaks of its socket outlives that one's stop, with the old
            // command.
            run(manager, Job::Stop, unit, say).await?;
        }
        return bring_up(manager, unit, &plan.config, say).await;
    }
    if todo.unit {
        run(manager, Job::Restart, unit, say).await?;
    } else if todo.files {
        run(manager, Job::Reload, unit, say).await?;
    } else {
        return Ok(state.main_pid);
    }
    wait_ready::wait(manager, unit, &plan.config).await?;
    Ok(manager.state(&unit.unit).await?.main_pid)
}

fn texts(plan: &InstallPlan, redactor: &Redactor) -> Vec<FileText> {
    plan.changed()
        .filter_map(|file| {
            Some(FileText {
                path: file.path.clone(),
                text: redactor.text(file.text()?),
            })
        })
        .collect()
}
