//! The addresses that an installed gateway claims, with its state directories and its unit.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::error::ServiceError;
use super::launchd_job::LaunchdJob;
use super::layout::{Installed, Layout};
use super::manager::{Manager, UnitState};
use super::manager_kind::ServiceManagerKind;
use super::rights::more_rights;
use super::service_process::user_of;
use super::start_stop::configuration;
use crate::config::{Config, Env};
use crate::stale::{AddressClaim, ServiceUnit};
use crate::state::paths::Scope;
use crate::text::shell;

/// The claim of an installed gateway. The addresses are those of the configuration: the next start
/// needs them.
///
/// # Errors
/// When the manager cannot be reached; Kind Config or Permission when the configuration cannot be
/// read.
pub async fn address_claim(env: &Env<'_>, unit: &Installed) -> Result<AddressClaim, ServiceError> {
    if unit.manager == ServiceManagerKind::Launchd {
        return claim_of_job(env, unit).await;
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let said = manager.properties(&unit.unit).await?;
    let state = UnitState::of(&said);
    let socket_up = manager.socket_state(unit).await?.is_active();
    let layout = Layout::of_service(unit, env)?;
    let config = configuration_of(env, unit, &layout)?;
    let made = layout.leftovers(&unit.instance);
    let users = match user_of(unit, &said) {
        Some(user) => BTreeSet::from([user.uid.as_raw()]),
        // A temporary user that systemd forgot when the service ended: what it made is still there.
        None => owners(&made),
    };
    let mut dirs: Vec<_> = config.gateway.state_dir.into_iter().collect();
    dirs.extend(made);
    Ok(AddressClaim {
        instance: Some(unit.instance.clone()),
        listen: config.gateway.listen,
        state: dirs,
        users,
        unit: Some(ServiceUnit {
            name: unit.unit.clone(),
            main: (state.main_pid != 0).then_some(state.main_pid),
            group: Some(state.control_group).filter(|group| !group.is_empty()),
            holds_listeners: state.fd_store > 0 || socket_up,
        }),
        ..AddressClaim::default()
    })
}

/// The same for a job of launchd, which has no group of processes, and holds the listeners that its property
/// list names while it is loaded.
async fn claim_of_job(env: &Env<'_>, unit: &Installed) -> Result<AddressClaim, ServiceError> {
    let job = LaunchdJob::find(unit).await?;
    let layout = Layout::of_service(unit, env)?;
    let config = configuration_of(env, unit, &layout)?;
    let made = layout.leftovers(&unit.instance);
    let users = match unit.scope {
        Scope::User => BTreeSet::from([nix::unistd::geteuid().as_raw()]),
        Scope::System => owners(&made),
    };
    let mut dirs: Vec<_> = config.gateway.state_dir.into_iter().collect();
    dirs.extend(made);
    Ok(AddressClaim {
        instance: Some(unit.instance.clone()),
        listen: config.gateway.listen,
        state: dirs,
        users,
        unit: Some(ServiceUnit {
            name: unit.unit.clone(),
            main: job.loaded.as_ref().and_then(|job| job.pid),
            group: None,
            holds_listeners: job.loaded.is_some(),
        }),
        ..AddressClaim::default()
    })
}

/// What the configuration says; the defaults where there is none.
fn configuration_of(
    env: &Env<'_>,
    unit: &Installed,
    layout: &Layout,
) -> Result<Config, ServiceError> {
    let file = layout.config_file(&unit.instance);
    match configuration(env, unit) {
        Ok(Some((_, config))) => Ok(config),
        // Without a file the defaults hold; one that is not for us is another thing.
        Ok(None) if file.exists() => Err(ServiceError::permission(format!(
            "{} is not for this user to read",
            file.display()
        ))
        .next(more_rights())),
        Ok(None) => Ok(Config::default()),
        Err(error) => Err(ServiceError::config(error.to_string()).next(format!(
            "gatewayctl config check --config {}",
            shell::word(file)
        ))),
    }
}

fn owners(directories: &[PathBuf]) -> BTreeSet<u32> {
    let facts = directories
        .iter()
        .filter_map(|directory| std::fs::metadata(directory).ok());
    facts.map(|facts| facts.uid()).collect()
}
