//! The addresses that an installed gateway claims, with its state directories and its unit.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::error::ServiceError;
use super::launchd_job::LaunchdJob;
use super::launchd_survey::survey_job;
use super::layout::{Installed, Layout};
use super::manager::{Manager, UnitState};
use super::manager_kind::ServiceManagerKind;
use super::rights::more_rights;
use super::service_process::user_of;
use super::start_stop::configuration;
use crate::config::{Config, Env, Listen};
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
    let layout = Layout::of_service(unit, env)?;
    let config = configuration_of(env, unit, &layout)?;
    let (service, user) = match unit.manager {
        ServiceManagerKind::Launchd => of_job(unit, &config.gateway.listen).await?,
        ServiceManagerKind::Systemd => of_unit(env, unit).await?,
    };
    let made = layout.leftovers(&unit.instance);
    let users = match user {
        Some(user) => BTreeSet::from([user]),
        None => owners(&made),
    };
    let mut dirs: Vec<_> = config.gateway.state_dir.into_iter().collect();
    dirs.extend(made);
    Ok(AddressClaim {
        instance: Some(unit.instance.clone()),
        listen: config.gateway.listen,
        state: dirs,
        users,
        unit: Some(service),
        ..AddressClaim::default()
    })
}

/// What systemd says of a unit, and its user. None of a temporary user that systemd forgot when the service
/// ended: what it made is still there.
async fn of_unit(
    env: &Env<'_>,
    unit: &Installed,
) -> Result<(ServiceUnit, Option<u32>), ServiceError> {
    let manager = Manager::connect(unit.scope, env).await?;
    let said = manager.properties(&unit.unit).await?;
    let state = UnitState::of(&said);
    let socket_up = manager.socket_state(unit).await?.is_active();
    let service = ServiceUnit {
        name: unit.unit.clone(),
        main: (state.main_pid != 0).then_some(state.main_pid),
        group: Some(state.control_group).filter(|group| !group.is_empty()),
        holds_listeners: state.fd_store > 0 || socket_up,
    };
    Ok((service, user_of(unit, &said).map(|user| user.uid.as_raw())))
}

/// What launchd says of a job, which has no group of processes; and the user of an agent. While it is loaded,
/// launchd holds the listeners that its property list names: another one at an address of `listen` is another
/// job's.
async fn of_job(
    unit: &Installed,
    listen: &[Listen],
) -> Result<(ServiceUnit, Option<u32>), ServiceError> {
    let job = LaunchdJob::find(unit).await?;
    let survey = survey_job(unit).await?;
    let is_held = |address: &Listen| survey.sockets.contains(&address.to_string());
    let service = ServiceUnit {
        name: unit.unit.clone(),
        main: job.main_pid(),
        group: None,
        holds_listeners: job.loaded.is_some() && listen.iter().any(is_held),
    };
    let is_agent = unit.scope == Scope::User;
    Ok((service, is_agent.then(|| nix::unistd::geteuid().as_raw())))
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
