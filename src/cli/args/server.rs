//! The server behind the gateway, as `gateway run` and `gatewayctl install` take it.

use clap::{Args, ValueHint};

use crate::config::Listen;

/// The flags that `gateway run` and `gatewayctl install` share.
#[derive(Clone, Debug, Default, Args)]
pub struct ServerArgs {
    /// Listen here: an address, a port, or unix:/PATH; may be repeated [default: 127.0.0.1:18789]
    #[arg(long, value_name = "ADDR")]
    pub listen: Vec<Listen>,
    /// Never run two copies of the server at once: during a restart, requests wait while it stops
    /// and starts again
    #[arg(long)]
    pub exclusive: bool,
    /// The port that the server always listens on, if it takes neither {port} nor $PORT (implies
    /// --exclusive)
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// The server is ready when this path answers, e.g. /health [default: when it listens]
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// The server and its arguments; {port} becomes its private port
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}
