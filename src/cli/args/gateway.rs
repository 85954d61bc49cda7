//! The command line of `gateway`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand, ValueHint};

use crate::config::{Dur, Listen, Overrides};
use crate::control::protocol::{HANDOVER_VERSION, PROTOCOL_VERSION};

const EXAMPLES: &str = "\
Examples:
  gateway run -- node server.js --port {port}
      Put a Node server behind http://127.0.0.1:18789. {port} becomes a private port.
  gateway run --listen :8080 -- python3 app.py
      The same on port 8080 of every address; app.py reads its port from $PORT.
  gatewayctl restart
      Restart it from another terminal. No client notices.";

/// A front door that restarts the server behind it without losing a request
///
/// gateway listens on an address, starts your server on a private port behind it, and forwards HTTP
/// and WebSocket traffic. When you restart (gatewayctl restart, or SIGUSR1), a new copy of your
/// server is started and health-checked before it gets the traffic; the old copy finishes its
/// requests. Clients see no refused connections and no truncated responses.
///
/// Without a subcommand, gateway runs. Without a command and without a configuration, it answers
/// with its own status.
#[derive(Debug, Parser)]
#[command(name = "gateway", version = version(), args_conflicts_with_subcommands = true, after_help = EXAMPLES)]
pub struct GatewayCli {
    /// The flags of a bare `gateway`, which means `gateway run`.
    #[command(flatten)]
    pub run: RunArgs,
    #[command(subcommand)]
    pub command: Option<GatewayCommand>,
}

/// What `gateway --version` prints after the name: also which other gateways it can take over from.
fn version() -> String {
    format!(
        "{} (handover {HANDOVER_VERSION}, control {PROTOCOL_VERSION})",
        env!("CARGO_PKG_VERSION")
    )
}

/// The subcommands of `gateway`.
#[derive(Debug, Subcommand)]
pub enum GatewayCommand {
    /// Run the gateway in the foreground (the default)
    #[command(after_help = EXAMPLES)]
    Run(RunArgs),
    /// Say whether the configuration is valid, and start nothing
    ///
    /// Exits with 0 if it is valid and with 78 if it is not.
    Check(CheckArgs),
}

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
    /// The server is ready when this path answers with success, e.g. /health [default: when it
    /// answers HEAD / with any status]
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// How long the server may take to become ready, e.g. 5m; extended while it prints something new
    /// [default: 60s]
    #[arg(long, value_name = "DUR")]
    pub start_timeout: Option<Dur>,
    /// The server and its arguments; {port} becomes its private port
    #[arg(last = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub server: ServerArgs,
    /// Read this configuration file instead of the usual one
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// Keep state and control socket in this directory
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Gateway name, if several run on a machine [default: gateway, or gateway-PORT on another
    /// port]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Also start every sidecar on a private port, wait until it is ready, and stop it again
    #[arg(long)]
    pub start: bool,
    #[command(flatten)]
    pub run: RunArgs,
}

impl GatewayCli {
    /// Reads a command line. For a command without `--` before it, the error says how to write it.
    ///
    /// # Errors
    /// What clap says, `--help` and `--version` included: print it and use its exit code.
    pub fn read(
        line: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        Self::try_parse_from(line).map_err(|error| with_dashes(error, "gateway run --"))
    }

    /// What the flags say, whichever subcommand has them.
    pub fn overrides(&self) -> Overrides {
        match &self.command {
            None => self.run.overrides(),
            Some(GatewayCommand::Run(run)) => run.overrides(),
            Some(GatewayCommand::Check(check)) => check.run.overrides(),
        }
    }
}

impl RunArgs {
    fn overrides(&self) -> Overrides {
        let ServerArgs {
            listen,
            exclusive,
            port,
            ready,
            start_timeout,
            command,
        } = self.server.clone();
        Overrides {
            config: self.config.clone(),
            instance: self.instance.clone(),
            state_dir: self.state_dir.clone(),
            listen,
            exclusive,
            port,
            ready,
            start_timeout,
            command,
        }
    }
}

/// Adds how the command line is written to an error whose cause is a missing `--`.
pub fn with_dashes(mut error: clap::Error, before: &str) -> clap::Error {
    if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
        && error.kind() == ErrorKind::UnknownArgument
        && !word.starts_with('-')
    {
        let tip = format!("put the command after `--`: {before} {word} …");
        let tip = ContextValue::StyledStrs(vec![tip.into()]);
        error.insert(ContextKind::Suggested, tip);
    }
    error
}
