//! The way back from an update: a restart into the program that was there before.

use crate::cli::restart_over_control::carry_out;
use crate::cli::target::Target;
use crate::cli::{CliError, Context};
use crate::control::protocol::{Method, RestartParams, Status};

/// Why the previous program is started again.
pub(super) const GIVEN_BACK: &str = "the update failed: back to the previous program";

/// Restarts the gateway of `now` into the program that is in place again, and returns the pid
/// afterwards.
pub(super) async fn restart_into_previous(
    ctx: &Context,
    target: &Target,
    now: &Status,
    params: RestartParams,
) -> Result<u32, CliError> {
    ctx.ui.progress(&format!(
        "pid {} runs the wrong program; handing back",
        now.pid
    ));
    let method = Method::Restart(RestartParams {
        reason: Some(GIVEN_BACK.to_owned()),
        ..params
    });
    let client = target.connect().await?;
    let done = carry_out(ctx, target, client, now, &method).await?;
    let after = done.now.map(|after| after.pid);
    Ok(done.outcome.pid.or(after).unwrap_or(now.pid))
}
