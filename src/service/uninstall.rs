//! Removing an installed gateway, so that nothing of it is left but what others wrote.

use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use super::backup;
use super::error::ServiceError;
use super::layout::{Installed, Layout, installed};
use super::linger;
use super::manager::{Manager, systemctl};
use super::provenance::Written;
use super::start_stop::{Say, refuse_inside, take_down};
use crate::config::Env;
use crate::state::paths::Scope;

/// What uninstall has done, or would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Uninstalled {
    /// Always true; an error has its own object.
    pub ok: bool,
    /// The instance.
    pub instance: String,
    /// Its unit.
    pub unit: String,
    /// Whose service manager has the unit.
    pub scope: Scope,
    /// What was done, or would be.
    pub actions: Vec<String>,
    /// What stays, and why.
    pub notes: Vec<String>,
    /// Whether nothing was done.
    pub dry_run: bool,
}

/// Stops, disables and removes.
///
/// # Errors
/// Kind Refused when the unit was written or changed by somebody else, or from inside the service;
/// Permission.
pub async fn uninstall(
    env: &Env<'_>,
    unit: &Installed,
    dry_run: bool,
    say: Say<'_>,
) -> Result<Uninstalled, ServiceError> {
    let layout = Layout::of(unit.scope, env)?;
    let mut report = Uninstalled {
        ok: true,
        instance: unit.instance.clone(),
        unit: unit.unit.clone(),
        scope: unit.scope,
        actions: Vec::new(),
        notes: Vec::new(),
        dry_run,
    };
    let files = ours(unit, &layout, &mut report)?;
    if !dry_run && unit.scope == Scope::System && !nix::unistd::geteuid().is_root() {
        return Err(ServiceError::permission(format!(
            "only root may remove {}",
            unit.path.display()
        ))
        .next("sudo gatewayctl uninstall"));
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let state = manager.state(&unit.unit).await?;
    refuse_inside(unit, &state, "uninstall")?;
    let leftovers: Vec<PathBuf> = layout
        .leftovers(&unit.instance)
        .into_iter()
        .filter(|path| path.symlink_metadata().is_ok())
        .collect();
    report
        .actions
        .push(format!("stop and disable {}", unit.unit));
    report.actions.extend(
        files
            .iter()
            .chain(&leftovers)
            .map(|path| format!("remove {}", path.display())),
    );
    let returning: Vec<(PathBuf, PathBuf)> = files
        .iter()
        .filter_map(|path| Some((backup::of(path)?, path.clone())))
        .collect();
    report.actions.extend(returning.iter().map(|(_, path)| {
        format!(
            "put back what {} said before install --overwrite",
            path.display()
        )
    }));
    report.notes.extend(
        files
            .iter()
            .flat_map(|path| backup::others(path))
            .map(|copy| {
                format!(
                    "{} stays: it is a copy of what somebody wrote",
                    copy.display()
                )
            }),
    );
    let last_of_user = unit.scope == Scope::User && installed(env, Some(Scope::User)).len() <= 1;
    if last_of_user && layout.linger_mark().is_some_and(|mark| mark.exists()) {
        report
            .actions
            .push("turn lingering off, which install had turned on".to_owned());
    }
    if dry_run {
        return Ok(report);
    }

    let mut units = vec![unit.unit.as_str()];
    units.extend(unit.socket.as_deref());
    take_down(&manager, unit, say).await?;
    manager.disable(&units).await?;
    for path in &files {
        say(&format!("removing {}", path.display()));
        remove(path)?;
    }
    for (copy, path) in &returning {
        say(&format!("putting back {}", path.display()));
        backup::put_back(copy, path)
            .map_err(|error| ServiceError::file("put back", path, &error))?;
        if *path == unit.path {
            report.notes.push(format!(
                "{} is again what it was before install; it is not enabled: {}",
                path.display(),
                systemctl(unit.scope, &format!("enable --now {}", unit.unit))
            ));
        }
    }
    // Asked again: the stop may have brought down what was there, and systemd may have left what
    // was not.
    for path in layout.leftovers(&unit.instance) {
        remove(&path)?;
    }
    for name in &units {
        manager.reset_failed(name).await;
    }
    manager.daemon_reload().await?;
    if last_of_user {
        report.notes.extend(linger::turn_off(&layout).await);
    }
    prune(&layout, &unit.instance);
    Ok(report)
}

/// The files that install wrote; what it did not write is noted and stays.
fn ours(
    unit: &Installed,
    layout: &Layout,
    report: &mut Uninstalled,
) -> Result<Vec<PathBuf>, ServiceError> {
    let look =
        |path: &Path| Written::at(path).map_err(|error| ServiceError::file("read", path, &error));
    let written = look(&unit.path)?;
    if !written.is_free() {
        let next = format!(
            "{}\nrm {}",
            systemctl(unit.scope, &format!("disable --now {}", unit.unit)),
            unit.path.display()
        );
        return Err(ServiceError::not_ours(&unit.path, written.why_not(), "").next(next));
    }
    let mut files = vec![unit.path.clone()];
    let mut others = vec![
        layout.config_file(&unit.instance),
        layout.secrets_file(&unit.instance),
    ];
    others.extend(unit.socket.as_ref().map(|socket| layout.units.join(socket)));
    for path in others {
        match look(&path)? {
            Written::ByUs(_) => files.push(path),
            Written::Absent => {}
            written => report.notes.push(format!(
                "{} stays: it {}",
                path.display(),
                written.why_not()
            )),
        }
    }
    let drop_ins = layout.units.join(format!("{}.d", unit.unit));
    if drop_ins.exists() {
        report.notes.push(format!(
            "{} is kept: it holds your systemd drop-ins, which apply again after the next install",
            drop_ins.display()
        ));
    }
    Ok(files)
}

/// Removes a file, a link (not what it leads to) or a directory with all in it; one that is not
/// there is fine.
fn remove(path: &Path) -> Result<(), ServiceError> {
    let removed = match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(ServiceError::file("remove", path, &error))
        }
        _ => Ok(()),
    }
}

/// Removes the directories that only gateways use, where they are empty now.
fn prune(layout: &Layout, instance: &str) {
    let parents: Vec<PathBuf> = layout
        .leftovers(instance)
        .iter()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .collect();
    for dir in parents.iter().chain([&layout.config]) {
        // A directory that still holds something stays, as it should.
        let _ = std::fs::remove_dir(dir);
    }
    if layout.scope == Scope::User {
        for dir in [
            layout.units.join("default.target.wants"),
            layout.units.join("sockets.target.wants"),
            layout.units.clone(),
        ] {
            let _ = std::fs::remove_dir(dir);
        }
    }
}
