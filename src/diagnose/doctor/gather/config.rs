//! The configuration as the gateway finds it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::cli::Context;
use crate::cli::target;
use crate::config::{self, Config, ConfigError, Env, Overrides};
use crate::control::protocol::Status;
use crate::diagnose::doctor::facts::Configuration;
use crate::service::{Installed, drift};
use crate::text::redact::{MASK, Redactor};

/// Where a program is looked for that has neither a folder nor a PATH of its own (systemd's own
/// default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// Looks at the configuration of a service, or of a gateway that was started by hand.
pub(super) fn look(
    ctx: &Context,
    env: &Env<'_>,
    unit: Option<&Installed>,
    live: Option<&Status>,
    unseen: &mut Vec<String>,
) -> Configuration {
    let told = live
        .and_then(|live| live.config.as_ref())
        .map(PathBuf::from);
    let path = match unit {
        Some(unit) => drift::config_file(env, unit).unwrap_or_default(),
        None => told.unwrap_or_else(|| target::config_path(&ctx.global, env)),
    };
    let mut found = Configuration {
        path: path.clone(),
        ..Configuration::default()
    };
    let Ok(meta) = std::fs::metadata(&path) else {
        found.valid = Some(Config::default());
        return found;
    };
    found.access = Some((meta.permissions().mode() & 0o777, meta.uid(), meta.gid()));
    let flags = Overrides {
        config: Some(path.clone()),
        ..Overrides::default()
    };
    match config::load(&flags, &Env(&|_| None)) {
        Ok(loaded) => {
            found.secrets = secrets(&loaded.config);
            if unit.is_some() || live.is_some() {
                programs(&loaded.config, &mut found);
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

/// The keys that hold something secret.
fn secrets(config: &Config) -> Vec<String> {
    let redactor = Redactor::new(&config.gateway.redact);
    let mut found = Vec::new();
    for (name, spec) in &config.sidecar {
        if redactor.arguments(&spec.command) != spec.command {
            found.push(format!("[sidecar.{name}] command"));
        }
        for (key, value) in &spec.env {
            if redactor.value(key, value).contains(MASK) && !value.contains(MASK) {
                found.push(format!("[sidecar.{name}] env.{key}"));
            }
        }
    }
    found
}

/// Programs and folders that are named and not there.
fn programs(config: &Config, found: &mut Configuration) {
    for (name, spec) in &config.sidecar {
        let path = spec.env.get("PATH").map_or(DEFAULT_PATH, String::as_str);
        if spec.env.contains_key("PATH") {
            let gone = std::env::split_paths(path)
                .filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir());
            found.no_path.extend(gone.map(|dir| (name.clone(), dir)));
        }
        if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !cwd.is_dir()) {
            found.no_folder.push((name.clone(), cwd.clone()));
        }
        for program in [spec.command.first(), spec.prepare.first()]
            .into_iter()
            .flatten()
        {
            let there = if program.contains('/') {
                // A relative one is looked for in its folder.
                is_program(&spec.cwd.clone().unwrap_or_default().join(program))
            } else {
                std::env::split_paths(path).any(|dir| is_program(&dir.join(program)))
            };
            if !there {
                found.missing.push((name.clone(), program.clone()));
            }
        }
    }
}

fn is_program(path: &Path) -> bool {
    std::fs::metadata(path)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// Whether the file is another one than the last that served; none where that cannot be read.
pub(super) fn unapplied(config: &Configuration, state: &Path) -> Option<bool> {
    config.access?;
    let (now, served) = (
        std::fs::read(&config.path).ok()?,
        std::fs::read(state.join("good.toml")).ok()?,
    );
    Some(now != served)
}
