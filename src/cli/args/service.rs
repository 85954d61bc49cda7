//! The flags of `gatewayctl install` and `uninstall`.

use std::path::PathBuf;

use clap::{Args, ValueHint};

use super::gateway::{ServerArgs, variable};
use crate::service::sandbox::Sandbox;
use crate::service::{ChosenOption, ServiceManagerKind};

#[derive(Clone, Debug, Default, Args)]
pub struct InstallArgs {
    /// Also start it, and wait until it is ready
    #[arg(long)]
    pub now: bool,
    #[command(flatten)]
    pub server: ServerArgs,
    /// Let a socket unit hold the listeners, so that connections queue even before the first start
    #[arg(long)]
    pub socket: bool,
    /// The user that a system service runs as [default: the user who called sudo, else the owner of the
    /// server's directory, if that is not root, else a temporary user, who writes nowhere]
    #[arg(long, value_name = "USER", value_hint = ValueHint::Username)]
    pub run_as: Option<String>,
    /// The server writes to this directory or file, for example a database or uploads; may be repeated.
    /// It is tried whether the service's user may, and the sandbox lets it
    #[arg(long, value_name = "DIR", value_hint = ValueHint::AnyPath)]
    pub writable: Vec<PathBuf>,
    /// Set an environment variable for the server; may be repeated. It goes to a file that only the
    /// service manager may read, unless the gateway would obey it (PATH, HOME, LANG, GATEWAY_* and the
    /// like) or it contains {port}: then it goes to the configuration. Remove it with `--set KEY=`
    #[arg(long, short = 'e', visible_alias = "env", value_name = "KEY=VALUE", value_parser = variable)]
    pub set: Vec<(String, String)>,
    /// Sandboxing level [default: app]
    #[arg(long, value_name = "LEVEL")]
    pub sandbox: Option<Sandbox>,
    /// Take back an option that an earlier install chose; may be repeated. Everything else that was
    /// chosen stays
    #[arg(long, value_name = "OPTION")]
    pub unset: Vec<ChosenOption>,
    /// Show what would be written and done, and do nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Show how the files would change, and do nothing
    #[arg(long)]
    pub diff: bool,
    /// The service manager; that of another machine only with --dry-run or --diff [default: this
    /// machine's]
    #[arg(long = "for", value_name = "MANAGER")]
    pub supervisor: Option<ServiceManagerKind>,
    /// Overwrite files that gatewayctl did not write or that were edited since (copies are kept),
    /// and replace another command
    #[arg(long)]
    pub overwrite: bool,
    /// Do not ask before the service is stopped for a moment, which --socket needs if it runs
    #[arg(long)]
    pub yes: bool,
}

#[derive(Clone, Debug, Default, Args)]
pub struct UninstallArgs {
    /// Show what would be removed, and do nothing
    #[arg(long)]
    pub dry_run: bool,
}
