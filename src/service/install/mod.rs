//! `gatewayctl install`: it looks, decides, shows, test-starts, writes and starts, in this order.

mod access;
mod account;
mod address_conflicts;
mod chosen;
mod config_text;
mod file_transaction;
mod instance_files;
mod launchd;
mod notes;
mod plan;
mod remaining_steps;
mod request;
mod socket_place;
mod test_start;
mod variables;

pub use self::request::{ChosenOption, InstallRequest};

use self::file_transaction::{FileTransaction, PlannedFile};
use self::plan::{InstallFacts, InstallPlan};
use self::remaining_steps::RemainingSteps;
use self::request::Ask;
use super::error::ServiceError;
use super::layout::{Installed, Layout};
use super::linger;
use super::manager::{Job, Manager, UnitState};
use super::manager_kind::ServiceManagerKind;
use super::report::Say;
use super::report::{InstallOutcome, InstallReport};
use super::start_stop::{bring_up, run, run_unit};
use super::wait_ready;
use crate::config::{Env, Listen};
use crate::systemd::words::LoadState;

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
        return launchd::install(env, request, say).await;
    }
    let scope = plan::scope(env, request);
    let manager = match Manager::connect(scope, env).await {
        Err(unreachable) if request.only_shows() => return preview(env, request, &unreachable),
        manager => manager?,
    };
    let layout = Layout::of(scope, env)?;
    let facts = InstallFacts::gather(env, layout, manager.version().await?)?;
    let plan = InstallPlan::make(env, request, &facts)?;
    let unit = &plan.installed;
    let state = manager.state(&unit.unit).await?;
    let todo = RemainingSteps::find(&manager, request, &plan, &state).await;
    let mut report = planned(request, &facts, &plan, &todo)?;
    report.pid = state.main_pid;
    if request.only_shows() {
        return Ok(report);
    }
    plan.refuse_unprivileged(&facts)?;
    report.ready = state.is_active();
    if todo.is_empty() {
        report.outcome = InstallOutcome::AlreadyInstalled;
        report.notes.clear();
        return Ok(report);
    }
    check_addresses(&manager, &plan, &todo, &state).await?;
    todo.consent(request, &plan, ask)?;
    report.outcome = if unit.path.exists() {
        InstallOutcome::Updated
    } else {
        InstallOutcome::Installed
    };
    carry_out(&manager, &facts, &plan, &todo, &mut report, say).await?;
    if request.now {
        let started = start(&manager, &plan, &todo, &state, say).await;
        report.pid = started.map_err(|error| with_undo(error, unit, &todo))?;
        report.ready = true;
    } else if todo.active && todo.files {
        report.notes.push(how_to_apply(unit, &todo));
    }
    Ok(report)
}

/// What would be done, with the texts of the files where only that was asked.
fn planned(
    request: &InstallRequest,
    facts: &InstallFacts,
    plan: &InstallPlan,
    todo: &RemainingSteps,
) -> Result<InstallReport, ServiceError> {
    let (unit, config) = (&plan.installed, &plan.contents.config);
    let mut report = InstallReport {
        notes: plan.notes.clone(),
        ..InstallReport::planned(unit, &facts.layout, config, todo.actions(plan))
    };
    if !request.diff {
        plan.refuse_unasked(request)?;
    }
    if request.only_shows() {
        let shown = |file: &PlannedFile| file.show(request.diff, &plan.redactor);
        report.files = plan.changed().filter_map(shown).collect();
    }
    Ok(report)
}

/// What would be written where no systemd answers, as on a machine without it: nothing is installed as
/// far as that is known, and the unit is one for every systemd.
fn preview(
    env: &Env<'_>,
    request: &InstallRequest,
    unreachable: &ServiceError,
) -> Result<InstallReport, ServiceError> {
    let layout = Layout::of(plan::scope(env, request), env)?;
    let facts = InstallFacts::gather(env, layout, 0)?;
    let plan = InstallPlan::make(env, request, &facts)?;
    let todo = RemainingSteps::of_none(request, &plan);
    let mut report = planned(request, &facts, &plan, &todo)?;
    report.notes.push(format!(
        "{unreachable}: this is what would be written where systemd {} or newer runs; without --dry-run and --diff this command fails here",
        facts.systemd
    ));
    Ok(report)
}

/// Refuses to start on addresses that another program has. Addresses that this service or its
/// socket unit holds already are not asked about.
async fn check_addresses(
    manager: &Manager,
    plan: &InstallPlan,
    todo: &RemainingSteps,
    state: &UnitState,
) -> Result<(), ServiceError> {
    if !todo.start || plan.former_socket.is_some() || todo.hand_over {
        return Ok(());
    }
    // The socket unit may be up while its service is down.
    let socket_up = manager.socket_state(&plan.installed).await?.is_active();
    let ours = |listen: &&Listen| {
        (socket_up || !state.is_down()) && plan.contents.former.gateway.listen.contains(listen)
    };
    address_conflicts::check_free(
        plan.contents
            .config
            .gateway
            .listen
            .iter()
            .filter(|listen| !ours(listen) && (state.is_down() || plan.unit.sockets.is_empty())),
    )
}

/// The note for a running service that was changed without `--now`.
fn how_to_apply(unit: &Installed, todo: &RemainingSteps) -> String {
    let apply = if todo.unit {
        format!("gatewayctl restart --instance {}", unit.instance)
    } else {
        format!("gatewayctl reload --instance {}", unit.instance)
    };
    format!("it runs as before until: {apply}")
}

/// Adds the command that undoes the install, where nothing ran before it: a service that does not
/// start keeps trying, as after a crash.
fn with_undo(error: ServiceError, unit: &Installed, todo: &RemainingSteps) -> ServiceError {
    if todo.active {
        return error;
    }
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

/// Everything but the start. What fails is undone.
async fn carry_out(
    manager: &Manager,
    facts: &InstallFacts,
    plan: &InstallPlan,
    todo: &RemainingSteps,
    report: &mut InstallReport,
    say: Say<'_>,
) -> Result<(), ServiceError> {
    let mut applied = FileTransaction::default();
    for file in plan.changed() {
        say(&file.doing());
        file.changed_lines()
            .iter()
            .for_each(|line| say(&plan.redactor.text(line)));
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
    facts: &InstallFacts,
    plan: &InstallPlan,
    todo: &RemainingSteps,
    say: Say<'_>,
) -> Result<Option<String>, ServiceError> {
    if todo.prove {
        say("test-starting the command in a temporary unit");
        test_start::prove(manager, &facts.layout, plan, say).await?;
    }
    // The proof unit is gone, too.
    manager.daemon_reload().await?;
    let state = manager.state(&plan.installed.unit).await?;
    if state.load != LoadState::Loaded {
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
        say("turning lingering on, so that it runs without a login");
        let failed = linger::turn_on(&facts.layout).await?;
        Ok(Some(failed.unwrap_or_else(|| linger::IS_ON.to_owned())))
    } else {
        Ok(None)
    }
}

/// Starts it, or brings the changes into what runs. The main process.
async fn start(
    manager: &Manager,
    plan: &InstallPlan,
    todo: &RemainingSteps,
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
        return bring_up(manager, unit, &plan.contents.config, say).await;
    }
    if todo.unit {
        run(manager, Job::Restart, unit, say).await?;
    } else if todo.files {
        run(manager, Job::Reload, unit, say).await?;
    } else {
        return Ok(state.main_pid);
    }
    wait_ready::wait(
        async || manager.state(&unit.unit).await,
        unit,
        &plan.contents.config,
    )
    .await?;
    Ok(manager.state(&unit.unit).await?.main_pid)
}
