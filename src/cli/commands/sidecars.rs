//! `gatewayctl sidecars`: what runs behind the front door, and the restart of one of them.

use std::time::SystemTime;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::args::{SidecarRestartArgs, SidecarsArgs, SidecarsCommand, Wait};
use crate::cli::restart_over_control::carry_out;
use crate::cli::restart_report::{failed, report};
use crate::cli::target::Target;
use crate::cli::{CliError, Context, Exit};
use crate::control::protocol::{Method, SidecarRestartParams, SidecarStatus, Status};
use crate::state::terms::RequestOutcome;
use crate::text::human::{columns, mebibytes, span};
use crate::text::log::escape;

/// The answer of `sidecars`.
#[derive(Serialize, JsonSchema)]
pub struct SidecarsAnswer {
    /// The instance.
    instance: String,
    /// The gateway's process id.
    pid: u32,
    /// The generation that serves; 0 while the first is being built.
    generation: u64,
    /// Its sidecars, by name.
    sidecars: Vec<SidecarStatus>,
}

/// Shows the sidecars, or restarts one.
///
/// # Errors
/// [`Exit::NotRunning`], [`Exit::Usage`] for a name that is not there, and what the gateway refuses or fails
/// to do.
pub async fn sidecars(ctx: &Context, args: &SidecarsArgs) -> Result<Exit, CliError> {
    match &args.command {
        None => show(ctx).await,
        Some(SidecarsCommand::Restart(args)) => restart(ctx, args).await,
    }
}

async fn show(ctx: &Context) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (_, status) = target.connect_and_ask().await?;
    if status.sidecars.is_empty() {
        ctx.ui
            .say(format!("no sidecar is behind {}", status.instance));
    } else {
        for line in table(&status.sidecars, Timestamp::now()) {
            ctx.ui.say(line);
        }
    }
    ctx.ui.object(&SidecarsAnswer {
        instance: status.instance,
        pid: status.pid,
        generation: status.generation,
        sidecars: status.sidecars,
    });
    Ok(Exit::Done)
}

/// The table for people, with a line of headings.
fn table(sidecars: &[SidecarStatus], now: Timestamp) -> Vec<String> {
    let headings = [
        "NAME",
        "STATE",
        "PID",
        "PORT",
        "GENERATION",
        "SINCE",
        "RESTARTS",
        "DEATHS",
        "MEMORY",
        "CPU",
    ];
    let row = |one: &SidecarStatus| {
        let number = |number: u64| match number {
            0 => "-".to_owned(),
            number => number.to_string(),
        };
        let since = one.since.as_ref().and_then(|at| at.parse().ok());
        let since = since.map(|at: Timestamp| now.duration_since(at).as_millis());
        let since = since.map(|millis| span(u64::try_from(millis).unwrap_or(0)));
        let memory = one.memory_bytes.map(mebibytes);
        let cpu = one.cpu_ms.map(span);
        let unknown = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let state = match one.failing {
            true => format!("{}, failing", one.state),
            false => one.state.to_string(),
        };
        [
            one.name.clone(),
            state,
            number(one.pid.into()),
            number(one.port.into()),
            number(one.generation),
            unknown(since),
            one.restarts.to_string(),
            one.deaths.to_string(),
            unknown(memory),
            unknown(cpu),
        ]
        .map(|cell| escape(&cell).into_owned())
    };
    let rows: Vec<[String; 10]> = std::iter::once(headings.map(str::to_owned))
        .chain(sidecars.iter().map(row))
        .collect();
    let line = |cells: &[String; 10]| cells.join("  ").trim_end().to_owned();
    columns(&rows).iter().map(line).collect()
}

async fn restart(ctx: &Context, args: &SidecarRestartArgs) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (client, status) = target.connect_and_ask().await?;
    known(&target, &status, &args.sidecar)?;
    let method = Method::RestartSidecar(SidecarRestartParams {
        sidecar: args.sidecar.clone(),
        force: args.force,
        wait_ms: args.wait.map(Wait::to_wire),
        reason: args.reason.clone(),
        drained: args.drained,
    });
    let mut change = carry_out(ctx, &target, client, &status, &method).await?;
    if let Some(now) = &change.now {
        let note = newer_configuration(&target, now);
        change.outcome.notes.extend(note);
    }
    report(ctx, &method, &status, &change);
    Ok(match change.outcome.outcome {
        _ if failed(&method, &change.outcome) => Exit::Failed,
        RequestOutcome::Done if args.drained && !change.outcome.drained => Exit::StillBusy,
        _ => Exit::Done,
    })
}

/// Refuses a name that is not there, before anything is asked for.
fn known(target: &Target, status: &Status, name: &str) -> Result<(), CliError> {
    let names = status.sidecars.iter().map(|one| one.name.as_str());
    let names: Vec<&str> = names.collect();
    // Before the first generation nothing is known of them.
    if status.generation == 0 || names.contains(&name) {
        return Ok(());
    }
    let (name, instance) = (escape(name), &status.instance);
    let message = match &names[..] {
        [] => format!("there is no sidecar {name}: nothing is behind {instance}"),
        names => format!(
            "there is no sidecar {name} behind {instance}; there is {}",
            names.join(", ")
        ),
    };
    let next = match names.first() {
        Some(first) => target.next(&format!("sidecars restart {first}")),
        None => target.next("status"),
    };
    Err(Exit::Usage.error(message).with_help(next))
}

/// A note where the configuration in the file was not read yet: such a restart does not read it.
fn newer_configuration(target: &Target, status: &Status) -> Option<String> {
    let file = status.config.as_ref()?;
    let read: Timestamp = status.config_read_at.as_ref()?.parse().ok()?;
    let written = std::fs::metadata(file).ok()?.modified().ok()?;
    (written > SystemTime::from(read)).then(|| {
        format!(
            "{} was written after it was read, and does not apply yet: {}",
            escape(file),
            target.next("reload")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::fake_gateway::{self, FakeGateway};
    use crate::control::protocol::{Failure, FailureCode, SidecarStateName};

    fn one(name: &str, state: SidecarStateName) -> SidecarStatus {
        SidecarStatus {
            name: name.into(),
            state,
            cause: None,
            pid: 4711,
            port: 40_001,
            exposed: Vec::new(),
            generation: 3,
            since: Some("2026-01-02T03:04:05Z".into()),
            restarts: 2,
            deaths: 1,
            last_death: None,
            last_death_at: None,
            last_words: Vec::new(),
            failing: false,
            refused_copies: 0,
            memory_bytes: Some(10 << 20),
            cpu_ms: Some(1_200),
            command: "x".into(),
        }
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let down = SidecarStatus {
            pid: 0,
            generation: 0,
            since: None,
            memory_bytes: None,
            cpu_ms: None,
            failing: true,
            ..one("worker", SidecarStateName::Backoff)
        };
        let now = "2026-01-02T03:05:05Z".parse().unwrap();
        assert_eq!(
            table(&[one("api", SidecarStateName::Ready), down], now),
            [
                "NAME    STATE             PID   PORT   GENERATION  SINCE      RESTARTS  DEATHS  MEMORY  CPU",
                "api     ready             4711  40001  3           1 min 0 s  2         1       10 MiB  1.2 s",
                "worker  backoff, failing  -     40001  -           -          2         1       -       -",
            ]
        );
    }

    #[tokio::test]
    async fn exit_codes_follow_the_answer() {
        for (answer, drained, expected) in [
            (Ok(()), false, Ok(Exit::Done)),
            (Ok(()), true, Ok(Exit::StillBusy)),
            (Err(FailureCode::Failed), false, Err(Exit::Failed)),
            (Err(FailureCode::Rejected), false, Err(Exit::Failed)),
        ] {
            let answer = answer
                .map(|()| fake_gateway::outcome())
                .map_err(|code| Failure::new(code, "why"));
            let double = FakeGateway::start_with(answer, vec![one("api", SidecarStateName::Ready)]);
            let args = |name: &str| SidecarsArgs {
                command: Some(SidecarsCommand::Restart(SidecarRestartArgs {
                    sidecar: name.into(),
                    drained,
                    ..SidecarRestartArgs::default()
                })),
            };
            let ctx = Context::quiet(&double.state);
            let exit = sidecars(&ctx, &args("api")).await;
            assert_eq!(exit.map_err(|error| error.exit), expected);
            let unknown = sidecars(&ctx, &args("apy")).await.unwrap_err();
            assert_eq!(unknown.exit, Exit::Usage);
            assert!(unknown.message.ends_with("there is api"), "{unknown:?}");
        }
    }
}
