//! File, then environment, then flags.

use std::path::{Path, PathBuf};

use super::environment::{Env, apply_env};
use super::error::ConfigError;
use super::model::{Config, Ready, SidecarSpec};
use super::position::{Position, nearest};
use super::types::Listen;
use super::validate::check;
use super::{DEFAULT_INSTANCE, DEFAULT_PORT, MAIN_SIDECAR};

/// What flags say; each overrules the file and the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    /// `--instance`
    pub instance: Option<String>,
    /// `--state-dir`
    pub state_dir: Option<PathBuf>,
    /// `--listen`, repeatable
    pub listen: Vec<Listen>,
    /// `--exclusive`
    pub exclusive: bool,
    /// `--port`
    pub port: Option<u16>,
    /// `--ready`
    pub ready: Option<String>,
    /// `-- COMMAND…`
    pub command: Vec<String>,
}

/// A configuration ready for use.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file it came from, if there was one.
    pub path: Option<PathBuf>,
    /// The name of the instance.
    pub instance: String,
    /// The file's text, as it was read.
    pub text: Option<String>,
}

/// Where the configuration of `instance` is looked for without `--config`.
///
/// `$CONFIGURATION_DIRECTORY` (set by systemd from ConfigurationDirectory=) wins; then /etc/gateway
/// for root, `$XDG_CONFIG_HOME/gateway` or `~/.config/gateway` for everybody else.
pub fn default_path(env: &Env<'_>, instance: &str) -> PathBuf {
    let file = format!("{instance}.toml");
    if let Some(dir) = env.path("CONFIGURATION_DIRECTORY") {
        return dir.join(file);
    }
    if nix::unistd::geteuid().is_root() {
        return Path::new("/etc/gateway").join(file);
    }
    let base = env
        .path("XDG_CONFIG_HOME")
        .or_else(|| env.path("HOME").map(|home| home.join(".config")))
        .unwrap_or_else(|| PathBuf::from("/etc"));
    base.join("gateway").join(file)
}

/// Reads the configuration, lays environment and flags over it, and checks the whole.
///
/// # Errors
/// [`ConfigError`] when the file named by `--config` or `$GATEWAY_CONFIG` is missing, when a file
/// cannot be read, or when what was written is wrong. A missing default file is an empty one.
pub fn load(flags: &Overrides, env: &Env<'_>) -> Result<Loaded, ConfigError> {
    let (path, explicit) = locate(flags, env);
    match std::fs::read_to_string(&path) {
        Ok(text) => load_text(flags, env, &path, Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !explicit => {
            load_text(flags, env, &path, None)
        }
        Err(source) => Err(ConfigError::Unreadable { path, source }),
    }
}

/// The file that [`load`] reads, and whether somebody named it.
fn locate(flags: &Overrides, env: &Env<'_>) -> (PathBuf, bool) {
    match flags.config.clone().or_else(|| env.path("GATEWAY_CONFIG")) {
        Some(path) => (path, true),
        None => {
            let provisional =
                named(flags, env).unwrap_or_else(|| name_from_listeners(&flags.listen));
            (default_path(env, &provisional), false)
        }
    }
}

fn named(flags: &Overrides, env: &Env<'_>) -> Option<String> {
    flags
        .instance
        .clone()
        .or_else(|| env.text("GATEWAY_INSTANCE"))
}

/// Lays environment and flags over the text of a file (none: no file), as [`load`] does, and checks
/// the whole.
///
/// # Errors
/// [`ConfigError::Invalid`], which names `path`.
pub fn load_text(
    flags: &Overrides,
    env: &Env<'_>,
    path: &Path,
    text: Option<String>,
) -> Result<Loaded, ConfigError> {
    let mut config = text
        .as_deref()
        .map_or_else(|| Ok(Config::default()), |text| parse(text, Some(path)))?;
    apply_env(&mut config, env)?;
    apply_flags(&mut config, flags)?;
    check(&config, text.as_deref().map(|text| (path, text)))?;
    let instance = named(flags, env)
        .or_else(|| config.gateway.instance.clone())
        .unwrap_or_else(|| name_from_listeners(&config.gateway.listen));
    check_instance(&instance)?;
    Ok(Loaded {
        config,
        path: text.is_some().then(|| path.to_owned()),
        instance,
        text,
    })
}

/// What can be said of a configuration that is not valid: enough to find the state of its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    /// The file that was read.
    pub path: PathBuf,
    /// The name of the instance, as far as it can be told.
    pub instance: String,
    /// The state directory, when a flag, a variable or the file names one.
    pub state_dir: Option<PathBuf>,
}

/// Reads past whatever is wrong.
pub fn whereabouts(flags: &Overrides, env: &Env<'_>) -> Whereabouts {
    let (path, _) = locate(flags, env);
    let file = std::fs::read_to_string(&path)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .unwrap_or_default();
    let key = |name: &str| file.get("gateway").and_then(|section| section.get(name));
    let text = |name: &str| key(name).and_then(toml::Value::as_str).map(str::to_owned);
    let first = |value: Option<String>| value.and_then(|text| text.parse().ok());
    let listen = flags
        .listen
        .first()
        .cloned()
        .or_else(|| {
            first(
                env.text("GATEWAY_LISTEN")?
                    .split(',')
                    .next()
                    .map(|item| item.trim().to_owned()),
            )
        })
        .or_else(|| first(key("listen")?.get(0)?.as_str().map(str::to_owned)));
    let instance = named(flags, env)
        .or_else(|| text("instance"))
        .filter(|name| check_instance(name).is_ok())
        .unwrap_or_else(|| name_from_listeners(listen.as_slice()));
    let state_dir = flags
        .state_dir
        .clone()
        .or_else(|| env.path("GATEWAY_STATE_DIR"))
        .or_else(|| text("state_dir").map(PathBuf::from));
    Whereabouts {
        path,
        instance,
        state_dir,
    }
}

/// Parses a file's text; unknown keys and wrong types are refused with their place.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn parse(text: &str, path: Option<&Path>) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map(|span| Position::of(text, span.start));
        let (message, help) = match error
            .span()
            .and_then(|span| list_wanted(&error, text, span.start))
        {
            Some(message) => (message, None),
            None => explain(error.message()),
        };
        let invalid = ConfigError::invalid(path, place, message);
        match help {
            Some(help) => invalid.with_help(help),
            None => invalid,
        }
    })
}

/// Turns serde's list of expected fields into the one that was most likely meant.
fn explain(message: &str) -> (String, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    let (Some(unknown), true) = (quoted.next(), message.starts_with("unknown ")) else {
        return (without_value(message.trim()).replace('\n', " "), None);
    };
    let what = if message.starts_with("unknown field") {
        "unknown key"
    } else {
        "unknown value"
    };
    let known: Vec<&str> = quoted.collect();
    let help = match nearest(unknown, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known here: {}", known.join(", ")),
    };
    (format!("{what} `{unknown}`"), Some(help))
}

/// The message for a text where a list is wanted, as in `command = "node server.js"`. The text
/// itself is not repeated: it may hold a secret.
fn list_wanted(error: &toml::de::Error, text: &str, offset: usize) -> Option<String> {
    let message = error.message();
    if !message.starts_with("invalid type: string ") || !message.ends_with("expected a sequence") {
        return None;
    }
    let line = text.get(..offset)?.rsplit('\n').next()?;
    let key = line.trim_end().strip_suffix('=')?.trim();
    let example = match key {
        "command" | "prepare" => ": [\"node\", \"server.js\"]",
        _ => "",
    };
    Some(format!("`{key}` must be a list{example}"))
}

/// A text of the wrong type may be a command line or a secret: the place says which it is.
fn without_value(message: &str) -> String {
    const TEXT: &str = "invalid type: string \"";
    match (message.strip_prefix(TEXT), message.rfind("\", expected ")) {
        (Some(_), Some(end)) => format!("invalid type: a text{}", &message[end + 1..]),
        _ => message.to_owned(),
    }
}

fn name_from_listeners(listen: &[Listen]) -> String {
    match listen.first().and_then(Listen::port) {
        Some(port) if port != DEFAULT_PORT && port != 0 => format!("{DEFAULT_INSTANCE}-{port}"),
        _ => DEFAULT_INSTANCE.to_owned(),
    }
}

/// Refuses what cannot be the name of an instance: names become parts of paths and of units.
///
/// # Errors
/// [`ConfigError::Invalid`] with what can be one.
pub fn check_instance(name: &str) -> Result<(), ConfigError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty()
        && name.len() <= 64
        && name.chars().all(fits)
        && !name.starts_with(['.', '-'])
    {
        return Ok(());
    }
    Err(
        ConfigError::invalid(None, None, format!("`{name}` is not an instance name")).with_help(
            "at most 64 letters, digits, `-`, `_` and `.`, not beginning with `-` or `.`",
        ),
    )
}

fn apply_flags(config: &mut Config, flags: &Overrides) -> Result<(), ConfigError> {
    if !flags.listen.is_empty() {
        config.gateway.listen.clone_from(&flags.listen);
    }
    if let Some(dir) = &flags.state_dir {
        config.gateway.state_dir = Some(dir.clone());
    }
    if let Some(name) = &flags.instance {
        config.gateway.instance = Some(name.clone());
    }
    if !flags.command.is_empty() {
        config.sidecar.insert(
            MAIN_SIDECAR.to_owned(),
            SidecarSpec::new(flags.command.clone()),
        );
    }
    if flags.port.is_none() && flags.ready.is_none() && !flags.exclusive {
        return Ok(());
    }
    let Some(main) = config.sidecar.get_mut(MAIN_SIDECAR) else {
        return Err(ConfigError::invalid(
            None,
            None,
            "--exclusive, --port and --ready speak of the sidecar `main`, and there is none",
        )
        .with_help("add `-- COMMAND` or a [sidecar.main] section"));
    };
    if flags.exclusive {
        main.overlap = Some(false);
    }
    if let Some(port) = flags.port {
        main.port = Some(port);
    }
    if let Some(path) = &flags.ready {
        main.ready = Ready::Http(path.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
