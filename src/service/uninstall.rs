//! Removing an installed gateway, so that nothing of it is left but what others wrote.

use std::io;
use std::path::{Path, PathBuf};

use super::backup;
use super::error::{ServiceError, inside};
use super::launchd_drive;
use super::launchd_record::JobRecord;
use super::layout::{Installed, Layout, installed};
use super::linger;
use super::manager::{Manager, systemctl};
use super::manager_kind::ServiceManagerKind;
use super::provenance::Written;
use super::report::{Say, Uninstalled};
use super::rights::Rights;
use super::start_stop::{is_inside, take_down};
use crate::config::Env;
use crate::state::paths::Scope;
use crate::state::remove_tree::remove_tree;
use crate::text::shell;

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
    let layout = Layout::of_service(unit, env)?;
    let mut notes = Vec::new();
    let files = ours(unit, &layout, &mut notes)?;
    if !dry_run && unit.scope == Scope::System && !nix::unistd::geteuid().is_root() {
        return Err(ServiceError::permission(format!(
            "only root may remove {}",
            unit.path.display()
        ))
        .next(Rights::now().again_as_root("")));
    }
    if unit.manager == ServiceManagerKind::Launchd {
        let job = JobRemoval {
            unit,
            layout,
            files,
        };
        return job.remove(dry_run, say, notes).await;
    }
    let manager = Manager::connect(unit.scope, env).await?;
    let state = manager.state(&unit.unit).await?;
    if is_inside(&state) {
        return Err(inside(&unit.unit, &unit.instance, "uninstall"));
    }
    let kept = files.iter().flat_map(|path| backup::others(path));
    notes.extend(kept.map(|copy| {
        format!(
            "{} stays: it is a copy of what somebody wrote",
            copy.display()
        )
    }));
    let last_of_user = unit.scope == Scope::User && installed(env, Some(Scope::User)).len() <= 1;
    let removal = Removal {
        unit,
        originals: files
            .iter()
            .filter_map(|path| Some((backup::of(path)?, path.clone())))
            .collect(),
        files,
        linger_off: last_of_user && layout.linger_mark().is_some_and(|mark| mark.exists()),
        layout,
    };
    let actions = removal.actions();
    if !dry_run {
        removal.carry_out(&manager, say, &mut notes).await?;
    }
    Ok(Uninstalled {
        service: unit.into(),
        actions,
        notes,
        dry_run,
    })
}

/// What is to be removed.
struct Removal<'a> {
    unit: &'a Installed,
    layout: Layout,
    files: Vec<PathBuf>,
    /// Copies of what `install --overwrite` wrote over, each with the place where it goes back.
    originals: Vec<(PathBuf, PathBuf)>,
    linger_off: bool,
}

impl Removal<'_> {
    fn actions(&self) -> Vec<String> {
        let mut actions = vec![format!("stop and disable {}", self.unit.unit)];
        let mut leftovers = self.layout.leftovers(&self.unit.instance);
        leftovers.retain(|path| path.symlink_metadata().is_ok());
        let removed = self.files.iter().chain(&leftovers);
        actions.extend(removed.map(|path| format!("remove {}", path.display())));
        actions.extend(self.originals.iter().map(|(_, path)| {
            format!(
                "put back what {} said before install --overwrite",
                path.display()
            )
        }));
        if self.linger_off {
            actions.push("turn lingering off, which install had turned on".to_owned());
        }
        actions
    }

    async fn carry_out(
        self,
        manager: &Manager,
        say: Say<'_>,
        notes: &mut Vec<String>,
    ) -> Result<(), ServiceError> {
        let unit = self.unit;
        let mut units = vec![unit.unit.as_str()];
        units.extend(unit.socket.as_deref());
        take_down(manager, unit, say).await?;
        manager.disable(&units).await?;
        for path in &self.files {
            say(&format!("removing {}", path.display()));
            remove(path)?;
        }
        for (copy, path) in &self.originals {
            say(&format!("putting back {}", path.display()));
            backup::put_back(copy, path)
                .map_err(|error| ServiceError::file("put back", path, &error))?;
            if *path == unit.path {
                notes.push(format!(
                    "{} is again what it was before install; it is not enabled: {}",
                    path.display(),
                    systemctl(unit.scope, &format!("enable --now {}", unit.unit))
                ));
            }
        }
        // Not those of `actions`: the stop may have removed some, and systemd may have made others.
        for path in self.layout.leftovers(&unit.instance) {
            remove(&path)?;
        }
        for name in &units {
            manager.reset_failed(name).await;
        }
        manager.daemon_reload().await?;
        if self.linger_off {
            notes.extend(linger::turn_off(&self.layout).await);
        }
        prune(&self.layout, &unit.instance);
        Ok(())
    }
}

/// A job of launchd that is to be removed.
struct JobRemoval<'a> {
    unit: &'a Installed,
    layout: Layout,
    files: Vec<PathBuf>,
}

impl JobRemoval<'_> {
    async fn remove(
        self,
        dry_run: bool,
        say: Say<'_>,
        notes: Vec<String>,
    ) -> Result<Uninstalled, ServiceError> {
        let Self { unit, layout, .. } = &self;
        let log = unit.launchd_log();
        let leftovers = layout.leftovers(&unit.instance);
        let leftovers = leftovers.into_iter().chain([log.clone()]);
        let mut all: Vec<PathBuf> = self.files.iter().cloned().chain(leftovers).collect();
        if !dry_run {
            launchd_drive::stop(unit, "uninstall", say).await?;
            for path in &self.files {
                say(&format!("removing {}", path.display()));
            }
            // The property list last: as long as it is there, the same command goes on.
            for path in all.iter().filter(|path| **path != unit.path) {
                remove(path)?;
            }
            remove(&JobRecord::of(unit).path())?;
            remove(&unit.path)?;
            let originals = self
                .files
                .iter()
                .filter_map(|path| Some((backup::of(path)?, path)));
            for (copy, path) in originals {
                say(&format!("putting back {}", path.display()));
                backup::put_back(&copy, path)
                    .map_err(|error| ServiceError::file("put back", path, &error))?;
            }
            prune(layout, &unit.instance);
            if let Some(dir) = log.parent() {
                // A directory that still holds something stays, as it should.
                let _ = std::fs::remove_dir(dir);
                if unit.scope == Scope::System {
                    let _ = dir.parent().map(std::fs::remove_dir);
                }
            }
        }
        all.retain(|path| !dry_run || path.symlink_metadata().is_ok());
        let mut actions = vec![format!("unload {}", unit.unit)];
        actions.extend(all.iter().map(|path| format!("remove {}", path.display())));
        Ok(Uninstalled {
            service: (*unit).into(),
            actions,
            notes,
            dry_run,
        })
    }
}

/// The files that install wrote; what it did not write is noted and stays.
fn ours(
    unit: &Installed,
    layout: &Layout,
    notes: &mut Vec<String>,
) -> Result<Vec<PathBuf>, ServiceError> {
    let written = Written::look(&unit.path)?;
    if !written.is_free() {
        let stop = match unit.manager {
            ServiceManagerKind::Systemd => {
                systemctl(unit.scope, &format!("disable --now {}", unit.unit))
            }
            ServiceManagerKind::Launchd => format!("launchctl remove {}", unit.unit),
        };
        let next = format!("{stop}\nrm {}", shell::word(&unit.path));
        return Err(ServiceError::not_ours(&unit.path, written.why_not(), "").next(next));
    }
    let mut files = vec![unit.path.clone()];
    let mut others = vec![
        layout.config_file(&unit.instance),
        layout.secrets_file(&unit.instance),
    ];
    others.extend(unit.socket.as_ref().map(|socket| layout.units.join(socket)));
    for path in others {
        match Written::look(&path)? {
            Written::ByUs(_) => files.push(path),
            Written::Absent => {}
            written => notes.push(format!(
                "{} stays: it {}",
                path.display(),
                written.why_not()
            )),
        }
    }
    let drop_ins = layout.units.join(format!("{}.d", unit.unit));
    if drop_ins.exists() {
        notes.push(format!(
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
        Ok(meta) if meta.is_dir() => remove_tree(path),
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
    let leftovers = layout.leftovers(instance);
    let mut dirs: Vec<PathBuf> = leftovers
        .iter()
        .filter_map(|path| path.parent().map(Path::to_owned))
        .chain([layout.config.clone()])
        .collect();
    if layout.scope == Scope::User {
        dirs.extend(
            ["default.target.wants", "sockets.target.wants", ""].map(|dir| layout.units.join(dir)),
        );
    }
    for dir in dirs {
        // A directory that still holds something stays, as it should.
        let _ = std::fs::remove_dir(dir);
    }
}
