//! `[sidecar.NAME]`: a program behind the front door.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::env_file::EnvFile;
use super::notice::{DrainNotice, Ready};
use super::reload::{Reload, ReloadKeys};
use super::sticky::{Sticky, StickyKeys};
use super::types::Dur;
use crate::text::words::words;

/// The default of `tunnel_drain` where a successor serves already.
pub const TUNNEL_DRAIN: Duration = Duration::from_secs(300);

/// The default of `tunnel_drain` where new requests wait for the old sidecar to end.
pub const TUNNEL_DRAIN_ALONE: Duration = Duration::from_secs(5);

/// Whether a sidecar can have this name.
pub fn is_sidecar_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.chars().all(fits)
}

/// What is done with a sidecar's output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OutputMode {
    /// Line by line to the log.
    #[default]
    Lines,
    /// Discarded, except for the last lines, which error messages show.
    Off,
}

words! {
    /// The standard input of a sidecar.
    #[derive(Default)]
    pub enum StdinMode {
        /// Empty: a read finds its end.
        #[default]
        Null = "null",
        /// Open and silent: a read waits until the sidecar ends.
        Hold = "hold",
    }
}

/// `[sidecar.NAME]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SidecarSpec {
    /// The program and its arguments; `{port}` becomes the private port.
    pub command: Vec<String>,
    /// A command run to its end before each start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prepare: Vec<String>,
    /// Variables added to the environment; `{port}` becomes the private port.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// A file of variables in the dotenv format, read anew for each generation; those of `env` win.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub env_file: Option<PathBuf>,
    /// What it says.
    #[serde(skip)]
    pub of_env_file: EnvFile,
    /// The directory it starts in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<PathBuf>,
    /// A fixed port; then two copies cannot run side by side. Without it a private port is chosen
    /// for each start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How it shows that it is ready.
    #[serde(default)]
    pub ready: Ready,
    /// How long it may take to become ready; extended while it prints.
    #[serde(default = "start_timeout")]
    pub start_timeout: Dur,
    /// How long it may take to end after SIGTERM, before SIGKILL.
    #[serde(default = "stop_timeout")]
    pub stop_timeout: Dur,
    /// Whether old and new run side by side during a restart; true unless `port` is fixed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<bool>,
    /// The sidecars that are to be ready before it starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// Whether the gateway is ready only with it.
    #[serde(default = "yes", skip_serializing_if = "Clone::clone")]
    pub required: bool,
    /// How it is told to finish its work.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainNotice>,
    /// Its own way to restart, which restarts of the gateway use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ReloadKeys>")]
    pub reload: Option<Reload>,
    /// Sessions that stay with the copy that made them, while it drains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<StickyKeys>")]
    pub sticky: Option<Sticky>,
    /// How it shows that it lives.
    #[serde(default)]
    pub live: Live,
    /// What is done with its output.
    #[serde(default)]
    pub log: OutputMode,
    /// What it reads from its standard input.
    #[serde(default)]
    pub stdin: StdinMode,
}

/// `[sidecar.NAME] live`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Live {
    /// How long a request may wait while the sidecar answers nothing at all.
    pub stalled: Dur,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            stalled: Dur::secs(60),
        }
    }
}

fn yes() -> bool {
    true
}

fn start_timeout() -> Dur {
    Dur::secs(60)
}

fn stop_timeout() -> Dur {
    Dur::secs(10)
}

impl SidecarSpec {
    /// A sidecar with this command and the defaults.
    pub fn new(command: Vec<String>) -> Self {
        Self {
            command,
            prepare: Vec::new(),
            env: BTreeMap::new(),
            env_file: None,
            of_env_file: EnvFile::default(),
            cwd: None,
            port: None,
            ready: Ready::default(),
            start_timeout: start_timeout(),
            stop_timeout: stop_timeout(),
            overlap: None,
            after: Vec::new(),
            required: true,
            drain: None,
            reload: None,
            sticky: None,
            live: Live::default(),
            log: OutputMode::Lines,
            stdin: StdinMode::Null,
        }
    }

    /// Whether it tells at its start, or after its own restart, that it is ready.
    pub fn notifies(&self) -> bool {
        let reload = self
            .reload
            .as_ref()
            .and_then(|reload| reload.ready.as_ref());
        self.ready == Ready::Notify || reload == Some(&Ready::Notify)
    }

    /// Whether two copies may run side by side.
    pub fn overlaps(&self) -> bool {
        self.overlap.unwrap_or(self.port.is_none())
    }

    /// How long tunnels to this sidecar may go on in a restart; `configured` is `[restart] tunnel_drain`.
    pub fn tunnel_drain(&self, configured: Option<Dur>) -> Duration {
        let default = if self.overlaps() {
            TUNNEL_DRAIN
        } else {
            TUNNEL_DRAIN_ALONE
        };
        configured.map_or(default, |time| time.0)
    }
}
