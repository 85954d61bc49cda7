//! What `--fix` does. Nothing here ends a process, breaks a connection, or overwrites what a user
//! wrote.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use super::facts::DoctorFacts;
use super::finding::Fix;
use super::unit_facts::InstalledUnit;
use crate::config::Env;
use crate::control::client::Client;
use crate::control::protocol::{Method, Outcome, Stage, Status};
use crate::service::Layout;
use crate::service::linger;
use crate::service::manager::Manager;
use crate::state::paths::Scope;
use crate::state::untrusted_file;

/// Performs one fix; `progress` gets the steps of a reload.
///
/// # Errors
/// Why it failed, in a sentence.
pub async fn apply(
    facts: &DoctorFacts,
    fix: &Fix,
    progress: impl FnMut(&str),
) -> Result<(), String> {
    match fix {
        Fix::DaemonReload => {
            let (_, manager) = manager(facts).await?;
            manager.daemon_reload().await.map_err(|error| error.message)
        }
        Fix::ResetFailed => {
            let (unit, manager) = manager(facts).await?;
            for unit in unit.names() {
                manager.reset_failed(unit).await;
            }
            Ok(())
        }
        Fix::Enable => {
            let (unit, manager) = manager(facts).await?;
            let enabled = manager.enable(&unit.names()).await;
            enabled.map_err(|error| error.message)
        }
        Fix::Linger => {
            let layout = Layout::of(Scope::User, &Env::real()).map_err(|error| error.message)?;
            match linger::turn_on(&layout).await {
                Ok(None) => Ok(()),
                Ok(Some(why)) => Err(why),
                Err(error) => Err(error.message),
            }
        }
        Fix::Mode(path, mode) => {
            narrow(path, *mode).map_err(|error| format!("{}: {error}", path.display()))
        }
        Fix::RemoveState(names) => {
            let state = facts
                .state_dir
                .as_ref()
                .ok_or("there is no state directory")?;
            let removed = untrusted_file::remove(&state.dir, state.keeper, names);
            removed.map_err(|error| format!("{}: {error}", state.dir.display()))
        }
        Fix::Reload => reload(facts, progress).await,
    }
}

/// Takes the permission bits from a file that `mode` does not have. By descriptor, and not where a
/// link leads: what was looked at may have been replaced.
fn narrow(path: &Path, mode: u32) -> io::Result<()> {
    let file = untrusted_file::open(path, OFlag::O_RDONLY)?;
    let now = file.metadata()?.permissions().mode();
    file.set_permissions(Permissions::from_mode(now & mode))
}

async fn manager(facts: &DoctorFacts) -> Result<(&InstalledUnit, Manager), String> {
    let unit = facts.unit.as_ref().ok_or("the gateway is not installed")?;
    let manager = Manager::connect(unit.installed.scope, &Env::real())
        .await
        .map_err(|error| error.message)?;
    Ok((unit, manager))
}

async fn reload(facts: &DoctorFacts, mut progress: impl FnMut(&str)) -> Result<(), String> {
    let control = facts
        .control
        .as_ref()
        .ok_or("the gateway does not answer")?;
    let mut client = Client::connect(control)
        .await
        .map_err(|error| format!("{}: {error}", control.display()))?;
    let status: Status = client
        .call(&Method::Status, |_| ())
        .await
        .map_err(|error| error.to_string())?;
    if status.stage != Stage::Ready || status.recovery.is_some() {
        // A reload would end a wait, or safe mode.
        return Err(format!("the gateway is not ready: {}", status.detail));
    }
    client
        .call::<Outcome>(&Method::Reload, |step| progress(&step.text))
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}
