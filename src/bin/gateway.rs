//! The gateway: a restart-safe front door for the programs on a machine.

use std::process::ExitCode;

use gateway::programs::{
    Env, Exit, GatewayCli, GatewayCommand, Overrides, check_config, config_warnings, hold_signals,
    log, release_signals, run,
};

fn main() -> ExitCode {
    // A signal that comes before its handler must wait, not kill: this stays the first line.
    hold_signals();
    let cli = match GatewayCli::read(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Nobody is left to tell when the terminal is gone, too.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log::init();
    let flags = cli.overrides();
    let exit = match cli.command {
        Some(GatewayCommand::Check(check)) => prove(&flags, check.start),
        Some(GatewayCommand::Run(_)) | None => ExitCode::from(run(flags)),
    };
    log::flush();
    exit
}

/// `gateway check`: says that the configuration is valid, and with `--start` whether the sidecars
/// start.
fn prove(flags: &Overrides, start: bool) -> ExitCode {
    let (loaded, verdict) = match check_config(flags, &Env::real()) {
        Ok(checked) => checked,
        Err(error) => {
            tracing::error!("[gateway] {error}");
            return Exit::Config.into();
        }
    };
    tracing::info!("{verdict}");
    for warning in config_warnings(&loaded.config) {
        tracing::warn!("[gateway] {warning}");
    }
    if !start {
        return Exit::Done.into();
    }
    release_signals();
    match gateway::programs::prove(&loaded) {
        Ok(lines) => {
            lines.iter().for_each(|line| tracing::info!("{line}"));
            Exit::Done.into()
        }
        Err(why) => {
            log::error_lines(&why);
            Exit::Failed.into()
        }
    }
}
