//! Start, stop and restart of an installed gateway, each awaited to its end.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use tokio::time::{Instant, interval_at};

use super::error::{ServiceError, inside};
use super::launchd_drive;
use super::layout::{Installed, Layout, find, installed};
use super::manager::{
    JOB_LIMIT, Job, Manager, UnitState, journalctl, last_words, newest_line, systemctl,
};
use super::manager_kind::ServiceManagerKind;
use super::report::{Driven, DrivenOutcome, Say};
use super::wait_ready;
use crate::config::{self, Config, ConfigError, Env, Loaded, Overrides, TEXT_MAX, regular_file};
use crate::os::process::{ancestors, group_of, is_within};
use crate::state::paths::Scope;
use crate::systemd::words::{JobResult, ServiceResult, Word};

/// How often a start or a stop that takes long is told of: most take less.
const TELL_SLOW: Duration = Duration::from_secs(5);

/// The installed gateway that is meant: by name, or the only one there is.
///
/// # Errors
/// Kind NotInstalled, or Usage when there are several.
pub fn select(
    env: &Env<'_>,
    instance: Option<&str>,
    scope: Option<Scope>,
) -> Result<Installed, ServiceError> {
    let none = |what: String| {
        ServiceError::not_installed(what).next("gatewayctl install --now -- COMMAND")
    };
    if let Some(name) = instance {
        return find(env, name, scope).ok_or_else(|| {
            let all = installed(env, scope);
            let names = all.iter().map(|unit| unit.instance.as_str());
            let error = none(format!("{name} is not installed as a service"));
            match config::nearest(name, names) {
                Some(meant) => error.next(format!("did you mean --instance {meant}?")),
                None => error,
            }
        });
    }
    let mut all = installed(env, scope);
    match all.len() {
        0 => Err(none("no gateway is installed as a service".to_owned())),
        1 => Ok(all.remove(0)),
        _ => Err(several(&all)),
    }
}

/// The question which one is meant.
pub(super) fn several(all: &[Installed]) -> ServiceError {
    let lines = all
        .iter()
        .map(|one| format!("{}  ({}, {} scope)", one.instance, one.unit, one.scope));
    let error = ServiceError::usage("several gateways are installed:").lines(lines);
    error.next("say which one: --instance NAME, and --user or --system where both have it")
}

/// Starts the service, and its sockets first. Idempotent; a failed unit is reset.
pub async fn start(env: &Env<'_>, unit: &Installed, say: Say<'_>) -> Result<Driven, ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return launchd_drive::start(unit, &settings(env, unit), say).await;
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let before = manager.state(&unit.unit).await?;
    if before.is_active() && before.main_pid != 0 {
        wait_ready::refuse_waiting(unit, &before, &settings(env, unit))?;
        return Ok(Driven::new(
            unit,
            DrivenOutcome::AlreadyRunning,
            before.main_pid,
        ));
    }
    let pid = bring_up(&manager, unit, &settings(env, unit), say).await?;
    Ok(Driven::new(unit, DrivenOutcome::Started, pid))
}

/// Stops the service, and its sockets first, so that no client starts it again. Idempotent.
///
/// # Errors
/// Kind Refused from inside the service; else when systemd does not do it.
pub async fn stop(env: &Env<'_>, unit: &Installed, say: Say<'_>) -> Result<Driven, ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return launchd_drive::stop(unit, "stop", say).await;
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let before = manager.state(&unit.unit).await?;
    if is_inside(&before) {
        return Err(inside(&unit.unit, &unit.instance, "stop"));
    }
    if before.is_down() && manager.socket_state(unit).await?.is_down() {
        return Ok(Driven::new(unit, DrivenOutcome::AlreadyStopped, 0));
    }
    take_down(&manager, unit, say).await?;
    Ok(Driven::new(unit, DrivenOutcome::Stopped, 0))
}

/// Has the service manager restart the service, or start it when it is stopped, and waits until it
/// is ready.
///
/// This is for a gateway that does not answer; one that does restarts itself, without cutting
/// anything.
pub async fn restart(
    env: &Env<'_>,
    unit: &Installed,
    say: Say<'_>,
) -> Result<Driven, ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return launchd_drive::restart(unit, &settings(env, unit), say).await;
    }
    let manager = Manager::connect(unit.scope, env).await?;
    if manager.state(&unit.unit).await?.is_down() {
        let pid = bring_up(&manager, unit, &settings(env, unit), say).await?;
        return Ok(Driven::new(unit, DrivenOutcome::Started, pid));
    }
    run(&manager, Job::Restart, unit, say).await?;
    wait_ready::wait(
        async || manager.state(&unit.unit).await,
        unit,
        &settings(env, unit),
    )
    .await?;
    Ok(Driven::new(
        unit,
        DrivenOutcome::Restarted,
        manager.state(&unit.unit).await?.main_pid,
    ))
}

/// What the manager knows of the service.
pub async fn state(env: &Env<'_>, unit: &Installed) -> Result<UnitState, ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return launchd_drive::state(unit).await;
    }
    let manager = Manager::connect(unit.scope, env).await?;
    manager.state(&unit.unit).await
}

/// Starts sockets and service and waits until the front door is ready. The main process.
pub(super) async fn bring_up(
    manager: &Manager,
    unit: &Installed,
    config: &Config,
    say: Say<'_>,
) -> Result<u32, ServiceError> {
    manager.reset_failed(&unit.unit).await;
    if let Some(socket) = &unit.socket {
        manager.reset_failed(socket).await;
        run_unit(manager, Job::Start, unit, socket, say).await?;
    }
    run(manager, Job::Start, unit, say).await?;
    wait_ready::wait(async || manager.state(&unit.unit).await, unit, config).await?;
    Ok(manager.state(&unit.unit).await?.main_pid)
}

/// Stops sockets and service.
pub(super) async fn take_down(
    manager: &Manager,
    unit: &Installed,
    say: Say<'_>,
) -> Result<(), ServiceError> {
    if let Some(socket) = &unit.socket {
        run_unit(manager, Job::Stop, unit, socket, say).await?;
    }
    run(manager, Job::Stop, unit, say).await
}

/// Runs one job on the service; an error shows what the service logged last.
pub(super) async fn run(
    manager: &Manager,
    job: Job,
    unit: &Installed,
    say: Say<'_>,
) -> Result<(), ServiceError> {
    run_unit(manager, job, unit, &unit.unit, say).await
}

/// The same on another unit of the service: its socket.
pub(super) async fn run_unit(
    manager: &Manager,
    job: Job,
    unit: &Installed,
    name: &str,
    say: Say<'_>,
) -> Result<(), ServiceError> {
    let doing = match job {
        Job::Start => "starting",
        Job::Stop => "stopping",
        Job::Restart => "restarting",
        Job::Reload => "reloading",
    };
    say(&format!("{doing} {name}"));
    let work = manager.job(job, name, JOB_LIMIT);
    let slow = async |waited| {
        let status = manager.state(name).await.unwrap_or_default().status_text;
        say(&slow_job(
            doing,
            waited,
            &status,
            newest_line(unit.scope, name),
        ));
    };
    match telling_slow(work, slow).await? {
        Word::Known(JobResult::Done) => Ok(()),
        Word::Other(result) => {
            let state = manager.state(name).await.unwrap_or_default();
            let words = last_words(unit.scope, name);
            let why = match state.result {
                Word::Known(ServiceResult::Success | ServiceResult::NoService) => result,
                of_service => format!("{result}: {of_service}"),
            };
            let next = format!(
                "{}\n{}",
                journalctl(unit.scope, &format!("{name} -n 30")),
                systemctl(unit.scope, &format!("status {name}"))
            );
            let error = ServiceError::failed(format!("{name} did not {job} ({why})"));
            Err(error.quoting(words).next(next))
        }
    }
}

/// Does work that may take long; `slow` tells of it meanwhile, and learns how long it has taken.
pub(super) async fn telling_slow<T>(
    work: impl Future<Output = T>,
    slow: impl AsyncFn(Duration),
) -> T {
    let begun = Instant::now();
    let mut due = interval_at(begun + TELL_SLOW, TELL_SLOW);
    let mut work = pin!(work);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = due.tick() => slow(begun.elapsed()).await,
        }
    }
}

/// A line on a job that takes long: what the service says about itself, and what it or a server of it
/// printed last.
fn slow_job(doing: &str, waited: Duration, status: &str, printed: Option<String>) -> String {
    let status = match status {
        "" => String::new(),
        status => format!(": {status}"),
    };
    let printed = printed.map_or(String::new(), |line| format!("; it printed last: {line}"));
    format!(
        "still {doing} after {} s{status}{printed}",
        waited.as_secs()
    )
}

/// Whether this process belongs to the service.
pub fn is_inside(state: &UnitState) -> bool {
    is_within(&group_of(std::process::id()), &state.control_group)
}

/// Refuses what would end this process half-way: a job of launchd cannot be driven from inside, because
/// launchd starts no process outside of a job.
///
/// # Errors
/// Kind Refused from inside a job of launchd.
pub fn refuse_inside(unit: &Installed, state: &UnitState, verb: &str) -> Result<(), ServiceError> {
    let is_job = unit.manager == ServiceManagerKind::Launchd && state.main_pid != 0;
    match is_job && ancestors(std::process::id()).contains(&state.main_pid) {
        true => Err(inside(&unit.unit, &unit.instance, verb)),
        false => Ok(()),
    }
}

/// Has the service manager run `command` in a unit of its own: what is inside of the service would
/// end half-way with it. The unit's name, and the command that shows its log.
///
/// # Errors
/// Kind Permission when the manager does not let this user.
pub async fn run_outside(
    env: &Env<'_>,
    unit: &Installed,
    command: &[String],
) -> Result<(String, String), ServiceError> {
    let name = format!("gateway-restart-{}.service", unit.instance);
    let manager = Manager::connect(unit.scope, env).await?;
    manager
        .run_outside(&name, &format!("Restart of {}", unit.unit), command)
        .await?;
    let journal = journalctl(unit.scope, &name);
    Ok((name, journal))
}

/// The configuration of an installed gateway; the defaults where it cannot be read, which matters
/// only for the address to ask.
pub(super) fn settings(env: &Env<'_>, unit: &Installed) -> Config {
    configuration(env, unit)
        .ok()
        .flatten()
        .map(|(_, config)| config)
        .unwrap_or_default()
}

/// The configuration file of an installed gateway and what it says; none where there is none that
/// the caller may read.
///
/// # Errors
/// When it is not valid.
pub fn configuration(
    env: &Env<'_>,
    unit: &Installed,
) -> Result<Option<(PathBuf, Config)>, ConfigError> {
    let Ok(layout) = Layout::of_service(unit, env) else {
        return Ok(None);
    };
    let file = layout.config_file(&unit.instance);
    match read_configuration(&file) {
        Ok(loaded) => Ok(Some((file, loaded.config))),
        Err(ConfigError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a configuration file says by itself. It may be another user's: it is a regular file of
/// bounded length, or it is not read.
///
/// # Errors
/// When it cannot be read, or is not valid.
pub fn read_configuration(file: &Path) -> Result<Loaded, ConfigError> {
    match regular_file::read_text(file, TEXT_MAX) {
        Ok(text) => config::load_text(&Overrides::default(), &Env(&|_| None), file, Some(text)),
        Err(source) => Err(ConfigError::Unreadable {
            path: file.to_owned(),
            source,
        }),
    }
}
