//! `[sidecar.NAME] reload`: how a server is asked to restart by its own means.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::notice::{NoticeSignal, Ready};
use crate::text::words::Words;

/// A server's own way to restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "ReloadKeys", into = "ReloadKeys")]
pub struct Reload {
    pub means: ReloadMeans,
    /// How it shows that it is ready again, if not as at its start.
    pub ready: Option<Ready>,
}

/// How a server is asked to restart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReloadMeans {
    /// Its main process gets this signal.
    Signal(NoticeSignal),
    /// This command is run to its end, with the environment and the directory of the sidecar.
    Command(Vec<String>),
    /// This path gets a POST request.
    Path(String),
}

/// In words, as they are written.
impl fmt::Display for ReloadMeans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(signal) => write!(f, "SIG{signal}"),
            // Its arguments may hold a secret.
            Self::Command(command) => f.write_str(command.first().map_or("", String::as_str)),
            Self::Path(path) => write!(f, "POST {path}"),
        }
    }
}

/// A signal, or a path that gets a POST request: `USR1`, `/reload`.
impl FromStr for Reload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let means = if text.starts_with('/') {
            ReloadMeans::Path(text.to_owned())
        } else {
            let name = text.strip_prefix("SIG").unwrap_or(text);
            let signal = name.parse().map_err(|_| {
                let known = NoticeSignal::alternatives().replace('|', ", ");
                format!("`{text}` is neither one of {known} nor a path like /reload")
            })?;
            ReloadMeans::Signal(signal)
        };
        Ok(Self { means, ready: None })
    }
}

/// The server's own restart, by exactly one of `signal`, `command` and `path`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ReloadKeys {
    /// This signal is sent to its main process.
    #[serde(skip_serializing_if = "Option::is_none")]
    signal: Option<NoticeSignal>,
    /// This command is run to its end, with the environment and the directory of the sidecar;
    /// `{port}` becomes the private port, and $MAINPID is the main process.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    command: Vec<String>,
    /// This path gets a POST request.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    /// How it shows that it is ready again; as at its start when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<Ready>,
}

impl TryFrom<ReloadKeys> for Reload {
    type Error = String;

    fn try_from(keys: ReloadKeys) -> Result<Self, Self::Error> {
        let means = match (keys.signal, keys.command, keys.path) {
            (Some(signal), command, None) if command.is_empty() => ReloadMeans::Signal(signal),
            (None, command, None) if !command.is_empty() => ReloadMeans::Command(command),
            (None, command, Some(path)) if command.is_empty() => ReloadMeans::Path(path),
            _ => {
                return Err(
                    "`reload` names one way: { signal = \"USR1\" }, { command = [\"…\"] } or { path = \"/reload\" }"
                        .to_owned(),
                );
            }
        };
        let ready = keys.ready;
        Ok(Self { means, ready })
    }
}

impl From<Reload> for ReloadKeys {
    fn from(reload: Reload) -> Self {
        let keys = Self {
            ready: reload.ready,
            ..Self::default()
        };
        match reload.means {
            ReloadMeans::Signal(signal) => Self {
                signal: Some(signal),
                ..keys
            },
            ReloadMeans::Command(command) => Self { command, ..keys },
            ReloadMeans::Path(path) => Self {
                path: Some(path),
                ..keys
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{parse, to_toml};

    fn read(reload: &str) -> Result<Reload, String> {
        let text = format!("[sidecar.a]\ncommand = [\"x\"]\nreload = {reload}\n");
        let config = parse(&text, None).map_err(|error| error.to_string())?;
        let again = parse(&to_toml(&config).unwrap(), None).unwrap();
        assert_eq!(again, config, "written and read again");
        Ok(config.sidecar["a"].reload.clone().unwrap())
    }

    #[test]
    fn one_way_is_named_and_written_as_it_was_read() {
        let signal = read("{ signal = \"USR1\", ready = { http = \"/readyz\" } }").unwrap();
        assert_eq!(signal.means, ReloadMeans::Signal(NoticeSignal::Usr1));
        assert_eq!(signal.ready, Some(Ready::Http("/readyz".to_owned())));
        let command = read("{ command = [\"nginx\", \"-s\", \"reload\"] }").unwrap();
        assert_eq!(command.means.to_string(), "nginx");
        let path = read("{ path = \"/reload\" }").unwrap();
        assert_eq!(path.means.to_string(), "POST /reload");
        for (wrong, part) in [
            ("{}", "names one way"),
            ("{ signal = \"HUP\", path = \"/x\" }", "names one way"),
            ("{ signal = \"TERM\" }", "TERM"),
            ("{ signal = \"HUP\", when = \"now\" }", "when"),
        ] {
            let why = read(wrong).unwrap_err();
            assert!(why.contains(part), "{wrong}: {why}");
        }
        let flag = |text: &str| {
            text.parse::<Reload>()
                .map(|reload| reload.means.to_string())
        };
        assert_eq!(flag("SIGUSR2").unwrap(), flag("USR2").unwrap());
        assert_eq!(flag("/reload").unwrap(), "POST /reload");
        assert!(flag("TERM").unwrap_err().contains("HUP, USR1, USR2, WINCH"));
    }
}
