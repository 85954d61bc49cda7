//! gatewayctl: installs, restarts and explains a gateway.

use std::process::ExitCode;

use gateway::cli::{self, args::CtlCli};

fn main() -> ExitCode {
    match CtlCli::read(std::env::args_os()) {
        Ok(cli) => cli::gatewayctl(&cli).into(),
        // `--help` and `--version` come this way, too.
        Err(error) => cli::unusable(&error).into(),
    }
}
