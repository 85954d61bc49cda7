//! Start, stop and restart of a gateway that launchd runs, each awaited to its end.

use super::error::{ServiceError, inside};
use super::launchd_job::LaunchdJob;
use super::launchd_record::{JobAim, JobRecord};
use super::layout::{Installed, installed};
use super::manager::UnitState;
use super::manager_kind::ServiceManagerKind;
use super::report::{Driven, DrivenOutcome, Say};
use super::wait_ready;
use crate::config::{Config, Env};
use crate::launchd::launchctl::Launchctl;
use crate::state::paths::Scope;

/// Loads the job and waits until it is ready. Idempotent.
pub(super) async fn start(
    unit: &Installed,
    config: &Config,
    say: Say<'_>,
) -> Result<Driven, ServiceError> {
    let mut job = LaunchdJob::find(unit).await?;
    let before = job.state();
    if before.is_active() {
        job.record().end()?;
        return Ok(Driven::new(
            unit,
            DrivenOutcome::AlreadyRunning,
            before.main_pid,
        ));
    }
    job.record().begin(JobAim::Loaded)?;
    let pid = bring_up(&mut job, unit, config, say).await?;
    Ok(Driven::new(unit, DrivenOutcome::Started, pid))
}

/// Unloads the job: a process that launchd is to keep alive cannot be stopped otherwise. It is loaded again
/// at the next login, as a unit that is enabled is started at the next boot. Idempotent.
///
/// # Errors
/// Kind Refused from inside the service.
pub(super) async fn stop(
    unit: &Installed,
    verb: &str,
    say: Say<'_>,
) -> Result<Driven, ServiceError> {
    let mut job = LaunchdJob::find(unit).await?;
    refuse_inside(&job, unit, verb)?;
    say(&format!("stopping {}", unit.unit));
    job.record().begin(JobAim::Unloaded)?;
    let unloaded = job.unload().await;
    // Whoever asked is told of an error, and asks again.
    job.record().end()?;
    let outcome = match unloaded? {
        true => DrivenOutcome::Stopped,
        false => DrivenOutcome::AlreadyStopped,
    };
    Ok(Driven::new(unit, outcome, 0))
}

/// Has launchd end the process and start the next one, and loads the job anew where its property list or its
/// program has changed since it was loaded. What is not loaded is loaded.
///
/// # Errors
/// Kind Refused from inside the service: this command would end half-way.
pub(super) async fn restart(
    unit: &Installed,
    config: &Config,
    say: Say<'_>,
) -> Result<Driven, ServiceError> {
    let mut job = LaunchdJob::find(unit).await?;
    refuse_inside(&job, unit, "restart")?;
    let was_loaded = job.loaded.is_some();
    let record = job.record();
    if was_loaded {
        say(&format!("restarting {}", unit.unit));
        if job.start_anew().await? {
            record.end()?;
            let pid = until_ready(&mut job, unit, config).await?;
            return Ok(Driven::new(unit, DrivenOutcome::Restarted, pid));
        }
    }
    record.begin(JobAim::Reloaded)?;
    if was_loaded {
        say(&format!("unloading {}", unit.unit));
        job.unload().await?;
    }
    let pid = bring_up(&mut job, unit, config, say).await?;
    let outcome = match was_loaded {
        true => DrivenOutcome::Restarted,
        false => DrivenOutcome::Started,
    };
    Ok(Driven::new(unit, outcome, pid))
}

/// What the job is doing.
pub(super) async fn state(unit: &Installed) -> Result<UnitState, ServiceError> {
    Ok(LaunchdJob::find(unit).await?.state())
}

/// Goes on where a command before was ended half-way: it may have unloaded a job that nobody else would load.
/// For the beginning of every command; where it does not work, that is told, and the next one tries again.
pub async fn resume(env: &Env<'_>, say: Say<'_>) {
    if Launchctl::find().is_none() {
        return;
    }
    for unit in installed(env, None) {
        let may_ask = unit.scope == Scope::User || nix::unistd::geteuid().is_root();
        let is_job = unit.manager == ServiceManagerKind::Launchd;
        let Some(aim) = JobRecord::of(&unit).undone().filter(|_| is_job && may_ask) else {
            continue;
        };
        say(&format!(
            "a command before was ended half-way; {} is to be {aim}",
            unit.unit
        ));
        if let Err(error) = reach(&unit, aim).await {
            say(&error.to_string());
        }
    }
}

async fn reach(unit: &Installed, aim: JobAim) -> Result<(), ServiceError> {
    let mut job = LaunchdJob::find(unit).await?;
    refuse_inside(&job, unit, "stop")?;
    job.record().begin(aim)?;
    match aim {
        JobAim::Loaded => job.load().await?,
        JobAim::Reloaded => {
            job.unload().await?;
            job.load().await?;
        }
        JobAim::Unloaded => drop(job.unload().await?),
    }
    job.record().end()
}

fn refuse_inside(job: &LaunchdJob<'_>, unit: &Installed, verb: &str) -> Result<(), ServiceError> {
    match job.is_inside() {
        true => Err(inside(&unit.unit, &unit.instance, verb)),
        false => Ok(()),
    }
}

/// Loads the job and waits until the front door is ready. The main process.
async fn bring_up(
    job: &mut LaunchdJob<'_>,
    unit: &Installed,
    config: &Config,
    say: Say<'_>,
) -> Result<u32, ServiceError> {
    say(&format!("loading {} into {}", unit.unit, job.domain));
    job.load().await?;
    job.record().end()?;
    until_ready(job, unit, config).await
}

async fn until_ready(
    job: &mut LaunchdJob<'_>,
    unit: &Installed,
    config: &Config,
) -> Result<u32, ServiceError> {
    let asking = async || Ok(LaunchdJob::find(unit).await?.state());
    let ready = wait_ready::wait(asking, unit, config).await;
    job.refresh().await?;
    ready.map_err(|error| error.lines(job.fares()))?;
    Ok(job.state().main_pid)
}
