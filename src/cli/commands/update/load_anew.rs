//! A job of launchd that is loaded anew: launchd then notes the identity of the program that is there now.
//! It closes the listeners meanwhile, so that this is only done where another start would be refused.

use std::future::pending;

use tokio::time::Instant;

use crate::cli::announced_restart::AnnouncedRestart;
use crate::cli::downtime_probe::DowntimeProbe;
use crate::cli::restart_over_control::{ChangeError, CompletedChange, generation, interrupted};
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::control::protocol::{Outcome, Status};
use crate::service::{self, Installed, JobLife};
use crate::state::terms::RequestOutcome;

/// Has launchd end the process of `before`, forget the job and load it. With `gives_up`, the job before, it fails
/// when the first process ends, else it waits for one that stays.
///
/// # Errors
/// As the service manager's restart. A command that is interrupted here leaves a note, and the next one
/// loads the job.
pub(super) async fn load_anew(
    ctx: &Context,
    target: &Target,
    unit: &Installed,
    before: &Status,
    reason: String,
    gives_up: Option<&JobLife>,
) -> Result<CompletedChange, ChangeError> {
    let env = Env::real();
    let begun = Instant::now();
    let probe = DowntimeProbe::start(before).await;
    let dirs = service::state_dirs(&env, unit);
    let intent = AnnouncedRestart::leave_in(&dirs, before.pid, reason, None);
    let step = |line: &str| ctx.ui.step(begun, line);
    let ended = async {
        match gives_up {
            Some(life) => life.ended_after_load().await,
            None => pending().await,
        }
    };
    let driven = tokio::select! {
        ended = ended => {
            let error = Exit::Failed.error(ended.why);
            return Err(ChangeError::Failed(error.with_help(target.next("logs"))));
        }
        driven = service::restart(&env, unit, &step) => driven,
        () = interrupted() => {
            let error = Exit::StillBusy.error("interrupted while launchd loads the job anew; the next command of gatewayctl goes on with it");
            return Err(ChangeError::Interrupted(error.with_help(target.next("status"))));
        }
    };
    drop(intent);
    let seen = match probe {
        Some(probe) => Some(probe.finish().await),
        None => None,
    };
    let failed = |error: CliError| ChangeError::Failed(error);
    let driven = driven.map_err(|error| failed(error.into()))?;
    let now = target.status().await.map_err(failed)?;
    let request = now.last_restart.as_ref().map(|last| last.request.clone());
    Ok(CompletedChange {
        outcome: Outcome {
            request: request.unwrap_or_default(),
            outcome: RequestOutcome::Done,
            into: None,
            before: generation(before),
            after: generation(&now),
            pid: Some(driven.pid),
            took_ms: begun.elapsed().as_millis() as u64,
            drained: true,
            clients: None,
            passages: Vec::new(),
            notes: Vec::new(),
        },
        seen,
        now: Some(now),
    })
}
