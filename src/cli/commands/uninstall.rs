//! `gatewayctl uninstall`.

use crate::cli::answers::{CommandOutcome, OutcomeAnswer};
use crate::cli::args::UninstallArgs;
use crate::cli::services;
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::service;

/// Stops an installed gateway and removes what install wrote. One that is not installed is fine.
///
/// # Errors
/// What [`service::uninstall`] refuses or fails to do.
pub async fn uninstall(ctx: &Context, args: &UninstallArgs) -> Result<Exit, CliError> {
    let env = Env::real();
    let unit = match services::require(ctx, &env) {
        Ok(unit) => unit,
        Err(error) if error.exit == Exit::NotRunning => {
            ctx.ui.say(format!("{}: nothing to do", error.message));
            ctx.ui
                .object(&OutcomeAnswer::new(None, CommandOutcome::NotInstalled));
            return Ok(Exit::Done);
        }
        Err(error) => return Err(error),
    };
    let report =
        service::uninstall(&env, &unit, args.dry_run, &|line| ctx.ui.progress(line)).await?;
    if report.dry_run {
        ctx.ui.say("would:");
        ctx.ui.say_all("  ", &report.actions);
    } else {
        ctx.ui.say(format!("{} is removed", report.service.unit));
    }
    ctx.ui.say_all("note: ", &report.notes);
    ctx.ui.object(&report);
    Ok(Exit::Done)
}
