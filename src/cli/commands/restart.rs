//! `gatewayctl restart` and `gatewayctl reload`: ask, show the steps, give the verdict.

use std::time::Duration;

use serde::Serialize;
use tokio::time::timeout;

use crate::cli::args::{RestartArgs, Wait};
use crate::cli::commands::status::draining;
use crate::cli::follow::{Done, carry_out};
use crate::cli::probe::Seen;
use crate::cli::target::Target;
use crate::cli::ui::{Tone, span};
use crate::cli::{CliError, Context, Exit, preflight, restart_via_manager};
use crate::config::Env;
use crate::control::client::Client;
use crate::control::protocol::{
    DrainStatus, GenerationInfo, Method, Outcome, RestartParams, Status,
};

/// A status needs no work; a gateway that takes longer is stopped or stuck.
pub const STATUS_TIME: Duration = Duration::from_secs(5);

/// The answer with `--json`.
#[derive(Serialize)]
struct Verdict<'a> {
    ok: bool,
    instance: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Seen>,
}

/// Restarts.
///
/// # Errors
/// What the gateway refuses or fails to do; the previous generation then serves on.
pub async fn restart(ctx: &Context, args: &RestartArgs) -> Result<Exit, CliError> {
    if let Some(exit) = restart_via_manager::restart(ctx, args).await? {
        return Ok(exit);
    }
    let params = RestartParams {
        force: args.force,
        wait_ms: args.wait.map(Wait::to_wire),
        reason: args.reason.clone(),
        drained: args.drained,
        fresh: args.fresh,
        ..RestartParams::default()
    };
    change(ctx, &Method::Restart(params), Some(args)).await
}

/// Reloads the configuration.
///
/// # Errors
/// [`Exit::Config`] when it is not valid; nothing is changed then.
pub async fn reload(ctx: &Context) -> Result<Exit, CliError> {
    change(ctx, &Method::Reload, None).await
}

async fn change(
    ctx: &Context,
    method: &Method,
    restart: Option<&RestartArgs>,
) -> Result<Exit, CliError> {
    let target = Target::find(&ctx.global, &Env::real())?;
    let mut client = target.connect().await?;
    let status = status_of(&target, &mut client).await?;
    if let Some(args) = restart {
        let config = preflight::check(&status)?;
        ctx.ui.progress(&config.map_or_else(
            || format!("plan: {}", status.strategy),
            |config| preflight::plan(&config, args, &status.strategy),
        ));
    }
    let Done { outcome, seen, now } = carry_out(ctx, &target, client, &status, method).await?;
    ctx.ui.object(&Verdict {
        ok: true,
        instance: &status.instance,
        outcome: &outcome,
        probe: seen.as_ref(),
    });
    let drainers = now.map(|now| now.drainers).unwrap_or_default();
    for line in verdict(ctx, method, status.pid, &outcome, seen.as_ref(), &drainers) {
        ctx.ui.say(&line);
    }
    let drained = restart.is_some_and(|args| args.drained);
    Ok(
        if drained && !outcome.drained && outcome.outcome == "done" {
            Exit::StillBusy
        } else {
            Exit::Done
        },
    )
}

/// The status of a gateway, over a connection of its own.
pub async fn status_now(target: &Target) -> Result<Status, CliError> {
    status_of(target, &mut target.connect().await?).await
}

/// Asks for a status; a gateway that accepts but does not answer is stopped or stuck.
pub async fn status_of(target: &Target, client: &mut Client) -> Result<Status, CliError> {
    match timeout(STATUS_TIME, client.call::<Status>(&Method::Status, |_| ())).await {
        Ok(answer) => answer.map_err(|error| target.call_failed(error)),
        Err(_) => Err(CliError::new(
            Exit::Failed,
            format!(
                "{} accepts connections at {} but does not answer: it is stopped or stuck",
                target.instance,
                target.control.display()
            ),
        )
        .with_help(format!("gatewayctl logs{}", target.flags))),
    }
}

/// The verdict for people.
pub fn verdict(
    ctx: &Context,
    method: &Method,
    pid: u32,
    outcome: &Outcome,
    seen: Option<&Seen>,
    drainers: &[DrainStatus],
) -> Vec<String> {
    let done = if matches!(method, Method::Reload) {
        "reloaded"
    } else {
        "restarted"
    };
    // The number of a generation alone says less than the process that serves it.
    let process = outcome
        .pid
        .filter(|after| *after != pid)
        .map_or(String::new(), |after| format!("pid {pid} -> {after}, "));
    let head = match (outcome.outcome.as_str(), &outcome.into) {
        ("unchanged", _) => format!(
            "nothing to do: generation {} serves on",
            outcome.after.number
        ),
        ("scheduled", _) => {
            "scheduled: it ends when its work is done, and its supervisor starts the next"
                .to_owned()
        }
        ("coalesced", Some(into)) => format!(
            "joined restart {into}, which was under way: {process}generation {}",
            numbers(outcome)
        ),
        _ => format!(
            "{done}: {process}generation {} in {}",
            numbers(outcome),
            span(outcome.took_ms)
        ),
    };
    let mut lines = vec![ctx.ui.paint(&head, Tone::Good)];
    if matches!(outcome.outcome.as_str(), "unchanged" | "scheduled") {
        return lines;
    }
    let width = outcome
        .after
        .sidecars
        .iter()
        .chain(&outcome.before.sidecars)
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    for name in names(&outcome.before, &outcome.after) {
        lines.push(format!(
            "  {name:<width$}  {}",
            pids(pid_in(&outcome.before, name), pid_in(&outcome.after, name))
        ));
    }
    if let Some(seen) = seen.filter(|seen| seen.sent > 0) {
        let tone = if seen.failed == 0 {
            Tone::Good
        } else {
            Tone::Bad
        };
        lines.push(format!("  {}", ctx.ui.paint(&seen.sentence(), tone)));
    } else {
        lines.push("  downtime unknown: the front door did not answer the probe before".to_owned());
    }
    for drainer in drainers
        .iter()
        .filter(|drainer| drainer.requests + drainer.tunnels + drainer.leases > 0)
    {
        lines.push(format!("  still finishing: {}", draining(drainer)));
    }
    lines.extend(
        outcome
            .notes
            .iter()
            .map(|note| format!("  note: {}", crate::text::log::escape(note))),
    );
    lines
}

fn numbers(outcome: &Outcome) -> String {
    match outcome.before.number == outcome.after.number {
        true => outcome.after.number.to_string(),
        false => format!("{} -> {}", outcome.before.number, outcome.after.number),
    }
}

fn names<'a>(before: &'a GenerationInfo, after: &'a GenerationInfo) -> Vec<&'a str> {
    let mut names: Vec<&str> = before
        .sidecars
        .iter()
        .chain(&after.sidecars)
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The process id of a sidecar; none when it is not part of that generation, 0 when it does not
/// run.
fn pid_in(generation: &GenerationInfo, name: &str) -> Option<u32> {
    generation
        .sidecars
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, pid)| *pid)
}

fn pids(before: Option<u32>, after: Option<u32>) -> String {
    let shown = |pid: u32| {
        if pid == 0 {
            "none".to_owned()
        } else {
            pid.to_string()
        }
    };
    match (before, after) {
        (Some(before), Some(after)) if before == after => format!("pid {} (kept)", shown(after)),
        (Some(before), Some(after)) => format!("pid {} -> {}", shown(before), shown(after)),
        (None, Some(after)) => format!("pid {} (new)", shown(after)),
        (Some(before), None) => format!("pid {} (removed)", shown(before)),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::args::Global;
    use crate::cli::fake_gateway::{self, Double};

    fn context(double: &Double) -> Context {
        let global = Global {
            state_dir: Some(double.state.clone()),
            quiet: true,
            ..Global::default()
        };
        Context {
            ui: crate::cli::Ui::new(&global),
            global,
        }
    }

    #[test]
    fn the_verdict_says_what_a_user_asks() {
        let ctx = Context {
            ui: crate::cli::Ui::new(&Global {
                color: crate::cli::args::Color::Never,
                ..Global::default()
            }),
            global: Global::default(),
        };
        let mut outcome = fake_gateway::outcome();
        outcome
            .notes
            .push("two copies of main ran side by side".into());
        let seen = Seen {
            sent: 38,
            slowest_ms: 2,
            ..Seen::default()
        };
        let drainer = DrainStatus {
            generation: 3,
            requests: 1,
            tunnels: 0,
            leases: 0,
            pid: 0,
            left_ms: None,
            blockers: Vec::new(),
        };
        let idle = DrainStatus {
            requests: 0,
            ..drainer.clone()
        };
        let lines = verdict(
            &ctx,
            &Method::Restart(RestartParams::default()),
            12,
            &outcome,
            Some(&seen),
            &[idle, drainer],
        );
        assert_eq!(
            lines,
            [
                "restarted: generation 3 -> 4 in 412 ms",
                "  main  pid 100 -> 200",
                "  downtime 0 ms: 38 probes, none failed, slowest answer 2 ms",
                "  still finishing: generation 3: 1 request, 0 tunnels; without limit",
                "  note: two copies of main ran side by side",
            ]
        );
        outcome.pid = Some(34);
        let lines = verdict(
            &ctx,
            &Method::Restart(RestartParams::default()),
            12,
            &outcome,
            None,
            &[],
        );
        assert_eq!(
            lines[0],
            "restarted: pid 12 -> 34, generation 3 -> 4 in 412 ms"
        );
        assert_eq!(
            (
                pids(Some(0), Some(5)),
                pids(None, Some(5)),
                pids(Some(5), Some(5))
            ),
            (
                "pid none -> 5".into(),
                "pid 5 (new)".into(),
                "pid 5 (kept)".into()
            )
        );
    }

    #[tokio::test]
    async fn exit_codes_follow_the_answer() {
        use crate::control::protocol::{Failure, FailureCode};
        for (answer, drained, expected) in [
            (Ok(()), false, Ok(Exit::Done)),
            (Ok(()), true, Ok(Exit::StillBusy)),
            (Err(FailureCode::Failed), false, Err(Exit::Failed)),
            (Err(FailureCode::ConfigInvalid), false, Err(Exit::Config)),
        ] {
            let answer = answer
                .map(|()| fake_gateway::outcome())
                .map_err(|code| Failure {
                    code,
                    message: "why".into(),
                });
            let double = Double::start(answer);
            let args = RestartArgs {
                drained,
                ..RestartArgs::default()
            };
            assert_eq!(
                restart(&context(&double), &args)
                    .await
                    .map_err(|error| error.exit),
                expected
            );
        }
    }

    #[tokio::test]
    async fn what_was_asked_arrives() {
        let double = Double::start(Ok(fake_gateway::outcome()));
        let args = RestartArgs {
            wait: Some(Wait::Limit(Duration::ZERO)),
            reason: Some("deploy".into()),
            ..RestartArgs::default()
        };
        restart(&context(&double), &args).await.unwrap();
        let asked = double.asked.lock().unwrap().clone();
        let params = RestartParams {
            wait_ms: Some(1),
            reason: Some("deploy".into()),
            ..RestartParams::default()
        };
        assert_eq!(
            asked,
            [Method::Status, Method::Restart(params), Method::Status]
        );
    }

    #[tokio::test]
    async fn nobody_there_is_exit_3() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global {
            state_dir: Some(dir.path().to_owned()),
            ..Global::default()
        };
        let ctx = Context {
            ui: crate::cli::Ui::new(&global),
            global,
        };
        assert_eq!(
            restart(&ctx, &RestartArgs::default())
                .await
                .unwrap_err()
                .exit,
            Exit::NotRunning
        );
    }
}
