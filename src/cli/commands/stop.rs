//! `gatewayctl stop`: through the service manager where it runs the gateway, else over the control
//! socket.

use std::path::Path;

use serde_json::Value;

use crate::cli::answers::{CommandOutcome, OutcomeAnswer};
use crate::cli::commands::start::report;
use crate::cli::patience::Patience;
use crate::cli::services;
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::control::protocol::{Method, Status};
use crate::service::{self, DrivenOutcome};
use crate::state::history::{self, HistoryEntry};

/// Stops the selected gateway. One that does not run is fine.
///
/// # Errors
/// [`Exit::Refused`] from inside the service, [`Exit::Usage`] when several match, and what the
/// manager or the gateway refuses.
pub async fn stop(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    let Some(unit) = services::select(ctx, &env, name.as_deref())? else {
        return without_service(ctx).await;
    };
    let others = target::alive(&ctx.global, &env).into_iter();
    let others: Vec<String> = others
        .map(|other| other.instance)
        .filter(|other| *other != unit.instance)
        .collect();
    if name.is_none() && !others.is_empty() {
        let message = format!(
            "several gateways are here: {}, {}",
            unit.instance,
            others.join(", ")
        );
        let help = format!("say which one, as in --instance {}", unit.instance);
        return Err(Exit::Usage.error(message).with_help(help));
    }
    let done = service::stop(&env, &unit, &|line| ctx.ui.progress(line)).await?;
    if done.outcome == DrivenOutcome::AlreadyStopped && !target::alive(&ctx.global, &env).is_empty()
    {
        // One of that name runs by hand.
        return without_service(ctx).await;
    }
    report(ctx, &done);
    Ok(Exit::Done)
}

async fn without_service(ctx: &Context) -> Result<Exit, CliError> {
    let target = match ctx.target() {
        Ok(target) => target,
        Err(error) if error.exit == Exit::NotRunning => {
            ctx.ui.say(format!("nothing to stop: {}", error.message));
            ctx.ui
                .object(&OutcomeAnswer::new(None, CommandOutcome::NotRunning));
            return Ok(Exit::Done);
        }
        Err(error) => return Err(error),
    };
    over_control(ctx, &target).await
}

/// Asks `target` to stop and waits until it is gone. It finishes its work within `stop_drain`;
/// Ctrl-C only ends the waiting.
///
/// # Errors
/// When it cannot be reached or refuses.
pub async fn over_control(ctx: &Context, target: &Target) -> Result<Exit, CliError> {
    let (mut client, before) = target.connect_and_ask().await?;
    target
        .ask::<Value>(&mut client, &Method::Stop, |step| {
            ctx.ui.progress(&format!("{:<9} {}", step.stage, step.text))
        })
        .await?;
    let peer = client.peer();
    let patience = Patience::with(peer);
    let instance = &target.instance;
    ctx.ui
        .progress(&format!("{instance} finishes what it had begun"));
    tokio::select! {
        gone = target.until_gone(&mut client, Err) => gone?,
        error = patience.is_over(target) => return Err(error),
    }
    ctx.ui.say(format!("stopped: {instance}"));
    let cut = cut(&before, peer.pid().unwrap_or(before.pid));
    if !cut.is_empty() {
        let cut = cut.join(", ");
        ctx.ui
            .say(format!("its time to finish was over; cut: {cut}"));
    }
    ctx.ui
        .object(&OutcomeAnswer::new(Some(instance), CommandOutcome::Stopped));
    Ok(Exit::Done)
}

/// What the end of process `pid` cut, by its record.
fn cut(before: &Status, pid: u32) -> Vec<String> {
    let lines = history::read(Path::new(&before.state_dir));
    let ends = lines.filter(|line| line.pid == pid);
    let mut cut = ends.filter_map(|line| match line.entry {
        HistoryEntry::Ended { cut, .. } => Some(cut),
        _ => None,
    });
    cut.next_back().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::fake_gateway::{self, FakeGateway};

    #[tokio::test]
    async fn it_returns_when_the_gateway_is_gone() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let ctx = Context::quiet(&double.state);
        let target = ctx.target().unwrap();
        assert_eq!(over_control(&ctx, &target).await, Ok(Exit::Done));
        assert_eq!(ctx.target().unwrap_err().exit, Exit::NotRunning);
        assert_eq!(
            stop(&ctx).await,
            Ok(Exit::Done),
            "stopping twice is no error"
        );
    }
}
