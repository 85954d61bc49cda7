//! Stopping a gateway that no service manager owns, over its control socket.

use serde_json::Value;

use super::answers::{CommandOutcome, OutcomeAnswer};
use super::target::Target;
use super::{CliError, Context, Exit};
use crate::control::protocol::Method;

/// Stops the gateway that is meant; one that does not run is stopped already.
///
/// # Errors
/// When several can be meant, or it cannot be reached.
pub async fn stop(ctx: &Context) -> Result<Exit, CliError> {
    match ctx.target() {
        Ok(target) => over_control(ctx, &target).await,
        Err(error) if error.exit == Exit::NotRunning => {
            ctx.ui.say(&format!("nothing to stop: {}", error.message));
            ctx.ui
                .object(&OutcomeAnswer::new(None, CommandOutcome::NotRunning));
            Ok(Exit::Done)
        }
        Err(error) => Err(error),
    }
}

/// Asks `target` to stop and waits until it is gone. It finishes what it had begun within
/// `stop_drain`; Ctrl-C only ends the waiting.
///
/// # Errors
/// When it cannot be reached or refuses.
pub async fn over_control(ctx: &Context, target: &Target) -> Result<Exit, CliError> {
    let mut client = target.connect().await?;
    client
        .call::<Value>(&Method::Stop, |step| {
            ctx.ui.progress(&format!("{:<9} {}", step.stage, step.text))
        })
        .await
        .map_err(|error| target.call_failed(error))?;
    ctx.ui
        .progress(&format!("{} finishes what it had begun", target.instance));
    client.closed().await;
    ctx.ui.say(&format!("stopped: {}", target.instance));
    ctx.ui.object(&OutcomeAnswer::new(
        Some(&target.instance),
        CommandOutcome::Stopped,
    ));
    Ok(Exit::Done)
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
