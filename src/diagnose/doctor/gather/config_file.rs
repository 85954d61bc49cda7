//! The configuration file, as the gateway reads it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{self, Config, ConfigError, Env, Overrides, TEXT_MAX, regular_file};
use crate::control::protocol::Status;
use crate::diagnose::doctor::facts::{ConfigFile, FileAccess};
use crate::service::{self, Installed, Layout};
use crate::state::untrusted_file;

/// Where a program without a directory is searched when no PATH is configured (systemd's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Looks at the file of a service, else at the one that the running gateway of this user names, else
/// at `default`.
pub(super) fn look(
    env: &Env<'_>,
    unit: Option<&Installed>,
    status: Option<&Status>,
    default: &Path,
    unseen: &mut Vec<String>,
) -> ConfigFile {
    let reported = status
        .and_then(|status| status.config.as_ref())
        .map(PathBuf::from);
    let path = match unit {
        Some(unit) => Layout::of(unit.scope, env).map_or_else(
            |_| PathBuf::new(),
            |layout| layout.config_file(&unit.instance),
        ),
        None => reported.unwrap_or_else(|| default.to_owned()),
    };
    let mut found = ConfigFile {
        path: path.clone(),
        ..ConfigFile::default()
    };
    let Ok(meta) = std::fs::metadata(&path) else {
        found.valid = Some(Config::default());
        return found;
    };
    found.access = Some(FileAccess {
        mode: meta.permissions().mode() & 0o777,
        owner: meta.uid(),
        group: meta.gid(),
    });
    let flags = Overrides {
        config: Some(path.clone()),
        ..Overrides::default()
    };
    let read = match unit {
        Some(_) => service::read_configuration(&path),
        // This user's own, who may have named a device on purpose.
        None => config::load(&flags, &Env(&|_| None)),
    };
    match read {
        Ok(loaded) => {
            found.secrets = loaded.config.secret_keys();
            if unit.is_some() || status.is_some() {
                missing_files(&loaded.config, &mut found);
            }
            found.valid = Some(loaded.config);
        }
        Err(ConfigError::Unreadable { source, .. }) => {
            unseen.push(format!("{}: {source}", path.display()))
        }
        Err(error) => found.invalid = Some(error.to_string()),
    }
    found
}

/// Notes the programs and directories that are configured but do not exist.
fn missing_files(config: &Config, found: &mut ConfigFile) {
    for (name, spec) in &config.sidecar {
        let path = spec.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        if spec.env.contains_key("PATH") {
            let gone = std::env::split_paths(path)
                .filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir());
            found
                .missing_path
                .extend(gone.map(|dir| (name.clone(), dir)));
        }
        if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            found.missing_cwd.push((name.clone(), cwd.clone()));
        }
        for program in [spec.command.first(), spec.prepare.first()]
            .into_iter()
            .flatten()
        {
            let exists = if program.contains('/') {
                // A relative path starts at the working directory.
                is_program(&spec.cwd.clone().unwrap_or_default().join(program))
            } else {
                std::env::split_paths(path).any(|dir| is_program(&dir.join(program)))
            };
            if !exists {
                found.missing_programs.push((name.clone(), program.clone()));
            }
        }
    }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether the file differs from the configuration that served last; none where one of the two
/// cannot be read.
pub(super) fn unapplied(config: &ConfigFile, state: &Path) -> Option<bool> {
    config.access?;
    let (now, served) = (
        regular_file::read(&config.path, TEXT_MAX).ok()?,
        untrusted_file::read(&state.join("good.toml"), TEXT_MAX).ok()?,
    );
    Some(now != served)
}
