//! The configuration file, as the gateway reads it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::config::{self, Config, ConfigError, Env, Loaded, Overrides, TEXT_MAX, regular_file};
use crate::control::protocol::Status;
use crate::diagnose::doctor::facts::{ConfigFile, FileAccess};
use crate::service::{self, Installed, Layout};
use crate::state::untrusted_file;

/// Where a program without a directory is searched when no PATH is configured (systemd's default).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin";

/// What a gateway that this user started by hand makes of its flags, its variables and its file.
#[derive(Debug)]
pub struct ReadByHand {
    pub loaded: Result<Loaded, ConfigError>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Its PATH.
    pub path: Option<String>,
}

/// Looks at the file of a service, else at the one that the running gateway of this user names, else
/// at `default`. `by_hand` knows more of a gateway that is no service.
pub(super) fn look(
    env: &Env<'_>,
    unit: Option<&Installed>,
    status: Option<&Status>,
    by_hand: Option<ReadByHand>,
    default: &Path,
    unseen: &mut Vec<String>,
) -> ConfigFile {
    let reported = status
        .and_then(|status| status.config.as_ref())
        .map(PathBuf::from);
    let path = match unit {
        Some(unit) => Layout::of_service(unit, env).map_or_else(
            |_| PathBuf::new(),
            |layout| layout.config_file(&unit.instance),
        ),
        None => reported.unwrap_or_else(|| default.to_owned()),
    };
    let mut found = ConfigFile {
        path: path.clone(),
        ..ConfigFile::default()
    };
    if let Ok(meta) = std::fs::metadata(&path) {
        found.access = Some(FileAccess {
            mode: meta.permissions().mode() & 0o777,
            owner: meta.uid(),
            group: meta.gid(),
        });
        let read = of_file(&path, unit);
        if let Ok(loaded) = &read {
            found.secrets = loaded.config.secret_keys();
        }
        found.take(read, unseen);
    } else if unit.is_some() || status.is_none() {
        found.valid = Some(Config::default());
    }
    if unit.is_none() && status.is_some() {
        // Flags overrule the file: alone it says nothing of a gateway that was started by hand.
        found.valid = None;
    }
    let (mut base, mut search) = (PathBuf::new(), DEFAULT_PATH.to_owned());
    if let Some(by_hand) = by_hand {
        found.take(by_hand.loaded, unseen);
        base = by_hand.cwd;
        search = by_hand.path.unwrap_or(search);
    }
    if let (Some(config), true) = (found.valid.clone(), unit.is_some() || status.is_some()) {
        missing_files(&config, &base, &search, &mut found);
    }
    found
}

/// A file as its gateway reads it, without flags.
fn of_file(path: &Path, unit: Option<&Installed>) -> Result<Loaded, ConfigError> {
    let flags = Overrides {
        config: Some(path.to_owned()),
        ..Overrides::default()
    };
    match unit {
        Some(_) => service::read_configuration(path),
        // This user's own, who may have named a device on purpose.
        None => config::load(&flags, &Env(&|_| None)),
    }
}

impl ConfigFile {
    fn take(&mut self, read: Result<Loaded, ConfigError>, unseen: &mut Vec<String>) {
        (self.valid, self.invalid) = match read {
            Ok(loaded) => (Some(loaded.config), None),
            Err(ConfigError::Unreadable { path, source }) => {
                unseen.push(format!("{}: {source}", path.display()));
                (None, None)
            }
            Err(error) => (None, Some(error.to_string())),
        };
    }
}

/// Notes the programs and directories that are configured but do not exist. Relative ones begin at
/// `base`, and programs without a directory are in `search` where no PATH is configured.
fn missing_files(config: &Config, base: &Path, search: &str, found: &mut ConfigFile) {
    for (name, spec) in &config.sidecar {
        let path = spec.env.get("PATH").map_or(search, String::as_str);
        if spec.env.contains_key("PATH") {
            let gone = std::env::split_paths(path)
                .filter(|dir| !dir.as_os_str().is_empty() && !dir.is_dir());
            found
                .missing_path
                .extend(gone.map(|dir| (name.clone(), dir)));
        }
        if let Some(cwd) = spec.cwd.as_ref().filter(|cwd| !base.join(cwd).is_dir()) {
            found.missing_cwd.push((name.clone(), cwd.clone()));
        }
        for program in [spec.command.first(), spec.prepare.first()]
            .into_iter()
            .flatten()
        {
            let exists = if program.contains('/') {
                // A relative path starts at the working directory.
                is_program(
                    &base
                        .join(spec.cwd.clone().unwrap_or_default())
                        .join(program),
                )
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
