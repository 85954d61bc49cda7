//! The environment: how variables are read, and which keys of the configuration they set.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use nix::unistd::{User, geteuid};

use super::error::ConfigError;
use super::model::{Config, GatewaySection, RestartMode, RestartSection, Throttle};
use super::types::{AccessLogTarget, Dur};
use crate::text::words::Words;

/// The environment; a function, so that tests need not change the real one.
pub struct Env<'a>(pub &'a (dyn Fn(&str) -> Option<OsString> + Sync));

/// The variables that name directories of a user. `su -m` and `sudo -E` leave those of the user before.
const OWN_DIRECTORIES: [&str; 4] = [
    "HOME",
    "XDG_CONFIG_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
];

/// The same for a user other than root: where that user writes, which a directory of somebody else
/// refuses anyway. A service may well have its home and its configuration from another user.
const WRITTEN_DIRECTORIES: [&str; 2] = ["XDG_STATE_HOME", "XDG_RUNTIME_DIR"];

/// A variable of this process; for one that names a directory of another user, what it would be for
/// this one.
fn own_variable(name: &str) -> Option<OsString> {
    let value = std::env::var_os(name)?;
    match foreign_owner(name, Path::new(&value)) {
        None => Some(value),
        Some(_) if name == "HOME" => {
            let user = User::from_uid(geteuid()).ok().flatten()?;
            Some(user.dir.into())
        }
        Some(_) => None,
    }
}

/// The user whom the directory of a variable belongs to, where that is neither this one nor root. One
/// that is not there belongs to who may make it.
fn foreign_owner(name: &str, path: &Path) -> Option<u32> {
    let me = geteuid();
    let own: &[&str] = match me.is_root() {
        true => &OWN_DIRECTORIES,
        false => &WRITTEN_DIRECTORIES,
    };
    if !own.contains(&name) {
        return None;
    }
    let owner = |path: &Path| std::fs::metadata(path).ok().map(|facts| facts.uid());
    // In a user namespace, root's directories may belong to somebody who is not known there.
    let trusted = [Some(0), Some(me.as_raw()), owner(Path::new("/"))];
    let owner = path.ancestors().find_map(owner)?;
    (!trusted.contains(&Some(owner))).then_some(owner)
}

/// What is ignored of the environment, and why, a sentence each.
pub fn ignored() -> Vec<String> {
    let ignored = OWN_DIRECTORIES.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        let path = Path::new(&value);
        let owner = foreign_owner(name, path)?;
        let path = path.display();
        Some(format!(
            "${name} is ignored: {path} belongs to uid {owner}, as after `su -m` or `sudo -E`"
        ))
    });
    ignored.collect()
}

impl Env<'_> {
    /// The environment of this process. What names a directory of another user is left out: whoever
    /// follows it believes what that user wrote and what answers there.
    pub fn real() -> Env<'static> {
        Env(&own_variable)
    }

    /// A variable that is set, not empty, and text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.path(name)?.into_os_string().into_string().ok()
    }

    /// Whether a variable is a switch that is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| {
            let word = value.trim().to_ascii_lowercase();
            ["1", "true", "yes", "on"].contains(&word.as_str())
        })
    }

    /// A variable that is set and not empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }
}

/// Applies the `GATEWAY_*` variables to the configuration.
///
/// # Errors
/// [`ConfigError::Invalid`], which names the variable.
pub(super) fn apply_env(config: &mut Config, env: &Env<'_>) -> Result<(), ConfigError> {
    apply_gateway(&mut config.gateway, env)?;
    apply_restart(&mut config.restart, env)?;
    apply_throttle(&mut config.recovery.throttle, env)
}

fn apply_gateway(gateway: &mut GatewaySection, env: &Env<'_>) -> Result<(), ConfigError> {
    set(env, "GATEWAY_LISTEN", &mut gateway.listen, |list| {
        list.split(',').map(|item| item.trim().parse()).collect()
    })?;
    if let Some(dir) = env.path("GATEWAY_STATE_DIR") {
        gateway.state_dir = Some(dir);
    }
    if let Some(file) = env.path("GATEWAY_TOKEN_FILE") {
        gateway.token_file = Some(file);
    }
    if let Some(file) = env.path("GATEWAY_READER_TOKEN_FILE") {
        gateway.reader_token_file = Some(file);
    }
    let (health_paths, via) = (&mut gateway.health_paths, &mut gateway.via);
    set(env, "GATEWAY_HEALTH_PATHS", health_paths, flag)?;
    set(env, "GATEWAY_VIA", via, flag)?;
    set(env, "GATEWAY_FORWARDED", &mut gateway.forwarded, |text| {
        text.parse()
            .map_err(|_| format!("`{text}` is neither auto, always nor never"))
    })?;
    let target = &mut gateway.access_log;
    set(env, "GATEWAY_ACCESS_LOG", target, AccessLogTarget::from_str)?;
    let format = &mut gateway.access_log_format;
    set(env, "GATEWAY_ACCESS_LOG_FORMAT", format, |text| {
        text.parse()
            .map_err(|_| format!("`{text}` is neither json nor combined"))
    })?;
    set(env, "GATEWAY_REQUEST_ID", &mut gateway.request_id, |text| {
        flag(text).map(Some)
    })?;
    let case = &mut gateway.keep_header_case;
    set(env, "GATEWAY_KEEP_HEADER_CASE", case, flag)
}

fn apply_restart(restart: &mut RestartSection, env: &Env<'_>) -> Result<(), ConfigError> {
    let RestartSection {
        mode,
        drain,
        tunnel_drain,
        stop_delay,
        watch,
        max_copies,
        stop_drain,
        external_signal,
        launchd_exit_delay: delay,
        hold: _,
    } = restart;
    set(
        env,
        "GATEWAY_RESTART_EXTERNAL_SIGNAL",
        external_signal,
        flag,
    )?;
    set(env, "GATEWAY_RESTART_MODE", mode, restart_mode)?;
    set(env, "GATEWAY_RESTART_DRAIN", drain, Dur::from_str)?;
    set(env, "GATEWAY_RESTART_STOP_DELAY", stop_delay, Dur::from_str)?;
    set(env, "GATEWAY_RESTART_WATCH", watch, Dur::from_str)?;
    set(env, "GATEWAY_RESTART_MAX_COPIES", max_copies, |text| {
        text.parse().map_err(|_| format!("`{text}` is no number"))
    })?;
    set(env, "GATEWAY_RESTART_STOP_DRAIN", stop_drain, Dur::from_str)?;
    set(
        env,
        "GATEWAY_RESTART_LAUNCHD_EXIT_DELAY",
        delay,
        Dur::from_str,
    )?;
    set(env, "GATEWAY_RESTART_TUNNEL_DRAIN", tunnel_drain, |text| {
        text.parse().map(Some)
    })
}

fn apply_throttle(throttle: &mut Throttle, env: &Env<'_>) -> Result<(), ConfigError> {
    let Throttle {
        window,
        threshold,
        base,
        max,
        stable,
    } = throttle;
    set(
        env,
        "GATEWAY_RECOVERY_THROTTLE_WINDOW",
        window,
        Dur::from_str,
    )?;
    set(env, "GATEWAY_RECOVERY_THROTTLE_BASE", base, Dur::from_str)?;
    set(env, "GATEWAY_RECOVERY_THROTTLE_MAX", max, Dur::from_str)?;
    set(
        env,
        "GATEWAY_RECOVERY_THROTTLE_STABLE",
        stable,
        Dur::from_str,
    )?;
    set(
        env,
        "GATEWAY_RECOVERY_THROTTLE_THRESHOLD",
        threshold,
        |text| {
            let number = text.trim().parse();
            number.map_err(|_| format!("`{text}` is not a number"))
        },
    )
}

/// Sets a key to the value of a variable, if that is set.
fn set<T>(
    env: &Env<'_>,
    name: &str,
    key: &mut T,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), ConfigError> {
    if let Some(text) = env.text(name) {
        *key = parse(&text)
            .map_err(|why| ConfigError::invalid(None, None, format!("{name}: {why}")))?;
    }
    Ok(())
}

fn flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        other => Err(format!("`{other}` is neither true nor false")),
    }
}

fn restart_mode(text: &str) -> Result<RestartMode, String> {
    RestartMode::from_word(text)
        .ok_or_else(|| format!("`{text}` is not a restart mode: auto, in-process, respawn or exit"))
}
