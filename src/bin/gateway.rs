//! The gateway: a restart-safe front door for the programs on a machine.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A signal that comes before its handler must wait, not kill: this stays the first line.
    gateway::gateway::hold_signals();
    gateway::cli::gateway_main(std::env::args_os())
}
