//! Installed gateways, and what the service manager knows of them.

use super::stage_word::StageWord;
use super::target::{self, is_named_by_path};
use super::{CliError, Context, Exit};
use crate::config::Env;
use crate::service::{self, Installed, ServiceErrorKind, UnitState};
use crate::systemd::words::{ActiveState, Word};

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

/// The installed gateway of this name, or the only one; none when none is installed.
///
/// # Errors
/// [`Exit::Usage`] when several match.
pub fn select(
    ctx: &Context,
    env: &Env<'_>,
    name: Option<&str>,
) -> Result<Option<Installed>, CliError> {
    match service::select(env, name, target::scope(&ctx.global)) {
        Ok(unit) => Ok(Some(unit)),
        Err(error) if error.kind == ServiceErrorKind::NotInstalled => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// All installed gateways that the flags may mean.
pub async fn all(ctx: &Context) -> Vec<InstalledService> {
    if is_named_by_path(&ctx.global) {
        return Vec::new();
    }
    let env = Env::real();
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
        _ if state.stands_by() => (StageWord::StandingBy, Exit::StillBusy),
        // It runs, but its control socket is not for us.
        _ if state.is_active() => (StageWord::Running, Exit::Permission),
        _ => (StageWord::Stopped, Exit::NotRunning),
    }
}
