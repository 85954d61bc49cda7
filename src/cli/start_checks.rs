//! What is checked before a service is started or restarted: it would be down afterwards.

use super::preflight::refusal;
use super::program_run;
use super::{CliError, Exit};
use crate::config::{ConfigError, Env};
use crate::service::{self, Installed};

/// Refuses to start a service whose configuration is not valid: it would only fail, and be down
/// after a restart.
///
/// # Errors
/// Exit code 78 with place and next command.
pub fn refuse_invalid(env: &Env<'_>, unit: &Installed) -> Result<(), CliError> {
    let Err(error) = service::configuration(env, unit) else {
        return Ok(());
    };
    let file = match &error {
        ConfigError::Invalid { path, .. } => path.clone(),
        ConfigError::Unreadable { path, .. } => Some(path.clone()),
    };
    Err(refusal(error, file, &format!("{} is as it was", unit.unit)))
}

/// Refuses to restart a service whose program is not there, or does not run: it would be down
/// afterwards.
///
/// # Errors
/// [`Exit::Refused`] with the program and why.
pub(super) async fn refuse_unrunnable(env: &Env<'_>, unit: &Installed) -> Result<(), CliError> {
    let Some(program) = service::program(env, unit).await? else {
        return Ok(());
    };
    let why = match program_run::run_version(&program).await {
        Ok(answer) if answer.good().is_some() => return Ok(()),
        Ok(answer) => format!("does not tell its version: --version {}", answer.ended()),
        Err(error) => program_run::explain(&error),
    };
    let Installed { unit, instance, .. } = unit;
    let message = format!("{program}, which {unit} runs, {why}\nnothing was changed");
    let help =
        format!("gatewayctl install --instance {instance}   (writes where the program is now)");
    Err(Exit::Refused.error(message).with_help(help))
}
