//! Start, stop and restart of a gateway that launchd runs, each awaited to its end.

use super::error::{ServiceError, inside};
use super::launchd_job::LaunchdJob;
use super::layout::Installed;
use super::report::{Driven, DrivenOutcome, Say};
use super::wait_ready;
use crate::config::Config;

/// Loads the job and waits until it is ready. Idempotent.
pub(super) async fn start(
    unit: &Installed,
    config: &Config,
    say: Say<'_>,
) -> Result<Driven, ServiceError> {
    let mut job = LaunchdJob::find(unit).await?;
    let before = job.state();
    if before.is_active() {
        return Ok(Driven::new(
            unit,
            DrivenOutcome::AlreadyRunning,
            before.main_pid,
        ));
    }
    say(&format!("loading {} into {}", unit.unit, job.domain));
    let pid = bring_up(&mut job, unit, config).await?;
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
    if job.is_inside() {
        return Err(inside(&unit.unit, &unit.instance, verb));
    }
    say(&format!("stopping {}", unit.unit));
    let outcome = match job.unload().await? {
        true => DrivenOutcome::Stopped,
        false => DrivenOutcome::AlreadyStopped,
    };
    Ok(Driven::new(unit, outcome, 0))
}

/// Unloads the job and loads it again, so that its property list is read anew. What is not loaded is loaded.
///
/// # Errors
/// Kind Refused from inside the service: this command would end between the two.
pub(super) async fn restart(
    unit: &Installed,
    config: &Config,
    say: Say<'_>,
) -> Result<Driven, ServiceError> {
    let stopped = stop(unit, "restart", say).await?;
    let started = start(unit, config, say).await?;
    let outcome = match stopped.outcome {
        DrivenOutcome::Stopped => DrivenOutcome::Restarted,
        _ => DrivenOutcome::Started,
    };
    Ok(Driven::new(unit, outcome, started.pid))
}

/// Loads the job and waits until the front door is ready. The main process.
async fn bring_up(
    job: &mut LaunchdJob<'_>,
    unit: &Installed,
    config: &Config,
) -> Result<u32, ServiceError> {
    job.load().await?;
    let asking = async || Ok(LaunchdJob::find(unit).await?.state());
    let ready = wait_ready::wait(asking, unit, config).await;
    job.refresh().await?;
    ready.map_err(|error| error.lines(job.fares()))?;
    Ok(job.state().main_pid)
}
