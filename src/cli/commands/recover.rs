//! `gatewayctl recover`: leave safe mode, the wait of a throttle or that of a dead sidecar now.

use serde_json::Value;

use crate::cli::answers::{CommandOutcome, OutcomeAnswer};
use crate::cli::{CliError, Context, Exit};
use crate::control::protocol::{
    Method, RecoveryRung, SidecarStateName, SidecarStatus, Stage, Status,
};
use crate::text::human::span;
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
        target
            .ask::<Value>(&mut client, &Method::Recover, |step| {
                ctx.ui.progress(&step.text)
            })
            .await?;
        let is_up = |one: &&SidecarStatus| one.state == SidecarStateName::Ready;
        let (up, down): (Vec<_>, Vec<_>) = status
            .sidecars
            .iter()
            .filter(|one| dead(one))
            .partition(is_up);
        let [up, down] =
            [up, down].map(|all| all.iter().map(|one| one.name.as_str()).collect::<Vec<_>>());
        for line in done(&status, &down, &up, &target.flags.to_string()) {
            ctx.ui.say(line);
        }
        CommandOutcome::Trying
    };
    ctx.ui
        .object(&OutcomeAnswer::new(Some(&status.instance), outcome));
    Ok(Exit::Done)
}

/// What a gateway that was in this state does now, in lines; `dead` are its sidecars that did not run, and `up`
/// those that serve and counted as failing.
fn done(status: &Status, dead: &[&str], up: &[&str], flags: &str) -> Vec<String> {
    let name = &status.instance;
    let recovery = status.recovery.as_ref();
    let what = match recovery.map(|recovery| recovery.rung) {
        Some(RecoveryRung::LastGood) => {
            return vec![format!(
                "{name} has read its configuration again and serves it"
            )];
        }
        Some(RecoveryRung::Throttled) => {
            let left = recovery.and_then(|recovery| recovery.retry_ms);
            let left = left.map_or(String::new(), |left| {
                format!(" instead of in {}", span(left))
            });
            format!(
                "{name} starts its sidecars now{left}, and its earlier unplanned ends no longer count"
            )
        }
        Some(RecoveryRung::SafeMode) => {
            format!("{name} tries its sidecars now, and leaves safe mode when they are ready")
        }
        None if dead.is_empty() && !up.is_empty() => {
            return vec![format!(
                "{name} serves, and the earlier deaths of {} no longer count",
                up.join(", ")
            )];
        }
        None if dead.is_empty() => format!("{name} starts its sidecars now"),
        None => format!("{name} starts {} again now", dead.join(", ")),
    };
    let next = format!("  next: gatewayctl wait{flags}   (returns when it is ready)");
    vec![what, next]
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::protocol::RecoveryStatus;

    use crate::control::fake_gateway::{self, FakeGateway};

    #[tokio::test]
    async fn one_that_serves_has_nothing_to_recover_from() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let ctx = Context::quiet(&double.state);
        assert_eq!(recover(&ctx).await, Ok(Exit::Done));
        assert_eq!(*double.asked.lock().unwrap(), [Method::Status]);
    }

    #[test]
    fn what_is_done_is_said() {
        let mut status = fake_gateway::status();
        status.instance = "web".into();
        assert_eq!(
            done(&status, &["api", "main"], &[], " --instance web"),
            [
                "web starts api, main again now",
                "  next: gatewayctl wait --instance web   (returns when it is ready)"
            ]
        );
        assert_eq!(
            done(&status, &[], &["main"], ""),
            ["web serves, and the earlier deaths of main no longer count"]
        );
        let mut with = |rung, retry_ms| {
            status.recovery = Some(RecoveryStatus {
                rung,
                reason: "why".into(),
                retry_ms,
            });
            done(&status, &[], &[], "").swap_remove(0)
        };
        assert_eq!(
            with(RecoveryRung::Throttled, Some(12_000)),
            "web starts its sidecars now instead of in 12.0 s, and its earlier unplanned ends no longer count"
        );
        assert_eq!(
            with(RecoveryRung::LastGood, None),
            "web has read its configuration again and serves it"
        );
    }
}
