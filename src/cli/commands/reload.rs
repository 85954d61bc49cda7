//! `gatewayctl reload`.

use crate::cli::restart_over_control::carry_out;
use crate::cli::restart_report::report;
use crate::cli::{CliError, Context, Exit};
use crate::control::protocol::Method;

/// Reloads the configuration.
///
/// # Errors
/// [`Exit::Config`] when it is invalid; nothing is changed then.
pub async fn reload(ctx: &Context) -> Result<Exit, CliError> {
    let target = ctx.target()?;
    let (client, status) = target.connect_and_ask().await?;
    let change = carry_out(ctx, &target, client, &status, &Method::Reload).await?;
    report(ctx, &Method::Reload, &status, &change);
    Ok(Exit::Done)
}
