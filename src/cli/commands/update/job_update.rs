//! The update of a gateway that launchd runs. It exits, and launchd starts the program that is in place by
//! then, while it holds the listeners. But launchd may have noted the identity of the program when it loaded
//! the job, and refuse every other one until the next load: then the job is loaded anew.

use super::load_anew::load_anew;
use super::previous::{GIVEN_BACK, restart_into_previous};
use super::running::RunningProgram;
use crate::cli::restart_over_control::{ChangeError, CompletedChange, carry_out};
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::control::client::Client;
use crate::control::protocol::{Method, RestartParams, Status};
use crate::service::{Installed, JobLife};

/// The job whose program is replaced.
pub(super) struct JobUpdate {
    unit: Installed,
    life: JobLife,
}

impl JobUpdate {
    /// None for what is no job of launchd.
    ///
    /// # Errors
    /// When launchd cannot be asked.
    pub(super) async fn of(running: &RunningProgram) -> Result<Option<Self>, CliError> {
        let Some(unit) = &running.service else {
            return Ok(None);
        };
        let life = JobLife::look(unit).await?;
        Ok(life.map(|life| Self {
            unit: unit.clone(),
            life,
        }))
    }

    /// For the plan.
    pub(super) fn plan(&self) -> &'static str {
        match self.life.is_pinned {
            true => {
                "launchd has noted the identity of the program, so the job is loaded anew, which closes the listeners for a moment: connections that come meanwhile are refused"
            }
            false => {
                "the gateway exits, and launchd, which holds the listeners, starts the new one"
            }
        }
    }

    /// Has the new program started.
    pub(super) async fn carry_out(
        &self,
        ctx: &Context,
        target: &Target,
        client: Client,
        before: &Status,
        method: &Method,
    ) -> Result<CompletedChange, ChangeError> {
        if self.life.is_pinned {
            drop(client);
            return self
                .load_anew(ctx, target, before, method, Some(&self.life))
                .await;
        }
        let ended = tokio::select! {
            done = carry_out(ctx, target, client, before, method) => return done,
            ended = self.life.next_ended() => ended,
        };
        if ended.is_refused {
            ctx.ui
                .progress(&format!("{}; the job is loaded anew", ended.why));
            // The end that launchd tells now is the one before the load.
            return self.load_anew(ctx, target, before, method, None).await;
        }
        let error = Exit::Failed.error(ended.why);
        Err(ChangeError::Failed(error.with_help(target.next("logs"))))
    }

    async fn load_anew(
        &self,
        ctx: &Context,
        target: &Target,
        before: &Status,
        method: &Method,
        gives_up: Option<&JobLife>,
    ) -> Result<CompletedChange, ChangeError> {
        let (unit, why) = (&self.unit, reason(method));
        load_anew(ctx, target, unit, before, why, gives_up).await
    }

    /// Has the previous program started, which is in its place again, where `now` serves or nothing does. The
    /// pid that runs it.
    ///
    /// # Errors
    /// When launchd does not load it.
    pub(super) async fn give_back(
        &self,
        ctx: &Context,
        target: &Target,
        before: &Status,
        now: Option<Status>,
    ) -> Result<u32, CliError> {
        if let Some(now) = now.as_ref().filter(|_| !self.life.is_pinned) {
            let params = RestartParams {
                update: true,
                ..RestartParams::default()
            };
            let done = restart_into_previous(ctx, target, now, params).await;
            if done.is_ok() {
                return done;
            }
        }
        let now = now.as_ref().unwrap_or(before);
        let done = load_anew(ctx, target, &self.unit, now, GIVEN_BACK.to_owned(), None).await;
        let done = done.map_err(CliError::from)?;
        Ok(done.outcome.pid.unwrap_or(now.pid))
    }
}

fn reason(method: &Method) -> String {
    match method {
        Method::Restart(params) => params.reason.clone(),
        _ => None,
    }
    .unwrap_or_default()
}
