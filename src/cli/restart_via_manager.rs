//! `gatewayctl restart` through the service manager: with `--force`, and for a gateway that does
//! not answer.
//!
//! Stale gateways on the port are ended first; if a healthy process holds the port, the restart is
//! refused. A restart that is asked for inside the service runs in a unit of its own.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::Instant;

use super::announced_restart::AnnouncedRestart;
use super::args::{RestartArgs, Wait};
use super::downtime_probe::{Downtime, DowntimeProbe};
use super::listeners_meanwhile::ListenersMeanwhile;
use super::preflight::{refuse_invalid, refuse_unrunnable};
use super::restart_over_control::interrupted;
use super::restart_report::downtime;
use super::services;
use super::stale_gateways;
use super::styled_line::Tone;
use super::target::{self, Target};
use super::unapplied;
use super::{CliError, Context, Exit};
use crate::config::Env;
use crate::control::protocol::Status;
use crate::service::{
    self, Driven, Installed, ServiceManagerKind, UnappliedFile, UnitState, more_rights,
};
use crate::stale::{AddressClaim, AddressState, CleanMode, CleanReport};
use crate::state::paths::Scope;
use crate::text::human::span;
use crate::text::words::words;

/// The drain limit with `--force`: long enough for an ordinary request, too short to notice.
const FORCE_GRACE: Duration = Duration::from_secs(1);

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagerRestartAnswer<'a> {
    #[serde(flatten)]
    driven: &'a Driven,
    /// The main process before.
    pid_before: u32,
    /// How long it took.
    took_ms: u64,
    /// What a client saw during the restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Downtime>,
    /// What was cleaned from the address.
    clean: &'a CleanReport,
    /// The files that had changed after the service was started, and are applied now.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    applied: &'a [UnappliedFile],
}

words! {
    /// What became of a restart that was handed over.
    pub enum HandedOverOutcome {
        /// Another unit carries it out.
        Scheduled = "scheduled",
    }
}

/// The answer with `--json` when the restart was handed over.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduledRestart<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: &'a str,
    /// Its unit.
    unit: &'a str,
    /// scheduled
    outcome: HandedOverOutcome,
    /// The unit that carries it out.
    by: &'a str,
    /// The command that shows its log.
    journal: &'a str,
}

/// A restart that the manager carries out.
struct ManagerRestart<'a> {
    ctx: &'a Context,
    args: &'a RestartArgs,
    env: Env<'a>,
    unit: Installed,
    before: UnitState,
    /// What becomes of the listeners while no gateway runs.
    listeners: ListenersMeanwhile,
    /// What the gateway said; none when it does not answer.
    status: Option<Status>,
    /// What only a start by the manager applies.
    unapplied: Vec<UnappliedFile>,
    /// What has been done so far, for the message when the user interrupts.
    stage: Cell<&'static str>,
}

/// Why launchd may refuse the next process of a job.
const OTHER_NOTED: &str =
    "the program was replaced, and launchd may start only the one that it has noted";

/// Restarts an installed gateway through its service manager, and starts one that is stopped. None
/// when the control socket is to be used instead: the gateway answers, `--force` was not given, and
/// nothing changed that only the manager applies; or it is not a service, or it is another user's.
///
/// # Errors
/// [`Exit::Refused`] when a healthy process has the port, [`Exit::StillBusy`] when the service is
/// not ready in time, and what the service manager refuses.
pub async fn restart(ctx: &Context, args: &RestartArgs) -> Result<Option<Exit>, CliError> {
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    // None or several: the search for a running gateway reports that.
    let Ok(Some(unit)) = services::select(ctx, &env, name.as_deref()) else {
        return Ok(None);
    };
    let answer = answer(ctx).await;
    let mut unapplied = Vec::new();
    match &answer {
        // It is not this service.
        Ok(status) if status.instance != unit.instance => return Ok(None),
        Ok(status) => {
            unapplied = only_by_manager(&env, &unit, status).await;
            // It restarts itself.
            if unapplied.is_empty() && !args.force {
                let life = service::JobLife::look(&unit).await;
                if matches!(&life, Ok(Some(life)) if life.refuses_next()) {
                    ctx.ui.progress(&format!(
                        "{OTHER_NOTED}: `gatewayctl restart --force` loads the job anew, which closes the listeners for a moment"
                    ));
                }
                return Ok(None);
            }
        }
        Err(error) if matches!(error.exit, Exit::Usage | Exit::Permission) => return Ok(None),
        _ => {}
    }
    refuse_invalid(&env, &unit)?;
    let before = service::state(&env, &unit).await?;
    if matches!(&answer, Err(error) if error.exit == Exit::NotRunning)
        && before.is_active()
        && unit.scope == Scope::System
        && !nix::unistd::geteuid().is_root()
    {
        // This user may not use its control socket. A restart through systemd could cut requests.
        let message = format!(
            "{} runs (pid {}), but does not let this user ask it",
            unit.unit, before.main_pid
        );
        return Err(Exit::Permission.error(message).with_help(more_rights()));
    }
    service::refuse_inside(&unit, &before, "restart")?;
    refuse_unrunnable(&env, &unit).await?;
    service::check_variables(&env, &unit).await?;
    let (status, silent) = match answer {
        Ok(status) => (Some(status), None),
        Err(error) => (None, Some(error.message)),
    };
    let this = ManagerRestart {
        ctx,
        args,
        env: Env::real(),
        status,
        listeners: ListenersMeanwhile::of(&unit, &before).await,
        unit,
        before,
        unapplied,
        stage: Cell::new("nothing was done yet"),
    };
    if service::is_inside(&this.before) {
        return this.hand_over().await;
    }
    ctx.ui.progress(&this.plan(silent));
    tokio::select! {
        done = this.carry_out() => done.map(Some),
        () = interrupted() => Err(this.interrupted()),
    }
}

async fn answer(ctx: &Context) -> Result<Status, CliError> {
    ctx.target()?.status().await
}

/// What changed after the service was started, where the manager can apply it without a loss: it holds
/// the listeners, and this user may ask it.
async fn only_by_manager(env: &Env<'_>, unit: &Installed, status: &Status) -> Vec<UnappliedFile> {
    let may_ask = unit.scope == Scope::User || nix::unistd::geteuid().is_root();
    let holds = match service::state(env, unit).await {
        Ok(state) => state.main_pid == status.pid && (state.fd_store > 0 || unit.socket.is_some()),
        Err(_) => false,
    };
    match may_ask && holds {
        true => {
            let mut files = unapplied::unapplied(env, status).await;
            files.retain(UnappliedFile::needs_start);
            files
        }
        false => Vec::new(),
    }
}

impl ManagerRestart<'_> {
    fn plan(&self, silent: Option<String>) -> String {
        let unit = &self.unit.unit;
        if let Some(files) = unapplied::in_words(&self.unapplied) {
            return format!(
                "plan: {files} after {unit} was started, which only a start by systemd applies; so it ends when its work is done, systemd starts the next, and new connections wait meanwhile"
            );
        }
        match (silent, self.before.is_down()) {
            (None, true) => {
                format!("plan: a gateway that runs by hand is asked to stop, and {unit} is started")
            }
            (None, false) => format!(
                "plan: the service manager ends {unit} and starts it; {}",
                self.listeners
            ),
            (Some(_), true) => format!("plan: {unit} is stopped, so it is started"),
            (Some(why), false) => format!(
                "plan: {why}; so the service manager ends and starts it; {}",
                self.listeners
            ),
        }
    }

    async fn carry_out(&self) -> Result<Exit, CliError> {
        let begun = Instant::now();
        let step = |line: &str| self.ctx.ui.step(begun, line);
        let probe = match &self.status {
            Some(status) => DowntimeProbe::start(status).await,
            None => None,
        };
        let claim = service::address_claim(&self.env, &self.unit).await?;
        let cleaned = self.clean_addresses(&claim, &step).await?;
        if !self.unapplied.is_empty() {
            step("making systemd read its unit files");
            service::read_units(&self.env, &self.unit).await?;
        }
        let intent = announce(&claim.state, self.before.main_pid, self.args);
        self.stage.set(match self.unit.manager {
            ServiceManagerKind::Systemd => "the service manager goes on with it",
            ServiceManagerKind::Launchd => {
                "launchd restarts the job; the next command of gatewayctl goes on with it"
            }
        });
        let driven = service::restart(&self.env, &self.unit, &step).await?;
        // The process that it was for has read it, or there was none.
        drop(intent);
        let took_ms = begun.elapsed().as_millis() as u64;
        let seen = match probe {
            Some(probe) => Some(probe.finish().await),
            None => None,
        };
        self.verify().await?;
        self.report(&ManagerRestartAnswer {
            driven: &driven,
            pid_before: self.before.main_pid,
            took_ms,
            probe: seen.as_ref(),
            clean: &cleaned,
            applied: &self.unapplied,
        });
        Ok(Exit::Done)
    }

    /// Ends stale gateways at the addresses of the service, and refuses if a healthy process holds
    /// one of them.
    async fn clean_addresses(
        &self,
        claim: &AddressClaim,
        step: &dyn Fn(&str),
    ) -> Result<CleanReport, CliError> {
        self.stage.set(
            "gateways that were in the way may have been ended; the service itself is as it was",
        );
        let mode = if self.args.force {
            CleanMode::Ask
        } else {
            CleanMode::Stale
        };
        let cleaned = stale_gateways::end_stale(claim, mode, "gatewayctl restart").await?;
        cleaned.lines().iter().for_each(|line| step(line));
        match &cleaned.state {
            AddressState::Held(_) => return Err(stale_gateways::held(&cleaned)),
            AddressState::Busy(_) => step(&format!("{}; going on", cleaned.stands())),
            AddressState::Kept(_) if self.before.main_pid == 0 => step(&cleaned.stands()),
            AddressState::Free | AddressState::Kept(_) | AddressState::Ours => {}
        }
        Ok(cleaned)
    }

    fn report(&self, answer: &ManagerRestartAnswer<'_>) {
        let (ui, driven) = (&self.ctx.ui, answer.driven);
        ui.object(answer);
        let pids = match (answer.pid_before, driven.pid) {
            (0, now) => format!("pid {now}"),
            (before, now) => format!("pid {before} -> {now}"),
        };
        let line = format!(
            "{}: {}, {pids}, in {}",
            driven.service.unit,
            driven.outcome,
            span(answer.took_ms)
        );
        ui.say(ui.paint(&line, Tone::Good));
        ui.say(downtime(ui, answer.probe, "it did not answer before"));
    }

    /// What answers in the place of the service must be its main process.
    async fn verify(&self) -> Result<(), CliError> {
        // A gateway of this name that was started by hand may answer elsewhere.
        let global = target::of_service(&self.ctx.global, &self.unit);
        let Ok(target) = Target::find(&global, &self.env) else {
            return Ok(());
        };
        let Ok(client) = target.connect().await else {
            return Ok(());
        };
        let main = service::state(&self.env, &self.unit).await?.main_pid;
        let peer = client.peer();
        if main == 0 || peer.is(main) {
            return Ok(());
        }
        let who = match peer.pid() {
            Some(pid) => format!("pid {pid}"),
            None => format!("another process of uid {}", peer.uid),
        };
        let (unit, control) = (&self.unit.unit, target.control.display());
        let message = format!("{unit} has pid {main}, but {who} answers at {control}");
        Err(Exit::Failed.error(message).with_help(target.next("status")))
    }

    /// Lets a unit of its own restart the service: this command would end with the service.
    async fn hand_over(&self) -> Result<Option<Exit>, CliError> {
        let program = std::env::current_exe().map_err(|error| {
            Exit::Failed.error(format!("cannot tell which program this is: {error}"))
        })?;
        let program = program.to_string_lossy();
        let (instance, unit) = (&self.unit.instance, &self.unit.unit);
        let scope = match self.unit.scope {
            Scope::User => "--user",
            Scope::System => "--system",
        };
        let mut command = vec![&*program, "restart", scope, "--instance", instance];
        if self.args.force {
            command.push("--force");
        }
        if let Some(reason) = &self.args.reason {
            command.extend(["--reason", reason]);
        }
        let command: Vec<String> = command.into_iter().map(str::to_owned).collect();
        let (by, journal) = match service::run_outside(&self.env, &self.unit, &command).await {
            Ok(names) => names,
            // The gateway can still restart itself.
            Err(error)
                if error.kind == service::ServiceErrorKind::Permission && self.status.is_some() =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let ui = &self.ctx.ui;
        ui.object(&ScheduledRestart {
            ok: true,
            instance,
            unit,
            outcome: HandedOverOutcome::Scheduled,
            by: &by,
            journal: &journal,
        });
        let line = format!("scheduled: {by} restarts {unit} from outside of it");
        ui.say(ui.paint(&line, Tone::Good));
        ui.say(format!("  {journal}"));
        Ok(Some(Exit::Done))
    }

    fn interrupted(&self) -> CliError {
        let error = Exit::StillBusy.error(format!("interrupted: {}", self.stage.get()));
        error.with_help(status_of(&self.unit))
    }
}

/// What to ask after a restart that was interrupted.
fn status_of(unit: &Installed) -> String {
    format!("gatewayctl status --instance {}", unit.instance)
}

/// Announces the restart to the process that is to end.
fn announce(dirs: &[PathBuf], pid: u32, args: &RestartArgs) -> Option<AnnouncedRestart> {
    let RestartArgs { reason, wait, .. } = args.clone();
    let wait = match args.force {
        true => Some(Wait::Limit(FORCE_GRACE)),
        false => wait,
    };
    let reason = reason.unwrap_or_else(|| "gatewayctl restart".to_owned());
    AnnouncedRestart::leave_in(dirs, pid, reason, wait)
}
