//! What the user wrote, checked.
//!
//! A configuration is layered: the file, then `GATEWAY_*` variables, then flags. [`load()`] reads and
//! layers it, `check` refuses what contradicts itself, and every refusal names the
//! file, the line and the column ([`ConfigError`]).

mod validate;
pub(crate) use validate::{parse_net, parse_upstream};
mod environment;
mod error;
#[cfg(test)]
pub(crate) mod fixture;
mod load;
mod model;
mod position;
mod render;
mod stop_time;
mod types;

pub use environment::Env;
pub use error::ConfigError;
#[cfg(test)]
pub use load::parse;
pub use load::{
    Loaded, Overrides, Whereabouts, check_instance, default_path, load, load_text, whereabouts,
};
pub use model::{
    Config, DrainNotice, Hold, LimitsSection, NoticeSignal, OutputMode, Ready, RestartMode,
    RestartSection, SidecarSpec, TUNNEL_DRAIN, TUNNEL_DRAIN_ALONE, Throttle,
};
pub use render::{schema, starter, to_toml};
pub use stop_time::{BEFORE_KILL, STOP_MARGIN};
pub use types::{Dur, Listen};

/// The port a gateway listens on when nothing else is said.
pub const DEFAULT_PORT: u16 = 18789;

/// The instance name when nothing else is said.
pub const DEFAULT_INSTANCE: &str = "gateway";

/// The name of the sidecar that `gateway run -- COMMAND` makes.
pub const MAIN_SIDECAR: &str = "main";
