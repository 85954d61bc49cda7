//! What `--fix` does. Nothing here ends a process, cuts a client, or writes over what somebody
//! wrote.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;

use super::facts::{Facts, Unit};
use super::finding::Mend;
use crate::cli::Context;
use crate::cli::target::Target;
use crate::config::Env;
use crate::control::protocol::{Method, Outcome, Stage, Status};
use crate::service::drift;
use crate::service::manager::Manager;

/// Mends one thing.
///
/// # Errors
/// Why not, in a sentence.
pub async fn mend(ctx: &Context, facts: &Facts, mend: &Mend) -> Result<(), String> {
    match mend {
        Mend::DaemonReload => manager(facts)
            .await?
            .1
            .daemon_reload()
            .await
            .map_err(|error| error.message),
        Mend::ResetFailed => {
            let (unit, manager) = manager(facts).await?;
            manager.reset_failed(&unit.installed.unit).await;
            if let Some(socket) = &unit.installed.socket {
                manager.reset_failed(socket).await;
            }
            Ok(())
        }
        Mend::Enable => {
            let (unit, manager) = manager(facts).await?;
            let units: Vec<&str> = [Some(&unit.installed.unit), unit.installed.socket.as_ref()]
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            manager
                .enable(&units)
                .await
                .map(drop)
                .map_err(|error| error.message)
        }
        Mend::Linger => match drift::turn_linger_on(&Env::real()).await {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(why),
            Err(error) => Err(error.message),
        },
        Mend::Mode(path, mode) => fs::set_permissions(path, fs::Permissions::from_mode(*mode))
            .map_err(|error| format!("{}: {error}", path.display())),
        Mend::Remove(paths) => paths
            .iter()
            .try_for_each(|path| match fs::remove_file(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    Err(format!("{}: {error}", path.display()))
                }
                _ => Ok(()),
            }),
        Mend::Reload => reload(ctx, facts).await,
    }
}

async fn manager(facts: &Facts) -> Result<(&Unit, Manager), String> {
    let unit = facts.unit.as_ref().ok_or("it is not installed")?;
    let manager = Manager::connect(unit.installed.scope, &Env::real())
        .await
        .map_err(|error| error.message)?;
    Ok((unit, manager))
}

async fn reload(ctx: &Context, facts: &Facts) -> Result<(), String> {
    let mut global = ctx.global.clone();
    if !crate::cli::target::is_named_outright(&ctx.global) {
        global.instance = Some(facts.instance.clone());
    }
    let target = Target::find(&global, &Env::real()).map_err(|error| error.message)?;
    let mut client = target.connect().await.map_err(|error| error.message)?;
    let status: Status = client
        .call(&Method::Status, |_| ())
        .await
        .map_err(|error| error.to_string())?;
    if status.stage != Stage::Ready || status.recovery.is_some() {
        // A reload would end a wait, or safe mode.
        return Err(format!("it does not serve as usual now: {}", status.detail));
    }
    let step = |progress: crate::control::protocol::Progress| ctx.ui.progress(&progress.text);
    client
        .call::<Outcome>(&Method::Reload, step)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}
