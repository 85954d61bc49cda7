//! The addresses of the selected gateway, and what is known about them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

use tokio::time::timeout;

use super::services;
use super::target::{self, Target};
use super::{CliError, Context, Exit};
use crate::config::{self, Env, Listen, Overrides};
use crate::service;
use crate::stale::AddressClaim;
use crate::state::owner::Owner;
use crate::state::paths::Paths;

/// How long a gateway may take to tell its addresses: it answers from memory.
const ASK: Duration = Duration::from_secs(1);

/// The addresses of the selected gateway, and what is known about them.
///
/// # Errors
/// [`Exit::Usage`] when several match, [`Exit::Config`] when its configuration is not valid.
pub async fn address_claim(ctx: &Context) -> Result<AddressClaim, CliError> {
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    if let Some(unit) = services::select(ctx, &env, name.as_deref())? {
        return Ok(service::address_claim(&env, &unit).await?);
    }
    without_service(ctx, &env).await
}

/// Of the gateway that runs, or else of the configuration.
async fn without_service(ctx: &Context, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let mut flags = target::overrides(&ctx.global, env);
    match Target::find(&ctx.global, env) {
        Ok(target) => {
            // One that hangs is named by its record.
            if let Ok(Ok((client, status))) = timeout(ASK, target.connect_and_ask()).await {
                return Ok(AddressClaim {
                    users: BTreeSet::from([client.peer().uid]),
                    instance: Some(status.instance),
                    listen: parsed(&status.listeners),
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

fn by_configuration(flags: &Overrides, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let loaded = config::load(flags, env)?;
    let gateway = loaded.config.gateway;
    let paths = Paths::of_process(env, &loaded.instance, gateway.state_dir.as_deref());
    // The record of a gateway that runs or hangs is right: its flags may differ from the file.
    let listen = Owner::read(&paths.state)
        .filter(|owner| owner.lives() != Some(false))
        .map(|owner| parsed(&owner.listeners))
        .filter(|listen| !listen.is_empty())
        .unwrap_or(gateway.listen);
    // The caller named or configured the directory; the gateway that has it runs as its owner.
    let owner = std::fs::metadata(&paths.state).map(|facts| facts.uid());
    let users = owner.into_iter().collect();
    Ok(AddressClaim {
        instance: Some(loaded.instance),
        listen,
        users,
        state: vec![paths.state],
        ..AddressClaim::default()
    })
}

fn parsed(addresses: &[String]) -> Vec<Listen> {
    let parsed = addresses.iter().filter_map(|address| address.parse().ok());
    parsed.collect()
}
