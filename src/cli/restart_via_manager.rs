//! `gatewayctl restart` through the service manager: with `--force`, and for a gateway that does
//! not answer.
//!
//! What is stale on the port is ended first, a healthy holder of the port is named and left
//! alone, and the service manager does the rest. From inside of the service the whole is handed to
//! a unit of its own.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, timeout};

use super::args::{RestartArgs, Wait};
use super::downtime_probe::{Downtime, DowntimeProbe};
use super::query::{STATUS_TIME, status_now};
use super::restart_over_control::interrupted;
use super::stale_gateways;
use super::start_checks::{refuse_invalid, refuse_unrunnable};
use super::target::{self, Target, is_named_outright};
use super::ui::Tone;
use super::{CliError, Context, Exit};
use crate::config::{Env, Listen};
use crate::control::protocol::Status;
use crate::service::{self, Driven, Installed, UnitState};
use crate::stale::{AddressClaim, AddressState, CleanMode, CleanReport};
use crate::state::owner::Owner;
use crate::state::paths::Scope;
use crate::state::restart_intent::{self, Intent};
use crate::text::human::span;
use crate::text::words::words;

/// What work under way has with `--force`: an ordinary request is answered by then, and nobody
/// calls it waiting.
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
    /// What a client saw meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Downtime>,
    /// What was cleaned from the address.
    clean: &'a CleanReport,
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
    /// What the gateway said; none when it does not answer.
    status: Option<Status>,
    /// What has been done so far, for somebody who no longer waits.
    stage: Cell<&'static str>,
}

/// Restarts an installed gateway through its service manager, and starts one that is stopped. None
/// when that is not what is meant: it answers and is to restart itself without cutting anything, or
/// is no service, or is another user's.
///
/// # Errors
/// [`Exit::Refused`] when somebody healthy has the port, [`Exit::StillBusy`] when the service is
/// not ready in time, and what the service manager refuses.
pub async fn restart(ctx: &Context, args: &RestartArgs) -> Result<Option<Exit>, CliError> {
    if is_named_outright(&ctx.global) {
        return Ok(None);
    }
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    // Several, or none: what to say of that is known where a running one is looked for.
    let Ok(unit) = service::select(&env, name.as_deref(), target::scope(&ctx.global)) else {
        return Ok(None);
    };
    let answer = answer(ctx).await;
    match &answer {
        // It restarts itself; so does one of another name, which is no service.
        Ok(status) if !args.force || status.instance != unit.instance => return Ok(None),
        Err(error) if matches!(error.exit, Exit::Usage | Exit::Permission) => return Ok(None),
        _ => {}
    }
    refuse_invalid(&env, &unit)?;
    let before = service::state(&env, &unit).await?;
    let silent = answer
        .as_ref()
        .err()
        .map(|error| (error.exit, error.message.clone()));
    if let Some((Exit::NotRunning, _)) = silent
        && before.is_active()
        && unit.scope == Scope::System
        && !nix::unistd::geteuid().is_root()
    {
        // Its control socket is not for us: what it could do without cutting anything, systemd
        // could not.
        let message = format!(
            "{} runs (pid {}), but does not let this user ask it",
            unit.unit, before.main_pid
        );
        return Err(Exit::Permission
            .error(message)
            .with_help("the same command with sudo"));
    }
    refuse_unrunnable(&env, &unit).await?;
    let this = ManagerRestart {
        ctx,
        args,
        env: Env::real(),
        unit,
        before,
        status: answer.ok(),
        stage: Cell::new("nothing was done yet"),
    };
    if service::is_inside(&this.before) {
        return this.hand_over().await;
    }
    ctx.ui
        .progress(&this.plan(silent.map(|(_, message)| message)));
    tokio::select! {
        done = this.carry_out() => done.map(Some),
        () = interrupted() => Err(this.interrupted()),
    }
}

async fn answer(ctx: &Context) -> Result<Status, CliError> {
    let target = Target::find(&ctx.global, &Env::real())?;
    status_now(&target).await
}

impl ManagerRestart<'_> {
    fn plan(&self, silent: Option<String>) -> String {
        let unit = &self.unit.unit;
        match (silent, self.before.is_down()) {
            (None, true) => {
                format!("plan: a gateway that runs by hand is asked to stop, and {unit} is started")
            }
            (None, false) => format!(
                "plan: the service manager ends {unit} and starts it; new connections wait meanwhile"
            ),
            (Some(_), true) => format!("plan: {unit} is stopped, so it is started"),
            (Some(why), false) => format!(
                "plan: {why}; so the service manager ends and starts it, and new connections wait meanwhile"
            ),
        }
    }

    async fn carry_out(&self) -> Result<Exit, CliError> {
        let ui = &self.ctx.ui;
        let begun = Instant::now();
        let say =
            |line: &str| ui.progress(&format!("{:>7.2}s  {line}", begun.elapsed().as_secs_f64()));
        let probe = self.probe().await;
        let claim = service::address_claim(&self.env, &self.unit).await?;
        self.stage.set(
            "gateways that were in the way may have been ended; the service itself is as it was",
        );
        let cleaned = stale_gateways::end_stale(
            &claim,
            if self.args.force {
                CleanMode::Ask
            } else {
                CleanMode::Stale
            },
        )
        .await?;
        cleaned.lines().iter().for_each(|line| say(line));
        match &cleaned.state {
            AddressState::Held(_) => return Err(stale_gateways::held(&cleaned)),
            AddressState::Busy(_) => say(&format!("{}; going on", cleaned.stands())),
            AddressState::Kept(_) if self.before.main_pid == 0 => say(&cleaned.stands()),
            AddressState::Free | AddressState::Kept(_) | AddressState::Ours => {}
        }
        let intent = AnnouncedRestart::leave(self, &claim);
        self.stage.set("the service manager goes on with it");
        let driven = service::restart(&self.env, &self.unit, &say).await?;
        // It was taken by the process that it was for, or there was none.
        drop(intent);
        let took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let seen = match probe {
            Some(probe) => Some(probe.finish().await),
            None => None,
        };
        self.verify(&driven).await?;
        let verdict = ManagerRestartAnswer {
            driven: &driven,
            pid_before: self.before.main_pid,
            took_ms,
            probe: seen.as_ref(),
            clean: &cleaned,
        };
        ui.object(&verdict);
        let pids = match (self.before.main_pid, driven.pid) {
            (0, now) => format!("pid {now}"),
            (before, now) => format!("pid {before} -> {now}"),
        };
        ui.say(&ui.paint(
            &format!(
                "{}: {}, {pids}, in {}",
                driven.unit,
                driven.outcome,
                span(took_ms)
            ),
            Tone::Good,
        ));
        match seen.filter(|seen| seen.sent > 0) {
            Some(seen) => {
                let tone = if seen.failed == 0 {
                    Tone::Good
                } else {
                    Tone::Bad
                };
                ui.say(&format!("  {}", ui.paint(&seen.sentence(), tone)));
            }
            None => ui.say("  downtime unknown: it did not answer before"),
        }
        Ok(Exit::Done)
    }

    /// Probes the front door, where there is one that answers.
    async fn probe(&self) -> Option<DowntimeProbe> {
        let listen: Listen = self.status.as_ref()?.listeners.first()?.parse().ok()?;
        timeout(STATUS_TIME, DowntimeProbe::start(&listen))
            .await
            .ok()
            .flatten()
    }

    /// The gateway that answers now must be the one that the manager started.
    async fn verify(&self, driven: &Driven) -> Result<(), CliError> {
        let Ok(status) = answer(self.ctx).await else {
            return Ok(());
        };
        if status.pid == driven.pid || driven.pid == 0 {
            return Ok(());
        }
        let message = format!(
            "{} has pid {}, but pid {} answers as {}",
            driven.unit, driven.pid, status.pid, status.instance
        );
        Err(Exit::Failed.error(message).with_help("gatewayctl status"))
    }

    /// What ends with the service must not be what restarts it.
    async fn hand_over(&self) -> Result<Option<Exit>, CliError> {
        let scope = if self.unit.scope == Scope::User {
            "--user"
        } else {
            "--system"
        };
        let program = std::env::current_exe().map_err(|error| {
            Exit::Failed.error(format!("cannot tell which program this is: {error}"))
        })?;
        let mut command = vec![
            program.to_string_lossy().into_owned(),
            "restart".to_owned(),
            scope.to_owned(),
        ];
        command.extend(["--instance".to_owned(), self.unit.instance.clone()]);
        if self.args.force {
            command.push("--force".to_owned());
        }
        if let Some(reason) = &self.args.reason {
            command.extend(["--reason".to_owned(), reason.clone()]);
        }
        let (by, journal) = match service::run_outside(&self.env, &self.unit, &command).await {
            Ok(names) => names,
            // It can still do it itself.
            Err(error)
                if error.kind == service::ServiceErrorKind::Permission && self.status.is_some() =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let ui = &self.ctx.ui;
        let (instance, unit) = (&self.unit.instance, &self.unit.unit);
        ui.object(&ScheduledRestart {
            ok: true,
            instance,
            unit,
            outcome: HandedOverOutcome::Scheduled,
            by: &by,
            journal: &journal,
        });
        ui.say(&ui.paint(
            &format!("scheduled: {by} restarts {unit} from outside of it"),
            Tone::Good,
        ));
        ui.say(&format!("  {journal}"));
        Ok(Some(Exit::Done))
    }

    fn interrupted(&self) -> CliError {
        let error = Exit::StillBusy.error(format!("interrupted: {}", self.stage.get()));
        error.with_help(format!(
            "gatewayctl status --instance {}",
            self.unit.instance
        ))
    }
}

/// An intent that lies there for the SIGTERM of the manager; removed when it is not needed any
/// more.
struct AnnouncedRestart(PathBuf);

impl AnnouncedRestart {
    /// None where no gateway is there to read it.
    fn leave(this: &ManagerRestart<'_>, claim: &AddressClaim) -> Option<Self> {
        let pid = this.before.main_pid;
        let dir = claim.state.iter().find(|dir| {
            Owner::read(dir).is_some_and(|owner| owner.pid == pid && owner.lives() != Some(false))
        })?;
        let now = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let wait = if this.args.force {
            Some(Wait::Limit(FORCE_GRACE))
        } else {
            this.args.wait
        };
        let reason = this
            .args
            .reason
            .clone()
            .unwrap_or_else(|| "gatewayctl restart".to_owned());
        let intent = Intent {
            pid,
            created_at_ms: now,
            reason,
            force: false,
            wait_ms: wait.map(Wait::to_wire),
        };
        // Without it the stop is an ordinary one.
        restart_intent::write(dir, &intent)
            .is_ok()
            .then(|| Self(dir.clone()))
    }
}

impl Drop for AnnouncedRestart {
    fn drop(&mut self) {
        restart_intent::remove(&self.0);
    }
}
