//! The command line of `gateway`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueHint};

use crate::config::{Dur, Listen, Overrides, Reload, StdinMode};
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
    #[arg(long, short = 'p', value_name = "ADDR")]
    pub listen: Vec<Listen>,
    /// Never run two copies of the server at once: during a restart, requests wait while it stops
    /// and starts again
    #[arg(long)]
    pub exclusive: bool,
    /// The port that the server always listens on, if it takes neither {port} nor $PORT (implies
    /// --exclusive)
    #[arg(long = "app-port", value_name = "PORT")]
    pub port: Option<u16>,
    /// Its former name, which everybody took for the port of clients.
    #[arg(long = "port", hide = true, value_name = "PORT", value_parser = two_ports)]
    former_port: Option<u16>,
    /// The directory in which the server starts [default: the current one]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub cwd: Option<PathBuf>,
    /// Read environment variables for the server from this file in the dotenv format, anew at each
    /// restart and reload
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub env_file: Option<PathBuf>,
    /// The server is ready when this path answers with success, e.g. /health [default: when it
    /// answers HEAD / with any status]
    #[arg(long, value_name = "PATH")]
    pub ready: Option<String>,
    /// How long the server may take to become ready, e.g. 5m; extended while it prints something new
    /// [default: 60s]
    #[arg(long, value_name = "DUR")]
    pub start_timeout: Option<Dur>,
    /// The server restarts by its own means when its main process gets this signal (HUP, USR1, USR2 or
    /// WINCH), or when this path gets a POST request: restarts use that
    #[arg(long, value_name = "SIGNAL|PATH")]
    pub reload: Option<Reload>,
    /// The standard input of the server: empty (null), or open and silent (hold), for a server that
    /// exits at its end [default: null]
    #[arg(long, value_name = "MODE")]
    pub stdin: Option<StdinMode>,
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
    #[arg(long, visible_alias = "name", value_name = "NAME")]
    pub instance: Option<String>,
    /// Set an environment variable for the server; may be repeated
    #[arg(long, short, alias = "set", value_name = "KEY=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
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
    /// What the flags say, whichever subcommand has them.
    pub fn overrides(&self) -> Overrides {
        match &self.command {
            None => self.run.overrides(),
            Some(GatewayCommand::Run(run)) => run.overrides(),
            Some(GatewayCommand::Check(check)) => check.run.overrides(),
        }
    }
}

/// Tells the two ports apart.
fn two_ports(port: &str) -> Result<u16, String> {
    let port = match port.parse::<u16>() {
        Ok(port) if port != 0 => port.to_string(),
        _ => "8080".to_owned(),
    };
    Err(format!(
        "clients connect to --listen {port}; the port on which the server itself always listens is --app-port {port}"
    ))
}

/// The name and the value of a variable.
///
/// # Errors
/// How it is written.
pub fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("it takes a name and a value, as in COLOR=blue".to_owned()),
    }
}

impl RunArgs {
    fn overrides(&self) -> Overrides {
        let ServerArgs {
            listen,
            exclusive,
            port,
            former_port: _,
            cwd,
            env_file,
            ready,
            start_timeout,
            reload,
            stdin,
            command,
        } = self.server.clone();
        Overrides {
            config: self.config.clone(),
            instance: self.instance.clone(),
            state_dir: self.state_dir.clone(),
            listen,
            exclusive,
            port,
            cwd,
            env: self.env.clone(),
            env_file,
            ready,
            start_timeout,
            reload,
            stdin,
            command,
        }
    }
}
