//! `gatewayctl stop` for an installed gateway.

use super::start::report;
use super::target;
use super::{CliError, Context, Exit};
use crate::config::Env;
use crate::service::{self, Kind};

/// Stops an installed gateway through its service manager. None when that is not what is meant: no such service, or one that
/// is down already while a gateway of that name may run by hand.
///
/// # Errors
/// [`Exit::Refused`] from inside the service, and what the manager refuses or fails to do.
pub async fn stop(ctx: &Context, by_hand: bool) -> Result<Option<Exit>, CliError> {
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    let unit = match service::select(&env, name.as_deref(), target::scope(&ctx.global)) {
        Ok(unit) => unit,
        Err(error) if error.kind == Kind::NotInstalled => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let done = service::stop(&env, &unit, &|line| ctx.ui.progress(line)).await?;
    if by_hand && done.outcome == "already stopped" {
        return Ok(None);
    }
    report(ctx, &done);
    Ok(Some(Exit::Done))
}
