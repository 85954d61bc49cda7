//! File, then environment, then flags.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::ConfigError;
use super::model::{Config, Ready, RestartMode, SidecarSpec};
use super::position::{Position, nearest};
use super::types::{Dur, Listen};
use super::validate::check;
use super::{DEFAULT_INSTANCE, DEFAULT_PORT, MAIN_SIDECAR};

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
        let (message, help) = explain(error.message());
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

fn apply_env(config: &mut Config, env: &Env<'_>) -> Result<(), ConfigError> {
    fn set<T: FromStr<Err = String>>(
        env: &Env<'_>,
        name: &str,
        slot: &mut T,
    ) -> Result<(), ConfigError> {
        if let Some(text) = env.text(name) {
            *slot = text
                .parse()
                .map_err(|error| ConfigError::invalid(None, None, format!("{name}: {error}")))?;
        }
        Ok(())
    }
    fn flag(env: &Env<'_>, name: &str, slot: &mut bool) -> Result<(), ConfigError> {
        *slot = match env.text(name).as_deref() {
            None => return Ok(()),
            Some("1" | "true" | "yes" | "on") => true,
            Some("0" | "false" | "no" | "off") => false,
            Some(other) => {
                return Err(ConfigError::invalid(
                    None,
                    None,
                    format!("{name}: `{other}` is neither true nor false"),
                ));
            }
        };
        Ok(())
    }
    fn number(env: &Env<'_>, name: &str, slot: &mut u32) -> Result<(), ConfigError> {
        if let Some(text) = env.text(name) {
            let refuse =
                |_| ConfigError::invalid(None, None, format!("{name}: `{text}` is not a number"));
            *slot = text.trim().parse().map_err(refuse)?;
        }
        Ok(())
    }
    if let Some(list) = env.text("GATEWAY_LISTEN") {
        config.gateway.listen = list
            .split(',')
            .map(|item| item.trim().parse())
            .collect::<Result<_, String>>()
            .map_err(|error| {
                ConfigError::invalid(None, None, format!("GATEWAY_LISTEN: {error}"))
            })?;
    }
    if let Some(dir) = env.path("GATEWAY_STATE_DIR") {
        config.gateway.state_dir = Some(dir);
    }
    if let Some(file) = env.path("GATEWAY_TOKEN_FILE") {
        config.gateway.token_file = Some(file);
    }
    flag(
        env,
        "GATEWAY_HEALTH_PATHS",
        &mut config.gateway.health_paths,
    )?;
    flag(env, "GATEWAY_VIA", &mut config.gateway.via)?;
    flag(
        env,
        "GATEWAY_RESTART_EXTERNAL_SIGNAL",
        &mut config.restart.external_signal,
    )?;
    set(env, "GATEWAY_RESTART_MODE", &mut config.restart.mode)?;
    set(env, "GATEWAY_RESTART_DRAIN", &mut config.restart.drain)?;
    set(
        env,
        "GATEWAY_RESTART_STOP_DRAIN",
        &mut config.restart.stop_drain,
    )?;
    set(
        env,
        "GATEWAY_RESTART_LAUNCHD_EXIT_DELAY",
        &mut config.restart.launchd_exit_delay,
    )?;
    let throttle = &mut config.recovery.throttle;
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
    number(
        env,
        "GATEWAY_RECOVERY_THROTTLE_THRESHOLD",
        &mut throttle.threshold,
    )?;
    let mut tunnel = config.restart.tunnel_drain.unwrap_or(Dur::secs(0));
    set(env, "GATEWAY_RESTART_TUNNEL_DRAIN", &mut tunnel)?;
    if env.text("GATEWAY_RESTART_TUNNEL_DRAIN").is_some() {
        config.restart.tunnel_drain = Some(tunnel);
    }
    Ok(())
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
mod tests {
    use super::*;
    use crate::config::Throttle;

    fn none(_: &str) -> Option<OsString> {
        None
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_place_and_the_nearest_known_one() {
        let error = parse(
            "[gateway]\nvia = true\n lisen = []\n",
            Some(Path::new("g.toml")),
        )
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "g.toml:3:2: unknown key `lisen` (did you mean `listen`?)"
        );
        let error = parse("[sidecar.web]\ncommand = [\"x\"]\nready = \"tpc\"\n", None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown value `tpc` (did you mean `tcp`?)"
        );
    }

    #[test]
    fn flags_overrule_variables_and_variables_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        std::fs::write(
            &file,
            "[gateway]\nlisten = [\"1001\"]\n[restart]\ndrain = \"1s\"\n",
        )
        .unwrap();
        let mut flags = Overrides {
            config: Some(file),
            ..Overrides::default()
        };
        assert_eq!(
            load(&flags, &Env(&none)).unwrap().config.gateway.listen[0].port(),
            Some(1001)
        );
        let env = |name: &str| match name {
            "GATEWAY_LISTEN" => Some("1002, unix:/x".into()),
            "GATEWAY_RESTART_DRAIN" => Some("2s".into()),
            _ => None,
        };
        let loaded = load(&flags, &Env(&env)).unwrap();
        assert_eq!(loaded.config.gateway.listen.len(), 2);
        assert_eq!(loaded.config.restart.drain, Dur::secs(2));
        assert_eq!(loaded.instance, "gateway-1002");
        flags.listen = vec!["1003".parse().unwrap()];
        assert_eq!(
            load(&flags, &Env(&env)).unwrap().config.gateway.listen[0].port(),
            Some(1003)
        );
    }

    #[test]
    fn every_key_of_the_throttle_has_its_variable() {
        let value = |name: &str| match name {
            "GATEWAY_RECOVERY_THROTTLE_WINDOW" => Some("1s".into()),
            "GATEWAY_RECOVERY_THROTTLE_THRESHOLD" => Some("2".into()),
            "GATEWAY_RECOVERY_THROTTLE_BASE" => Some("3s".into()),
            "GATEWAY_RECOVERY_THROTTLE_MAX" => Some("4s".into()),
            "GATEWAY_RECOVERY_THROTTLE_STABLE" => Some("5s".into()),
            "GATEWAY_RESTART_LAUNCHD_EXIT_DELAY" => Some("6s".into()),
            "CONFIGURATION_DIRECTORY" => Some("/nonexistent".into()),
            _ => None,
        };
        let config = load(&Overrides::default(), &Env(&value)).unwrap().config;
        let (window, base, max, stable) = (Dur::secs(1), Dur::secs(3), Dur::secs(4), Dur::secs(5));
        assert_eq!(
            config.recovery.throttle,
            Throttle {
                window,
                threshold: 2,
                base,
                max,
                stable
            }
        );
        assert_eq!(config.restart.launchd_exit_delay, Dur::secs(6));
        let bad =
            |name: &str| (name == "GATEWAY_RECOVERY_THROTTLE_THRESHOLD").then(|| "many".into());
        assert!(
            load(&Overrides::default(), &Env(&bad))
                .unwrap_err()
                .to_string()
                .contains("`many` is not a number")
        );
    }

    #[test]
    fn a_named_file_that_is_missing_is_an_error_and_a_default_one_is_not() {
        let flags = Overrides {
            config: Some("/nonexistent/x.toml".into()),
            ..Overrides::default()
        };
        assert!(matches!(
            load(&flags, &Env(&none)),
            Err(ConfigError::Unreadable { .. })
        ));
        let env = |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
        assert_eq!(load(&Overrides::default(), &Env(&env)).unwrap().path, None);
    }

    #[test]
    fn of_a_configuration_that_is_not_valid_the_state_is_found_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("c.toml");
        let flags = Overrides {
            config: Some(file.clone()),
            ..Overrides::default()
        };
        let of = |text: &str| {
            std::fs::write(&file, text).unwrap();
            whereabouts(&flags, &Env(&none))
        };
        let found = of("[gateway]\ninstance = \"a\"\nstate_dir = \"/s\"\nlisen = 1\n");
        assert_eq!(
            found,
            Whereabouts {
                path: file.clone(),
                instance: "a".into(),
                state_dir: Some("/s".into())
            }
        );
        assert_eq!(
            of("[gateway]\nlisten = [\"1001\"]\nvia = 3\n").instance,
            "gateway-1001"
        );
        for text in [
            "[gateway",
            "gateway = 3",
            "[gateway]\ninstance = \"../x\"\nlisten = {}",
            "",
        ] {
            assert_eq!(of(text).instance, DEFAULT_INSTANCE, "{text}");
        }
        std::fs::remove_file(&file).unwrap();
        let env = |name: &str| (name == "GATEWAY_LISTEN").then(|| "1002, 1003".into());
        assert_eq!(whereabouts(&flags, &Env(&env)).instance, "gateway-1002");
    }

    #[test]
    fn hostile_instance_names_are_refused() {
        for name in ["", "../x", "a/b", "-x", ".hidden", "a b", "ü"] {
            let flags = Overrides {
                instance: Some(name.into()),
                ..Overrides::default()
            };
            let env =
                |name: &str| (name == "CONFIGURATION_DIRECTORY").then(|| "/nonexistent".into());
            assert!(load(&flags, &Env(&env)).is_err(), "{name}");
        }
    }
}
