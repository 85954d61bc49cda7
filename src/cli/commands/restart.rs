//! `gatewayctl restart` and `reload`.

use crate::cli::answering_gateway::AnsweringGateway;
use crate::cli::args::{RestartArgs, Wait};
use crate::cli::downtime_probe::not_serving;
use crate::cli::restart_over_control::{CompletedChange, carry_out, is_inside};
use crate::cli::restart_report::{failed, report};
use crate::cli::{CliError, Context, Exit, preflight, restart_via_manager, unapplied};
use crate::config::Env;
use crate::control::protocol::{Method, RestartParams};
use crate::service;
use crate::state::terms::RequestOutcome;

/// Restarts through the service manager where that is needed, else over the control socket.
///
/// # Errors
/// What the gateway refuses or fails to do; the previous generation then keeps serving.
pub async fn restart(ctx: &Context, args: &RestartArgs) -> Result<Exit, CliError> {
    if let Some(exit) = restart_via_manager::restart(ctx, args).await? {
        return Ok(exit);
    }
    let target = ctx.target()?;
    let (client, status) = target.connect_and_ask().await?;
    let peer = client.peer();
    let answering = AnsweringGateway::identify(ctx, &target.instance, peer).await;
    if let AnsweringGateway::Service(unit, _) = &answering {
        service::check_variables(&Env::real(), unit).await?;
    }
    let config = preflight::check(&answering, peer, &status)?;
    ctx.ui.progress(&config.map_or_else(
        || format!("plan: {}", status.strategy),
        |config| preflight::plan(&config, args, &status.strategy, &not_serving(&status)),
    ));
    let method = Method::Restart(RestartParams {
        force: args.force,
        wait_ms: args.wait.map(Wait::to_wire),
        reason: args.reason.clone(),
        drained: args.drained,
        fresh: args.fresh,
        ..RestartParams::default()
    });
    let mut change = carry_out(ctx, &target, client, &status, &method).await?;
    tell_unapplied(&mut change).await;
    report(ctx, &method, &status, &change);
    Ok(match change.outcome.outcome {
        _ if failed(&method, &change.outcome) => Exit::Failed,
        RequestOutcome::Done if args.drained && !change.outcome.drained => Exit::StillBusy,
        _ => Exit::Done,
    })
}

/// Reloads the configuration.
///
/// # Errors
/// [`Exit::Config`] when it is invalid; nothing is changed then.
pub async fn reload(ctx: &Context) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (client, status) = target.connect_and_ask().await?;
    let mut change = carry_out(ctx, &target, client, &status, &Method::Reload).await?;
    // Of an ExecReload=, systemd waits for the end, and asks nobody else meanwhile.
    if !is_inside(status.pid) {
        tell_unapplied(&mut change).await;
    }
    report(ctx, &Method::Reload, &status, &change);
    Ok(match failed(&Method::Reload, &change.outcome) {
        true => Exit::Failed,
        false => Exit::Done,
    })
}

/// Adds a note where something changed that only a start by systemd applies.
async fn tell_unapplied(change: &mut CompletedChange) {
    if let Some(now) = &change.now {
        let left = unapplied::unapplied(&Env::real(), now).await;
        change.outcome.notes.extend(unapplied::note(&left));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::fake_gateway::{self, FakeGateway};

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
            let double = FakeGateway::start(answer);
            let args = RestartArgs {
                drained,
                ..RestartArgs::default()
            };
            assert_eq!(
                restart(&Context::quiet(&double.state), &args)
                    .await
                    .map_err(|error| error.exit),
                expected
            );
        }
    }

    #[tokio::test]
    async fn what_was_asked_arrives() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let args = RestartArgs {
            wait: Some(Wait::Limit(Duration::ZERO)),
            reason: Some("deploy".into()),
            ..RestartArgs::default()
        };
        restart(&Context::quiet(&double.state), &args)
            .await
            .unwrap();
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
        let result = restart(&Context::quiet(dir.path()), &RestartArgs::default()).await;
        assert_eq!(result.unwrap_err().exit, Exit::NotRunning);
    }
}
