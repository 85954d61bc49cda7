//! gatewayctl: installs, restarts and explains a gateway.

use std::process::ExitCode;

use gateway::programs::{CtlCli, gatewayctl, unusable};

fn main() -> ExitCode {
    match CtlCli::read(std::env::args_os()) {
        Ok(cli) => gatewayctl(&cli).into(),
        // `--help` and `--version` come this way, too.
        Err(error) => unusable(&error).into(),
    }
}
