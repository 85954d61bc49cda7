//! `gatewayctl update`: checks another version of the gateway, puts it in place, restarts into it and
//! watches it. If anything goes wrong, the previous version is put back.

mod candidate;
mod job_update;
mod load_anew;
mod place;
mod previous;
mod running;
mod watch;

use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use self::candidate::Candidate;
use self::job_update::JobUpdate;
use self::place::Placed;
use self::previous::restart_into_previous;
use self::running::RunningProgram;
use crate::cli::args::UpdateArgs;
use crate::cli::downtime_probe::Downtime;
use crate::cli::restart_over_control::{ChangeError, CompletedChange, carry_out, interrupted};
use crate::cli::restart_report::{failed, verdict};
use crate::cli::styled_line::Tone;
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::control::protocol::{Method, Outcome, RestartParams, Status};
use crate::state::terms::cut_reason;
use crate::text::shell;
use crate::text::words::words;

words! {
    /// How far an update went.
    pub enum UpdateOutcome {
        /// --check: the file can be put in place.
        Proven = "proven",
        /// The new program runs.
        Updated = "updated",
    }
}

/// The answer of `--check` with `--json`.
#[derive(Serialize, JsonSchema)]
pub struct CheckedUpdate<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// proven
    outcome: UpdateOutcome,
    /// The program that would be replaced.
    program: &'a Path,
    /// The version that runs.
    from: &'a str,
    /// The version that would run.
    to: &'a str,
}

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
pub struct Updated<'a> {
    /// Whether the gateway failed no client during the restart, and its servers answer the requests that it
    /// sent afterwards (`restart.passages`); an error has its own object.
    ok: bool,
    /// updated
    outcome: UpdateOutcome,
    /// The instance.
    instance: &'a str,
    /// The version that ran.
    from: &'a str,
    /// The version that runs now.
    to: &'a str,
    /// The process that runs now.
    pid: u32,
    /// Where the previous program is kept.
    previous: &'a Path,
    /// The restart.
    restart: &'a Outcome,
    /// What a client saw during the restart; null when the front door did not answer before.
    probe: Option<&'a Downtime>,
}

/// Updates the selected gateway.
///
/// # Errors
/// [`Exit::Refused`] for a program that fails the checks, [`Exit::Permission`] where it may not be
/// put in place, [`Exit::Config`] when it refuses the configuration; nothing was changed then.
/// [`Exit::Failed`] when it did not take over or did not stay; the previous one is back then, or the
/// message says what to do. The same without an error when it serves, and clients failed meanwhile or get
/// no answer: whether that is its fault is not known, so it stays.
pub async fn update(ctx: &Context, args: &UpdateArgs) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (client, before) = target.connect_and_ask().await?;
    let running = RunningProgram::find(ctx, &target, client.peer(), &before).await?;
    let candidate = candidate::prove(&args.file, &running, before.handover).await?;
    place::may_replace(&running.program)?;
    let (from, to, shown) = (
        &before.version,
        &candidate.version,
        running.program.display(),
    );
    let plan = format!("gateway {from} -> {to} in {shown}");
    if args.check {
        let file = candidate.file.display();
        ctx.ui.say(format!("{file} can be put in place: {plan}"));
        ctx.ui.object(&CheckedUpdate {
            ok: true,
            outcome: UpdateOutcome::Proven,
            program: &running.program,
            from,
            to,
        });
        return Ok(Exit::Done);
    }
    let job = JobUpdate::of(&running).await?;
    let way = match &job {
        Some(job) => job.plan(),
        None => "a fresh process takes the listeners over",
    };
    ctx.ui.progress(&format!(
        "plan: {plan}; {way}, and what goes wrong puts the previous one back"
    ));
    let kept = running.pid.filter(|_| running.is_own);
    let placed = place::put(&candidate.file, &running.program, kept)?;
    let previous = placed.previous.display();
    ctx.ui.progress(&format!(
        "in place: {shown}; the previous one is {previous}"
    ));
    let method = Method::Restart(RestartParams {
        update: true,
        reason: Some(cut_reason(&format!("update to {to}"))),
        ..RestartParams::default()
    });
    let done = match &job {
        Some(job) => job.carry_out(ctx, &target, client, &before, &method).await,
        None => carry_out(ctx, &target, client, &before, &method).await,
    };
    let stays = async |done| watch_over(ctx, &target, &before, done).await;
    let done = match done {
        Ok(done) => stays(done).await,
        Err(error) => Err(error),
    };
    match done {
        Ok((done, after)) => {
            let failed = failed(&method, &done.outcome);
            report(ctx, &before, &after, &candidate, &placed, &done, failed);
            if !failed {
                return Ok(Exit::Done);
            }
            let back = format!("update {}", shell::word(&placed.previous));
            let note = "  it need not be the cause, and stays in place; this goes back:";
            ctx.ui.say(note);
            ctx.ui.say(format!("    {}", target.next(&back)));
            Ok(Exit::Failed)
        }
        Err(ChangeError::Interrupted(mut error)) => {
            error.add_line(format!(
                "the new program stays in place; the previous one is {previous}"
            ));
            Err(error)
        }
        Err(ChangeError::Failed(error)) => {
            Err(give_back(ctx, &target, &before, &placed, job.as_ref(), error).await)
        }
    }
}

/// Watches the new program.
async fn watch_over(
    ctx: &Context,
    target: &Target,
    before: &Status,
    done: CompletedChange,
) -> Result<(CompletedChange, Status), ChangeError> {
    ctx.ui
        .progress(&format!("watching it for {} s", watch::STABLE.as_secs()));
    let after = tokio::select! {
        stays = watch::stays(target, before, done.outcome.pid, watch::STABLE) => stays.map_err(ChangeError::Failed)?,
        () = interrupted() => {
            let error = Exit::StillBusy.error("interrupted: the new program serves, but was not watched to the end");
            return Err(ChangeError::Interrupted(error.with_help(target.next("status"))));
        }
    };
    Ok((done, after))
}

fn report(
    ctx: &Context,
    before: &Status,
    after: &Status,
    candidate: &Candidate,
    placed: &Placed,
    done: &CompletedChange,
    failed: bool,
) {
    let headline = format!(
        "updated: gateway {} -> {}, pid {} -> {}",
        before.version, candidate.version, before.pid, after.pid
    );
    let tone = if failed { Tone::Bad } else { Tone::Good };
    ctx.ui.say(ctx.ui.paint(&headline, tone));
    let method = Method::Restart(RestartParams::default());
    let (outcome, seen) = (&done.outcome, done.seen.as_ref());
    let lines = verdict(ctx, &method, before.pid, outcome, seen, &after.drainers);
    for line in lines.into_iter().skip(1) {
        ctx.ui.say(line);
    }
    let previous = placed.previous.display();
    ctx.ui
        .say(format!("  the previous program is kept as {previous}"));
    ctx.ui.object(&Updated {
        ok: !failed,
        outcome: UpdateOutcome::Updated,
        instance: &after.instance,
        from: &before.version,
        to: &after.version,
        pid: after.pid,
        previous: &placed.previous,
        restart: outcome,
        probe: seen,
    });
}

/// Puts the previous program back, and restarts into it when the wrong one runs. Returns `error` with
/// what became of it.
async fn give_back(
    ctx: &Context,
    target: &Target,
    before: &Status,
    placed: &Placed,
    job: Option<&JobUpdate>,
    mut error: CliError,
) -> CliError {
    error.exit = Exit::Failed;
    let (previous, program) = (shell::word(&placed.previous), shell::word(&placed.program));
    if let Err(why) = placed.back() {
        error.add_line(format!("the previous program could not be put back: {why}"));
        let restart = target.next("restart --fresh");
        return error.with_help(format!("mv {previous} {program} && {restart}"));
    }
    error.add_line(format!("the previous program is back in {program}"));
    ctx.ui
        .progress("the new program failed; the previous one is back in place");
    let now = watch::answers(target).await;
    if let Some(now) = &now
        && (now.pid == before.pid || placed.is_run_by(now.pid))
    {
        error.add_line(format!("pid {} runs it and serves", now.pid));
        return error;
    }
    let serves = now.is_some();
    let again = match (now, job) {
        (None, None) => {
            error.add_line("no gateway answers");
            let help = [target.next("status"), target.next("restart")];
            return error.with_help(help.join("\n"));
        }
        (Some(now), None) => {
            let params = RestartParams {
                fresh: true,
                ..RestartParams::default()
            };
            restart_into_previous(ctx, target, &now, params).await
        }
        (now, Some(job)) => job.give_back(ctx, target, before, now).await,
    };
    match again {
        Ok(pid) => {
            error.add_line(format!("pid {pid} runs it and serves"));
            error
        }
        Err(second) => {
            error.add_line(match serves {
                true => format!("the wrong one still runs: {}", second.message),
                false => format!("no gateway answers: {}", second.message),
            });
            error.with_help(target.next(match job {
                Some(_) => "restart --force",
                None => "restart --fresh",
            }))
        }
    }
}
