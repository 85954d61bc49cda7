//! gatewayctl: installs, restarts and explains a gateway.

use std::process::ExitCode;

use clap::Parser;
use gateway::cli::{self, args::CtlCli};

fn main() -> ExitCode {
    cli::gatewayctl(&CtlCli::parse()).into()
}
