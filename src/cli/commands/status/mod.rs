//! `gatewayctl status`.

pub mod answer;
pub mod change;
mod deep;
pub mod down;
mod text;
pub mod watch;

use jiff::Timestamp;

use self::answer::{exit, shown};
use self::text::lines;
use crate::cli::args::StatusArgs;
use crate::cli::{CliError, Context, Exit};

/// Shows what a gateway is doing.
///
/// # Errors
/// [`Exit::NotRunning`] when it neither runs nor is installed.
pub async fn status(ctx: &Context, args: &StatusArgs) -> Result<Exit, CliError> {
    let target = match ctx.target() {
        Ok(target) => target,
        Err(error) if matches!(error.exit, Exit::NotRunning | Exit::Permission) => {
            return down::status(ctx, error).await;
        }
        Err(error) => return Err(error),
    };
    let shown = shown(target.status().await?, args.deep).await;
    ctx.ui.object(&shown);
    for line in lines(&ctx.ui, &shown, Timestamp::now()) {
        ctx.ui.say(line);
    }
    Ok(exit(shown.status.stage))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::fake_gateway::{self, FakeGateway};

    #[tokio::test]
    async fn status_over_the_socket() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let ctx = Context::quiet(&double.state);
        assert_eq!(status(&ctx, &StatusArgs::default()).await, Ok(Exit::Done));
    }
}
