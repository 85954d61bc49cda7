//! The flags that every `gatewayctl` command has.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

/// Flags of every `gatewayctl` command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Gateway name
    #[arg(long, global = true, value_name = "NAME")]
    pub instance: Option<String>,
    /// Only your own gateways (user scope)
    #[arg(long, global = true, conflicts_with = "system")]
    pub user: bool,
    /// Only the machine's gateways (system scope)
    #[arg(long, global = true)]
    pub system: bool,
    /// The configuration file, if it is not in the usual place
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// The state directory that the gateway was started with
    #[arg(long, global = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<PathBuf>,
    /// Print one JSON object on standard output; progress goes to standard error
    #[arg(long, global = true)]
    pub json: bool,
    /// Print only errors
    #[arg(long, short, global = true)]
    pub quiet: bool,
    /// When to use colours; NO_COLOR is respected
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: Color,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On terminals, unless NO_COLOR is set
    #[default]
    Auto,
    /// Everywhere
    Always,
    /// Nowhere
    Never,
}
