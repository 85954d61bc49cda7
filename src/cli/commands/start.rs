//! `gatewayctl start`.

use crate::cli::preflight::refuse_invalid;
use crate::cli::services;
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::service::{self, Driven};

/// Starts an installed gateway and waits until it is ready. One that runs is fine.
///
/// # Errors
/// Those of [`services::require`], [`Exit::Config`] when its configuration is not
/// valid, [`Exit::StillBusy`] when it is not ready in time.
pub async fn start(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    let unit = services::require(ctx, &env)?;
    if service::state(&env, &unit).await?.is_down() {
        refuse_invalid(&env, &unit)?;
    }
    let done = service::start(&env, &unit, &|line| ctx.ui.progress(line)).await?;
    report(ctx, &done);
    Ok(Exit::Done)
}

/// Says what was done.
pub fn report(ctx: &Context, done: &Driven) {
    let pid = if done.pid == 0 {
        String::new()
    } else {
        format!(" (pid {})", done.pid)
    };
    ctx.ui
        .say(format!("{}: {}{pid}", done.service.unit, done.outcome));
    ctx.ui.object(done);
}
