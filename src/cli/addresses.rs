//! The addresses of the gateway that is meant, and what is known around them.

use super::target::{self, Target, is_named_outright};
use super::{CliError, Context, Exit};
use crate::config::{self, Env, Listen, Overrides};
use crate::service::{self, ServiceErrorKind};
use crate::stale::AddressClaim;
use crate::state::owner::Owner;
use crate::state::paths::Paths;

/// The addresses of the gateway that is meant, and what is known around them.
///
/// # Errors
/// [`Exit::Usage`] when several can be meant, [`Exit::Config`] when its configuration is not valid.
pub async fn address_claim(ctx: &Context) -> Result<AddressClaim, CliError> {
    let env = Env::real();
    match installed(ctx, &env).await? {
        Some(claim) => Ok(claim),
        None => by_hand(ctx, &env).await,
    }
}

/// Of the only one that runs, or of the one that is named.
async fn by_hand(ctx: &Context, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let mut flags = target::overrides(&ctx.global, env);
    match Target::find(&ctx.global, env) {
        Ok(target) => {
            if let Ok(status) = target.status().await {
                let listen = status
                    .listeners
                    .iter()
                    .filter_map(|address| address.parse().ok())
                    .collect();
                return Ok(AddressClaim {
                    instance: Some(status.instance),
                    listen,
                    state: vec![status.state_dir.into()],
                    ..AddressClaim::default()
                });
            }
            flags.instance.get_or_insert(target.instance);
        }
        Err(several) if several.exit == Exit::Usage => return Err(several),
        Err(_) => {}
    }
    by_configuration(&flags, env)
}

async fn installed(ctx: &Context, env: &Env<'_>) -> Result<Option<AddressClaim>, CliError> {
    if is_named_outright(&ctx.global) {
        return Ok(None);
    }
    let name = target::wanted_name(&ctx.global, env);
    match service::select(env, name.as_deref(), target::scope(&ctx.global)) {
        Ok(unit) => Ok(Some(service::address_claim(env, &unit).await?)),
        Err(none) if none.kind == ServiceErrorKind::NotInstalled => Ok(None),
        Err(several) => Err(several.into()),
    }
}

fn by_configuration(flags: &Overrides, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let loaded = config::load(flags, env)?;
    let paths = Paths::of_process(
        env,
        &loaded.instance,
        loaded.config.gateway.state_dir.as_deref(),
    );
    // One that runs, or hangs, knows better: flags may have said otherwise.
    let owner = Owner::read(&paths.state).filter(|owner| owner.lives() != Some(false));
    let recorded = owner.map(|owner| {
        owner
            .listeners
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect::<Vec<Listen>>()
    });
    let listen = recorded
        .filter(|listen| !listen.is_empty())
        .unwrap_or(loaded.config.gateway.listen);
    Ok(AddressClaim {
        instance: Some(loaded.instance),
        listen,
        state: vec![paths.state],
        ..AddressClaim::default()
    })
}
