//! The addresses of the selected gateway, and what is known about them.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use tokio::time::timeout;

use super::services;
use super::target::{self, Target, ended};
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
                let peer = client.peer();
                // Where the state of another user's gateway is, follows from where its socket is.
                let state = match peer.is_this_user() {
                    true => Some(status.state_dir.into()),
                    false => Paths::state_of(&target.control).filter(|dir| is_of(dir, peer.uid)),
                };
                return Ok(AddressClaim {
                    users: BTreeSet::from([peer.uid]),
                    told_by: told_by(peer.uid),
                    instance: Some(status.instance),
                    listen: parsed(&status.listeners),
                    state: state.into_iter().collect(),
                    ..AddressClaim::default()
                });
            }
            flags.instance.get_or_insert(target.instance);
        }
        Err(several) if several.exit == Exit::Usage => return Err(several),
        Err(_) => {
            if let Some(ended) = ended::unnamed(&ctx.global, env)? {
                ctx.ui.progress(&ended.told());
                flags.instance = Some(ended.instance);
            }
        }
    }
    by_configuration(&flags, env)
}

fn by_configuration(flags: &Overrides, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let loaded = config::load(flags, env)?;
    let gateway = loaded.config.gateway;
    let paths = Paths::of_process(env, &loaded.instance, gateway.state_dir.as_deref());
    // The caller named or configured the directory; the gateway that has it runs as its owner.
    let owner = std::fs::metadata(&paths.state)
        .map(|facts| facts.uid())
        .ok();
    // The record of a gateway that runs or hangs is right: its flags may differ from the file. Of one that
    // has ended, it says what the gateway had; a file says what the next start needs.
    let recorded = Owner::read(&paths.state)
        .filter(|owner| owner.lives() != Some(false) || loaded.path.is_none())
        .map(|owner| parsed(&owner.listeners))
        .filter(|listen| !listen.is_empty());
    Ok(AddressClaim {
        instance: Some(loaded.instance),
        told_by: owner.filter(|_| recorded.is_some()).and_then(told_by),
        listen: recorded.unwrap_or(gateway.listen),
        users: owner.into_iter().collect(),
        state: vec![paths.state],
        ..AddressClaim::default()
    })
}

/// As [`AddressClaim::told_by`]; root may say what it likes.
fn told_by(user: u32) -> Option<u32> {
    (user != 0 && user != nix::unistd::geteuid().as_raw()).then_some(user)
}

fn is_of(dir: &Path, user: u32) -> bool {
    std::fs::metadata(dir).is_ok_and(|facts| facts.uid() == user)
}

fn parsed(addresses: &[String]) -> Vec<Listen> {
    let parsed = addresses.iter().filter_map(|address| address.parse().ok());
    parsed.collect()
}
