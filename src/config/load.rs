//! File, then environment, then flags.

use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::environment::{Env, apply_env};
use super::error::ConfigError;
use super::model::Config;
use super::notice::Ready;
use super::reload::Reload;
use super::sidecar::{SidecarSpec, StdinMode};
use super::types::{Dur, Listen};
use super::validate::check;
use super::{DEFAULT_INSTANCE, DEFAULT_PORT, MAIN_SIDECAR, TEXT_MAX, parse_error, regular_file};

/// The flags; each overrules the file and the environment.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub instance: Option<String>,
    pub state_dir: Option<PathBuf>,
    pub listen: Vec<Listen>,
    pub exclusive: bool,
    /// `--app-port`
    pub port: Option<u16>,
    pub cwd: Option<PathBuf>,
    /// `--env`
    pub env: Vec<(String, String)>,
    pub env_file: Option<PathBuf>,
    pub ready: Option<String>,
    /// `--start-timeout`
    pub start_timeout: Option<Dur>,
    pub reload: Option<Reload>,
    pub stdin: Option<StdinMode>,
    /// `-- COMMAND…`
    pub command: Vec<String>,
}

/// A configuration ready for use.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub config: Config,
    /// The file it came from, if there was one.
    pub path: Option<PathBuf>,
    pub instance: String,
    /// The file's text, as it was read.
    pub text: Option<String>,
    /// When; files of variables are read after it.
    pub read_at: Timestamp,
}

impl Loaded {
    /// The error at a key whose value is of no use on this machine; `keys` from the outside in.
    pub fn refuse<const N: usize>(&self, keys: [&str; N], message: &str) -> ConfigError {
        let keys = keys.map(str::to_owned);
        let text = self.text.as_deref().unwrap_or_default();
        let place = super::position::locate(text, &keys);
        ConfigError::invalid(
            self.path.as_deref().filter(|_| place.is_some()),
            place,
            message,
        )
    }
}

/// The configuration file of `instance` without `--config`: in `$CONFIGURATION_DIRECTORY` (set by
/// systemd from ConfigurationDirectory=), else in /etc/gateway for root, in
/// `$XDG_CONFIG_HOME/gateway` or `~/.config/gateway` for other users.
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

/// Reads the configuration, applies environment and flags, and checks the result.
///
/// # Errors
/// [`ConfigError`] when the file named by `--config` or `$GATEWAY_CONFIG` is missing, when a file
/// cannot be read, or when what was written is wrong. A missing default file is an empty one.
pub fn load(flags: &Overrides, env: &Env<'_>) -> Result<Loaded, ConfigError> {
    let (path, explicit) = locate(flags, env);
    load_file(flags, env, path, explicit)
}

/// As [`load`], for the next generation of a gateway that runs: from the file that it was started
/// with, `path`, whatever name the gateway has, and under that name. Where it had none, the file
/// that a start would read.
///
/// # Errors
/// Those of [`load`]; also when the file is gone.
pub fn load_again(
    flags: &Overrides,
    env: &Env<'_>,
    instance: &str,
    path: Option<&Path>,
) -> Result<Loaded, ConfigError> {
    let (path, explicit) = match path {
        Some(path) => (path.to_owned(), true),
        None => locate(flags, env),
    };
    let flags = Overrides {
        instance: Some(instance.to_owned()),
        ..flags.clone()
    };
    load_file(&flags, env, path, explicit)
}

fn load_file(
    flags: &Overrides,
    env: &Env<'_>,
    path: PathBuf,
    explicit: bool,
) -> Result<Loaded, ConfigError> {
    match regular_file::read_named_text(&path, TEXT_MAX) {
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

/// As [`load`], from the text of the file `path` (none: there is no file).
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
        read_at: Timestamp::now(),
    })
}

/// What is known of a configuration that is not valid: enough to find the state of its instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whereabouts {
    pub path: PathBuf,
    pub instance: String,
    /// The state directory, when a flag, a variable or the file names one.
    pub state_dir: Option<PathBuf>,
}

/// Ignores everything that is not valid.
pub fn whereabouts(flags: &Overrides, env: &Env<'_>) -> Whereabouts {
    let (path, _) = locate(flags, env);
    let file = regular_file::read_named_text(&path, TEXT_MAX)
        .ok()
        .and_then(|text| text.parse::<toml::Table>().ok())
        .unwrap_or_default();
    let key = |name: &str| file.get("gateway")?.get(name);
    let text = |name: &str| key(name)?.as_str().map(str::to_owned);
    let from_env = || {
        let list = env.text("GATEWAY_LISTEN")?;
        list.split(',').next()?.trim().parse().ok()
    };
    let from_file = || key("listen")?.get(0)?.as_str()?.parse().ok();
    let first = flags.listen.first().cloned();
    let listen = first.or_else(from_env).or_else(from_file);
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
pub fn parse(text: &str, path: Option<&Path>) -> Result<Config, ConfigError> {
    toml::from_str(text).map_err(|error| {
        let (place, message) = parse_error::told(&error, text);
        ConfigError::invalid(path, place, message)
    })
}

fn name_from_listeners(listen: &[Listen]) -> String {
    match listen.first().and_then(Listen::port) {
        Some(port) if port != DEFAULT_PORT && port != 0 => format!("{DEFAULT_INSTANCE}-{port}"),
        _ => DEFAULT_INSTANCE.to_owned(),
    }
}

/// Refuses what cannot be the name of an instance: names become parts of paths and of units.
pub fn check_instance(name: &str) -> Result<(), ConfigError> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !name.is_empty()
        && name.len() <= 64
        && name.chars().all(fits)
        && !name.starts_with(['.', '-'])
    {
        return Ok(());
    }
    let message = format!(
        "`{name}` is not an instance name (at most 64 letters, digits, `-`, `_` and `.`, not beginning with `-` or `.`)"
    );
    Err(ConfigError::invalid(None, None, message))
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
        let main = SidecarSpec::new(flags.command.clone());
        config.sidecar.insert(MAIN_SIDECAR.to_owned(), main);
    }
    let of_main = flags.exclusive
        || flags.port.is_some()
        || flags.cwd.is_some()
        || !flags.env.is_empty()
        || flags.env_file.is_some()
        || flags.ready.is_some()
        || flags.start_timeout.is_some()
        || flags.reload.is_some()
        || flags.stdin.is_some();
    if !of_main {
        return Ok(());
    }
    let Some(main) = config.sidecar.get_mut(MAIN_SIDECAR) else {
        let message = "--exclusive, --app-port, --cwd, --env, --env-file, --ready, --start-timeout, --reload and --stdin speak of the sidecar `main`, and there is none (add `-- COMMAND` or a [sidecar.main] section)";
        return Err(ConfigError::invalid(None, None, message));
    };
    if flags.exclusive {
        main.overlap = Some(false);
    }
    if let Some(port) = flags.port {
        main.port = Some(port);
    }
    if let Some(directory) = &flags.cwd {
        main.cwd = Some(directory.clone());
    }
    main.env.extend(flags.env.iter().cloned());
    if let Some(file) = &flags.env_file {
        main.env_file = Some(file.clone());
    }
    if let Some(path) = &flags.ready {
        main.ready = Ready::Http(path.clone());
    }
    if let Some(time) = flags.start_timeout {
        main.start_timeout = time;
    }
    if let Some(reload) = &flags.reload {
        main.reload = Some(reload.clone());
    }
    if let Some(stdin) = flags.stdin {
        main.stdin = stdin;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
