//! The job of launchd: its file, and what launchd says of it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::config::Env;
use crate::diagnose::doctor::facts::{FileAccess, InstalledJob};
use crate::service::{self, Installed};
use crate::state::paths::Scope;

/// Where macOS lets no program look that nobody has allowed to, below a home directory.
const PROTECTED: [&str; 3] = ["Documents", "Desktop", "Downloads"];

pub(super) async fn look(env: &Env<'_>, installed: &Installed) -> InstalledJob {
    let file = std::fs::symlink_metadata(&installed.path).ok();
    let file = file.map(|facts| FileAccess {
        mode: facts.permissions().mode() & 0o7777,
        owner: facts.uid(),
        group: facts.gid(),
    });
    let home = env.path("HOME");
    let protected = home
        .iter()
        .flat_map(|home| PROTECTED.map(|dir| home.join(dir)));
    InstalledJob {
        file,
        owner: match installed.scope {
            Scope::System => 0,
            Scope::User => nix::unistd::geteuid().as_raw(),
        },
        survey: service::survey_job(installed)
            .await
            .map_err(|error| error.to_string()),
        protected: protected.collect(),
        installed: installed.clone(),
    }
}
