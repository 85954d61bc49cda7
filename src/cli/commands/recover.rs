//! `gatewayctl recover`: leave safe mode, the wait of a throttle or that of a dead sidecar now.

use serde_json::Value;

use crate::cli::answers::{CommandOutcome, OutcomeAnswer};
use crate::cli::{CliError, Context, Exit};
use crate::control::protocol::{Method, SidecarStateName, SidecarStatus, Stage};
use crate::text::words::Words;

/// Asks a gateway to try its sidecars again now. One that serves as configured has nothing to
/// recover from, which is fine.
///
/// # Errors
/// [`Exit::NotRunning`], and what the gateway refuses.
pub async fn recover(ctx: &Context) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (mut client, status) = target.connect_and_ask().await?;
    let dead =
        |sidecar: &SidecarStatus| sidecar.failing || sidecar.state == SidecarStateName::Backoff;
    let outcome = if status.recovery.is_none()
        && !matches!(status.stage, Stage::Throttled | Stage::SafeMode)
        && !status.sidecars.iter().any(dead)
    {
        ctx.ui.say(format!(
            "nothing to recover from: {} is {}",
            status.instance,
            status.stage.in_words()
        ));
        CommandOutcome::NothingToRecoverFrom
    } else {
        let asked = client
            .call::<Value>(&Method::Recover, |step| ctx.ui.progress(&step.text))
            .await;
        asked.map_err(|error| target.call_failed(error))?;
        ctx.ui.say(format!(
            "{} tries again now; gatewayctl wait{} says when it is ready",
            status.instance, target.flags
        ));
        CommandOutcome::Trying
    };
    ctx.ui
        .object(&OutcomeAnswer::new(Some(&status.instance), outcome));
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::fake_gateway::{self, FakeGateway};

    #[tokio::test]
    async fn one_that_serves_has_nothing_to_recover_from() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let ctx = Context::quiet(&double.state);
        assert_eq!(recover(&ctx).await, Ok(Exit::Done));
        assert_eq!(*double.asked.lock().unwrap(), [Method::Status]);
    }
}
