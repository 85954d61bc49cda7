//! Installed gateways and what they are doing, in words for people.

use super::target::{self, named_by_path};
use super::{CliError, Context, Exit};
use crate::config::Env;
use crate::control::protocol::Stage;
use crate::service::{self, Installed, ServiceErrorKind, UnitState};
use crate::systemd::words::{ActiveState, Word};
use crate::text::words::words;

/// An installed gateway.
pub struct InstalledService {
    pub unit: Installed,
    /// None where the manager cannot be asked.
    pub state: Option<UnitState>,
}

impl InstalledService {
    pub fn stage(&self) -> StageWord {
        self.state
            .as_ref()
            .map_or(StageWord::Unknown, |state| stage(state).0)
    }
}

/// The installed gateway of this name, or the only one; none when none is installed, and when the
/// selected gateway is named by path.
///
/// # Errors
/// [`Exit::Usage`] when several match.
pub fn select(
    ctx: &Context,
    env: &Env<'_>,
    name: Option<&str>,
) -> Result<Option<Installed>, CliError> {
    if named_by_path(&ctx.global, env).is_some() {
        return Ok(None);
    }
    match service::select(env, name, target::scope(&ctx.global)) {
        Ok(unit) => Ok(Some(unit)),
        Err(error) if error.kind == ServiceErrorKind::NotInstalled => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The installed gateway that is selected, for a command that is about nothing else.
///
/// # Errors
/// [`Exit::NotRunning`] when it is not installed, [`Exit::Usage`] when several match, and when it is
/// named by path.
pub fn require(ctx: &Context, env: &Env<'_>) -> Result<Installed, CliError> {
    refuse_path(ctx, env)?;
    let name = target::wanted_name(&ctx.global, env);
    let scope = target::scope(&ctx.global);
    Ok(service::select(env, name.as_deref(), scope)?)
}

/// Refuses a gateway that is named by path, for a command about installed ones.
///
/// # Errors
/// [`Exit::Usage`], with what names it.
pub fn refuse_path(ctx: &Context, env: &Env<'_>) -> Result<(), CliError> {
    let Some(named) = named_by_path(&ctx.global, env) else {
        return Ok(());
    };
    let message = format!(
        "an installed gateway has its files where the service manager expects them, and {named} names others"
    );
    let help = match named.strip_prefix('$') {
        Some(variable) => format!("unset {variable}"),
        None => format!("leave {named} out"),
    };
    let help = format!(
        "{help}; --instance NAME selects an installed gateway, whose configuration is in /etc/gateway or ~/.config/gateway"
    );
    Err(Exit::Usage.error(message).with_help(help))
}

/// All installed gateways that the flags may mean.
pub async fn all(ctx: &Context) -> Vec<InstalledService> {
    let env = Env::real();
    if named_by_path(&ctx.global, &env).is_some() {
        return Vec::new();
    }
    let name = target::wanted_name(&ctx.global, &env);
    let mut services = Vec::new();
    for unit in service::installed(&env, target::scope(&ctx.global)) {
        if name.as_ref().is_none_or(|name| *name == unit.instance) {
            let state = service::state(&env, &unit).await.ok();
            services.push(InstalledService { unit, state });
        }
    }
    services
}

/// What a unit is doing, and the exit code that says so.
pub fn stage(state: &UnitState) -> (StageWord, Exit) {
    match state.active {
        Word::Known(ActiveState::Failed) => (StageWord::Failed, Exit::Failed),
        Word::Known(ActiveState::Activating) => (StageWord::Starting, Exit::StillBusy),
        Word::Known(ActiveState::Deactivating) => (StageWord::Stopping, Exit::StillBusy),
        _ if state.waits_for().is_some() => (StageWord::StandingBy, Exit::StillBusy),
        // It runs, but its control socket is not for us.
        _ if state.is_active() => (StageWord::Running, Exit::Permission),
        _ => (StageWord::Stopped, Exit::NotRunning),
    }
}

words! {
    /// What a gateway is doing, in words.
    pub enum StageWord {
        /// The first generation is being built, or the service manager starts it.
        Starting = "starting",
        /// The current generation serves.
        Ready = "ready",
        /// It serves, but a sidecar is down.
        Degraded = "degraded",
        /// The next generation is being built.
        Restarting = "restarting",
        /// It finishes its work before it ends; another process serves, or will.
        Draining = "draining",
        /// It ends.
        Stopping = "stopping",
        /// The first generation failed and is tried again, or the service failed.
        Failed = "failed",
        /// Earlier lives ended too soon: the sidecars wait before they are started.
        Throttled = "throttled",
        /// Front door and control only.
        SafeMode = "safe mode",
        /// Another process has its address or its name; it waits for the end of that one.
        StandingBy = "standing by",
        /// The service does not run.
        Stopped = "stopped",
        /// The service runs, but this user may not ask it.
        Running = "running",
        /// The service runs, but does not answer root either.
        Silent = "silent",
        /// Its control socket does not answer.
        NoAnswer = "no answer",
        /// Its process is suspended, as by Ctrl-Z, and answers nothing until it continues.
        Suspended = "suspended",
        /// Nothing answers.
        NotRunning = "not running",
        /// The service manager cannot be asked.
        Unknown = "unknown",
    }
}

impl From<Stage> for StageWord {
    fn from(stage: Stage) -> Self {
        match stage {
            Stage::Starting => Self::Starting,
            Stage::Ready => Self::Ready,
            Stage::Degraded => Self::Degraded,
            Stage::Restarting => Self::Restarting,
            Stage::Draining => Self::Draining,
            Stage::Stopping => Self::Stopping,
            Stage::Failed => Self::Failed,
            Stage::Throttled => Self::Throttled,
            Stage::SafeMode => Self::SafeMode,
            Stage::StandingBy => Self::StandingBy,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::words::Words;

    #[test]
    fn a_stage_has_the_same_words_in_every_place() {
        for stage in Stage::ALL {
            assert_eq!(StageWord::from(*stage).word(), stage.in_words());
        }
    }
}
