//! Gateways that have ended: which one is meant where none runs.

use std::path::PathBuf;
use std::time::SystemTime;

use super::selection;
use crate::cli::args::Global;
use crate::cli::error::{CliError, Exit};
use crate::config::{self, DEFAULT_INSTANCE, Env};
use crate::service;
use crate::state::history;
use crate::state::owner::Owner;
use crate::state::paths::{Paths, Scope};
use crate::text::shell;

/// So many names are shown where one must be chosen: those that ended last.
const NAMES_MAX: usize = 8;

/// A gateway that has left a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedGateway {
    pub instance: String,
    pub state: PathBuf,
    /// When it last wrote to its record.
    last: SystemTime,
}

impl EndedGateway {
    fn of(instance: String, state: PathBuf) -> Option<Self> {
        let last = state.join(history::FILE).symlink_metadata().ok()?;
        let last = last.modified().unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Self {
            instance,
            state,
            last,
        })
    }

    /// What is said of one that nobody named.
    pub fn told(&self) -> String {
        format!("none runs; this is of {}, which has ended", self.instance)
    }

    /// What its last process wrote about itself; none of one that runs.
    pub fn owner(&self) -> Option<Owner> {
        Owner::read(&self.state).filter(|owner| owner.lives() == Some(false))
    }
}

/// Every gateway of this user that has left a record in the usual place, the one that wrote last first.
pub fn all(env: &Env<'_>) -> Vec<EndedGateway> {
    let states = Paths::states(env).into_iter();
    let mut all: Vec<_> = states
        .filter_map(|(instance, state)| EndedGateway::of(instance, state))
        .collect();
    all.sort_by_key(|one| std::cmp::Reverse(one.last));
    all
}

/// The one of the usual name or else the only one, where no flag, variable or configuration says which
/// gateway is meant, and none runs or is installed.
///
/// # Errors
/// [`Exit::Usage`] with the list when there are several.
pub fn unnamed(global: &Global, env: &Env<'_>) -> Result<Option<EndedGateway>, CliError> {
    let installed = || service::installed(env, selection::scope(global));
    if !is_unnamed(global, env) || !installed().is_empty() {
        return Ok(None);
    }
    let mut all = all(env);
    if let Some(usual) = all.iter().position(|one| one.instance == DEFAULT_INSTANCE) {
        return Ok(Some(all.swap_remove(usual)));
    }
    if let [first, _, ..] = &all[..] {
        return Err(several(&all, first));
    }
    Ok(all.pop())
}

/// The one that flags, variables or the configuration name, or else [`unnamed`]; none that has left no
/// record.
///
/// # Errors
/// Those of [`unnamed`].
pub fn meant(global: &Global, env: &Env<'_>) -> Result<Option<EndedGateway>, CliError> {
    let name = selection::wanted_name(global, env);
    let configured = || {
        let loaded = config::load(&selection::overrides(global, env), env).ok()?;
        loaded.config.gateway.state_dir
    };
    if let Some(dir) = selection::named_state_dir(global, env).or_else(configured) {
        let name = name.or_else(|| Owner::read(&dir).map(|owner| owner.instance));
        let name = name.filter(|name| config::check_instance(name).is_ok());
        let name = name.unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
        return Ok(EndedGateway::of(name, dir));
    }
    match name {
        Some(name) => {
            let mut states = Paths::usual_states(env, &name).into_iter();
            Ok(states.find_map(|dir| EndedGateway::of(name.clone(), dir)))
        }
        None => unnamed(global, env),
    }
}

/// Whether nothing says which gateway is meant.
pub fn is_unnamed(global: &Global, env: &Env<'_>) -> bool {
    selection::wanted_name(global, env).is_none()
        && selection::named_by_path(global, env).is_none()
        && selection::scope(global) != Some(Scope::System)
        && !selection::config_path(global, env).exists()
}

fn several(all: &[EndedGateway], first: &EndedGateway) -> CliError {
    let mut error = Exit::Usage.error("no gateway is running, and several have ended here:");
    for one in all.iter().take(NAMES_MAX) {
        error.add_line(&one.instance);
    }
    if let Some(more) = all.len().checked_sub(NAMES_MAX).filter(|more| *more > 0) {
        error.add_line(format!("+{more} more"));
    }
    let flag = shell::word(&first.instance);
    error.with_help(format!(
        "say which one, as in --instance {flag}   (it ended last)"
    ))
}
