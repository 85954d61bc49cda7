//! What the user wrote, checked.
//!
//! [`load()`] reads the file, then applies `GATEWAY_*` variables, then flags; `check` refuses
//! contradictions. Every [`ConfigError`] names the file, the line and the column.

mod dotenv;
mod env_file;
mod env_files;
mod environment;
pub mod environment_file;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod load;
mod model;
pub(crate) mod normal_form;
mod notice;
mod own_address;
mod parse_error;
mod position;
mod reach;
pub mod regular_file;
mod reload;
mod render;
mod secrets;
mod sidecar;
mod start_order;
mod sticky;
mod types;
pub mod unit_quoting;
mod validate;

use std::time::Duration;

pub use dotenv::parse as dotenv;
pub use env_file::{EnvFile, EnvFileError, EnvFilePlaces};
pub use environment::{Env, ignored as ignored_environment};
pub use error::ConfigError;
#[cfg(test)]
pub use load::parse;
pub use load::{
    Loaded, Overrides, check_instance, default_path, load, load_again, load_text, whereabouts,
};
pub use model::{
    AccessLogFormat, Config, ForwardedMode, Hold, LimitsSection, RestartMode, RestartSection,
    Throttle,
};
pub use notice::{DrainNotice, NoticeSignal, Ready};
pub(crate) use own_address::UpstreamUrl;
pub(crate) use position::nearest;
pub use reload::{Reload, ReloadMeans};
pub use render::{schema, starter, to_toml};
pub use sidecar::{
    OutputMode, SidecarSpec, StdinMode, TUNNEL_DRAIN, TUNNEL_DRAIN_ALONE, is_sidecar_name,
};
pub use sticky::SessionKey;
pub use types::{AccessLogTarget, Dur, Listen};
pub(crate) use validate::{parse_net, parse_upstream};

/// The port a gateway listens on when nothing else is said.
pub const DEFAULT_PORT: u16 = 18789;

/// A longer configuration, in bytes, is not read.
pub const TEXT_MAX: u64 = 4 * 1024 * 1024;

/// The instance name when nothing else is said.
pub const DEFAULT_INSTANCE: &str = "gateway";

/// The variable that names those of `gatewayctl install --set` in the environment of a service, with
/// blanks between them.
pub const SET_NAMES: &str = "GATEWAY_SET_NAMES";

/// The variable that names the file with what `--set` gives, where the service manager reads no such file
/// itself, as launchd does not, which shows the environment of a job to everybody.
pub const VARIABLES_FILE: &str = "GATEWAY_VARIABLES_FILE";

/// The name of the sidecar that `gateway run -- COMMAND` makes.
pub const MAIN_SIDECAR: &str = "main";

/// From the end of a stop's drain to the forced end. The drain takes at most 20 s by default, so a
/// stop takes 25 s; the units' TimeoutStopSec is 30 s.
pub const STOP_MARGIN: Duration = Duration::from_secs(5);

/// How long before the supervisor's SIGKILL the gateway forces its own end.
pub const BEFORE_KILL: Duration = Duration::from_secs(5);
