//! `gatewayctl stop`: through the service manager where it runs the gateway, else over the control
//! socket.

use crate::cli::commands::start::report;
use crate::cli::target;
use crate::cli::{CliError, Context, Exit, stop_over_control};
use crate::config::Env;
use crate::service::{self, DrivenOutcome, ServiceErrorKind};

/// Stops the gateway that is meant; one that does not run is stopped already.
///
/// # Errors
/// [`Exit::Refused`] from inside the service, [`Exit::Usage`] when several can be meant, and what
/// the manager or the gateway refuses.
pub async fn stop(ctx: &Context) -> Result<Exit, CliError> {
    let env = Env::real();
    if ctx.global.state_dir.is_some() || ctx.global.config.is_some() {
        return stop_over_control::stop(ctx).await;
    }
    let name = target::wanted_name(&ctx.global, &env);
    let unit = match service::select(&env, name.as_deref(), target::scope(&ctx.global)) {
        Ok(unit) => unit,
        Err(error) if error.kind == ServiceErrorKind::NotInstalled => {
            return stop_over_control::stop(ctx).await;
        }
        Err(error) => return Err(error.into()),
    };
    let others = target::all(&ctx.global, &env)
        .into_iter()
        .filter(|other| other.instance != unit.instance && target::is_alive(&other.control));
    let others: Vec<String> = others.map(|other| other.instance).collect();
    if name.is_none() && !others.is_empty() {
        let error = Exit::Usage.error(format!(
            "several gateways are here: {}, {}",
            unit.instance,
            others.join(", ")
        ));
        return Err(error.with_help(format!("say which one, as in --instance {}", unit.instance)));
    }
    let done = service::stop(&env, &unit, &|line| ctx.ui.progress(line)).await?;
    if done.outcome == DrivenOutcome::AlreadyStopped
        && target::all(&ctx.global, &env)
            .iter()
            .any(|target| target::is_alive(&target.control))
    {
        // One of that name runs by hand.
        return stop_over_control::stop(ctx).await;
    }
    report(ctx, &done);
    Ok(Exit::Done)
}
