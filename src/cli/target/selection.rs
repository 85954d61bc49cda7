//! What flags and environment say about the gateway to select.

use std::path::{Path, PathBuf};

use crate::cli::args::Global;
use crate::config::{self, DEFAULT_INSTANCE, Env, Overrides};
use crate::state::paths::Scope;

/// The scope that the flags name.
pub fn scope(global: &Global) -> Option<Scope> {
    match (global.system, global.user) {
        (true, _) => Some(Scope::System),
        (_, true) => Some(Scope::User),
        _ => None,
    }
}

/// The flags as `gateway run` takes them, with the configuration file of the scope.
pub fn overrides(global: &Global, env: &Env<'_>) -> Overrides {
    let usual = || Some(config_path(global, env)).filter(|path| path.exists());
    Overrides {
        config: named_config(global, env).or_else(usual),
        instance: global.instance.clone(),
        state_dir: global.state_dir.clone(),
        ..Overrides::default()
    }
}

fn named_config(global: &Global, env: &Env<'_>) -> Option<PathBuf> {
    global.config.clone().or_else(|| env.path("GATEWAY_CONFIG"))
}

/// The path of the selected gateway's configuration, whether it exists or not.
pub fn config_path(global: &Global, env: &Env<'_>) -> PathBuf {
    if let Some(path) = named_config(global, env) {
        return path;
    }
    let name = wanted_name(global, env).unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
    let file = format!("{name}.toml");
    let system = Path::new("/etc/gateway").join(&file);
    let usual = config::default_path(env, &name);
    match scope(global) {
        Some(Scope::System) => system,
        Some(Scope::User) => env
            .path("XDG_CONFIG_HOME")
            .or_else(|| env.path("HOME").map(|home| home.join(".config")))
            .map_or(usual, |dir| dir.join("gateway").join(&file)),
        None if !usual.exists() && system.exists() => system,
        None => usual,
    }
}

/// The state directory that flags or environment name.
pub fn named_state_dir(global: &Global, env: &Env<'_>) -> Option<PathBuf> {
    let named = global.state_dir.clone();
    named.or_else(|| env.path("GATEWAY_STATE_DIR"))
}

/// Whether a state directory or a configuration is named: then no installed service is meant.
pub fn is_named_by_path(global: &Global) -> bool {
    global.state_dir.is_some()
        || global.config.is_some()
        || Env::real().path("GATEWAY_STATE_DIR").is_some()
}

/// The name that flags and environment give.
pub fn wanted_name(global: &Global, env: &Env<'_>) -> Option<String> {
    global
        .instance
        .clone()
        .or_else(|| env.text("GATEWAY_INSTANCE"))
}
