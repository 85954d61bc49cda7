//! What flags and environment say about the gateway to select.

use std::path::{Path, PathBuf};

use crate::cli::args::Global;
use crate::config::{self, DEFAULT_INSTANCE, Env, Overrides};
use crate::service::Installed;
use crate::state::paths::Scope;
use crate::text::shell;

/// The scope that the flags name.
pub fn scope(global: &Global) -> Option<Scope> {
    match (global.system, global.user) {
        (true, _) => Some(Scope::System),
        (_, true) => Some(Scope::User),
        _ => None,
    }
}

/// Flags that select this service and nothing else.
pub fn of_service(global: &Global, unit: &Installed) -> Global {
    Global {
        instance: Some(unit.instance.clone()),
        system: unit.scope == Scope::System,
        user: unit.scope == Scope::User,
        ..global.clone()
    }
}

/// The flags that name the gateway, with a blank before each, as they were given: for the next command in
/// messages.
pub fn naming_flags(global: &Global) -> String {
    let path = |flag: &str, path: &Option<PathBuf>| {
        let path = path
            .as_ref()
            .map(|path| format!(" {flag} {}", shell::word(path)));
        path.unwrap_or_default()
    };
    let name = global.instance.as_ref();
    let name = name.map(|name| format!(" --instance {}", shell::word(name)));
    let scope = match scope(global) {
        Some(Scope::System) => " --system",
        Some(Scope::User) => " --user",
        None => "",
    };
    [
        name.unwrap_or_default(),
        scope.to_owned(),
        path("--config", &global.config),
        path("--state-dir", &global.state_dir),
    ]
    .concat()
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

/// The configuration that flags or environment name.
pub fn named_config(global: &Global, env: &Env<'_>) -> Option<PathBuf> {
    global.config.clone().or_else(|| env.path("GATEWAY_CONFIG"))
}

/// The configuration that flags or environment name, where they name the gateway in no other way.
pub fn naming_config(global: &Global, env: &Env<'_>) -> Option<PathBuf> {
    let otherwise = global.instance.is_some()
        || env.text("GATEWAY_INSTANCE").is_some()
        || named_state_dir(global, env).is_some();
    named_config(global, env).filter(|_| !otherwise)
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

/// The flag or variable that names a state directory or a configuration, if there is one: then no
/// installed service is meant, by no command. A variable counts as its flag.
pub fn named_by_path(global: &Global, env: &Env<'_>) -> Option<&'static str> {
    [
        ("--state-dir", global.state_dir.is_some()),
        ("--config", global.config.is_some()),
        (
            "$GATEWAY_STATE_DIR",
            env.path("GATEWAY_STATE_DIR").is_some(),
        ),
        ("$GATEWAY_CONFIG", env.path("GATEWAY_CONFIG").is_some()),
    ]
    .into_iter()
    .find_map(|(name, is_given)| is_given.then_some(name))
}

/// The name that flags and environment give, or else the configuration that they name. In a state
/// directory that is named, the record knows the name.
pub fn wanted_name(global: &Global, env: &Env<'_>) -> Option<String> {
    let named = global.instance.clone();
    named.or_else(|| env.text("GATEWAY_INSTANCE")).or_else(|| {
        named_config(global, env).filter(|_| named_state_dir(global, env).is_none())?;
        // A file that is not valid now may have been valid when the gateway started: then it is
        // looked for in the usual places.
        let loaded = config::load(&overrides(global, env), env).ok()?;
        Some(loaded.instance)
    })
}
