//! The environment: how variables are read, and which keys of the configuration they set.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::ConfigError;
use super::model::{Config, GatewaySection, RestartMode, RestartSection, Throttle};
use super::types::Dur;

/// The environment as far as the configuration reads it; a function, so that tests need not change
/// the real one.
pub struct Env<'a>(pub &'a (dyn Fn(&str) -> Option<OsString> + Sync));

impl Env<'_> {
    /// The environment of this process.
    pub fn real() -> Env<'static> {
        Env(&|name| std::env::var_os(name))
    }

    /// A variable that is set, not empty, and text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.path(name)?.into_os_string().into_string().ok()
    }

    /// Whether a variable is a switch that says yes: as the seed systems read theirs.
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name).is_some_and(|value| {
            ["1", "true", "yes", "on"]
                .iter()
                .any(|yes| value.trim().eq_ignore_ascii_case(yes))
        })
    }

    /// A variable that is set and not empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        (self.0)(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    }
}

/// Lays the `GATEWAY_*` variables over the configuration.
///
/// # Errors
/// [`ConfigError::Invalid`], which names the variable.
pub(super) fn apply_env(config: &mut Config, env: &Env<'_>) -> Result<(), ConfigError> {
    apply_gateway(&mut config.gateway, env)?;
    apply_restart(&mut config.restart, env)?;
    apply_throttle(&mut config.recovery.throttle, env)
}

fn apply_gateway(gateway: &mut GatewaySection, env: &Env<'_>) -> Result<(), ConfigError> {
    if let Some(list) = env.text("GATEWAY_LISTEN") {
        gateway.listen = list
            .split(',')
            .map(|item| item.trim().parse())
            .collect::<Result<_, String>>()
            .map_err(|error| invalid("GATEWAY_LISTEN", &error))?;
    }
    if let Some(dir) = env.path("GATEWAY_STATE_DIR") {
        gateway.state_dir = Some(dir);
    }
    if let Some(file) = env.path("GATEWAY_TOKEN_FILE") {
        gateway.token_file = Some(file);
    }
    set_flag(env, "GATEWAY_HEALTH_PATHS", &mut gateway.health_paths)?;
    set_flag(env, "GATEWAY_VIA", &mut gateway.via)
}

fn apply_restart(restart: &mut RestartSection, env: &Env<'_>) -> Result<(), ConfigError> {
    set_flag(
        env,
        "GATEWAY_RESTART_EXTERNAL_SIGNAL",
        &mut restart.external_signal,
    )?;
    set(env, "GATEWAY_RESTART_MODE", &mut restart.mode)?;
    set(env, "GATEWAY_RESTART_DRAIN", &mut restart.drain)?;
    set(env, "GATEWAY_RESTART_STOP_DRAIN", &mut restart.stop_drain)?;
    set(
        env,
        "GATEWAY_RESTART_LAUNCHD_EXIT_DELAY",
        &mut restart.launchd_exit_delay,
    )?;
    if env.text("GATEWAY_RESTART_TUNNEL_DRAIN").is_some() {
        let mut tunnel = Dur::secs(0);
        set(env, "GATEWAY_RESTART_TUNNEL_DRAIN", &mut tunnel)?;
        restart.tunnel_drain = Some(tunnel);
    }
    Ok(())
}

fn apply_throttle(throttle: &mut Throttle, env: &Env<'_>) -> Result<(), ConfigError> {
    set(
        env,
        "GATEWAY_RECOVERY_THROTTLE_WINDOW",
        &mut throttle.window,
    )?;
    set(env, "GATEWAY_RECOVERY_THROTTLE_BASE", &mut throttle.base)?;
    set(env, "GATEWAY_RECOVERY_THROTTLE_MAX", &mut throttle.max)?;
    set(
        env,
        "GATEWAY_RECOVERY_THROTTLE_STABLE",
        &mut throttle.stable,
    )?;
    set_number(
        env,
        "GATEWAY_RECOVERY_THROTTLE_THRESHOLD",
        &mut throttle.threshold,
    )
}

fn set<T: FromStr<Err = String>>(
    env: &Env<'_>,
    name: &str,
    slot: &mut T,
) -> Result<(), ConfigError> {
    if let Some(text) = env.text(name) {
        *slot = text
            .parse()
            .map_err(|error: String| invalid(name, &error))?;
    }
    Ok(())
}

fn set_flag(env: &Env<'_>, name: &str, slot: &mut bool) -> Result<(), ConfigError> {
    *slot = match env.text(name).as_deref() {
        None => return Ok(()),
        Some("1" | "true" | "yes" | "on") => true,
        Some("0" | "false" | "no" | "off") => false,
        Some(other) => {
            return Err(invalid(
                name,
                &format!("`{other}` is neither true nor false"),
            ));
        }
    };
    Ok(())
}

fn set_number(env: &Env<'_>, name: &str, slot: &mut u32) -> Result<(), ConfigError> {
    if let Some(text) = env.text(name) {
        *slot = text
            .trim()
            .parse()
            .map_err(|_| invalid(name, &format!("`{text}` is not a number")))?;
    }
    Ok(())
}

fn invalid(name: &str, why: &str) -> ConfigError {
    ConfigError::invalid(None, None, format!("{name}: {why}"))
}

impl FromStr for RestartMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "in-process" => Ok(Self::InProcess),
            "respawn" => Ok(Self::Respawn),
            "exit" => Ok(Self::Exit),
            _ => Err(format!(
                "`{text}` is not a restart mode: auto, in-process, respawn or exit"
            )),
        }
    }
}
