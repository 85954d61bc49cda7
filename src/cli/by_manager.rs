//! The way of `gatewayctl restart` when the gateway itself cannot do it: the service manager.

use super::installed::{is_named_outright, refuse_invalid};
use super::restart::status_now;
use super::start::report;
use super::target::{self, Target};
use super::{CliError, Context, Exit};
use crate::config::Env;
use crate::service;
use crate::state::paths::Scope;

/// Restarts an installed gateway that does not answer, and starts one that is stopped. None when that is not what is meant: it
/// answers and restarts itself without cutting anything, or is no service, or is another user's.
///
/// # Errors
/// What the service manager refuses, and a service that does not become ready.
pub async fn restart(ctx: &Context) -> Result<Option<Exit>, CliError> {
    if is_named_outright(ctx) {
        return Ok(None);
    }
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    // Several, or none: what to say of that is known where a running one is looked for.
    let Ok(unit) = service::select(&env, name.as_deref(), target::scope(&ctx.global)) else { return Ok(None) };
    let silent = match answers(ctx).await {
        Ok(()) => return Ok(None),
        Err(error) if matches!(error.exit, Exit::Usage | Exit::Permission) => return Ok(None),
        Err(error) => error,
    };
    refuse_invalid(&env, &unit)?;
    let state = service::state(&env, &unit).await?;
    if state.is_active() && silent.exit == Exit::NotRunning && unit.scope == Scope::System && !nix::unistd::geteuid().is_root() {
        // Its control socket is not for us: what it could do without cutting anything, systemd could not.
        let message = format!("{} runs (pid {}), but does not let this user ask it", unit.unit, state.main_pid);
        return Err(CliError::new(Exit::Permission, message).with_help("the same command with sudo"));
    }
    ctx.ui.progress(&match state.is_down() {
        true => format!("plan: {} is stopped, so it is started", unit.unit),
        false => format!("plan: {}; so the service manager ends and starts it, and new connections wait meanwhile", silent.message),
    });
    let done = service::restart(&env, &unit, &|line| ctx.ui.progress(line)).await?;
    report(ctx, &done);
    Ok(Some(Exit::Done))
}

async fn answers(ctx: &Context) -> Result<(), CliError> {
    let target = Target::find(&ctx.global, &Env::real())?;
    status_now(&target).await.map(drop)
}
