//! `gatewayctl start`.

use crate::cli::preflight::refuse_invalid;
use crate::cli::services;
use crate::cli::target::{Target, ended};
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
    let unit = match services::require(ctx, &env) {
        Err(error) if error.exit == Exit::NotRunning => return Err(by_hand(ctx, &env, error)),
        required => required?,
    };
    if service::state(&env, &unit).await?.is_down() {
        refuse_invalid(&env, &unit)?;
    }
    let done = service::start(&env, &unit, &|line| ctx.ui.progress(line)).await?;
    report(ctx, &done);
    Ok(Exit::Done)
}

/// The error where none is installed, with what is known of one that was started by hand.
fn by_hand(ctx: &Context, env: &Env<'_>, mut error: CliError) -> CliError {
    let as_service = "gatewayctl install --now -- COMMAND   (as a service)";
    if let Ok(target) = Target::find(&ctx.global, env) {
        error.add_line(format!("{} runs: it was started by hand", target.instance));
        let restart = target.next("restart");
        return error.with_help(format!("{restart}\n{as_service}"));
    }
    let Ok(Some(ended)) = ended::meant(&ctx.global, env) else {
        return error;
    };
    error.add_line(format!(
        "{} was started by hand, and has ended",
        ended.instance
    ));
    error.with_help(format!(
        "gateway run … -- COMMAND   (as it was started)\n{as_service}"
    ))
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
