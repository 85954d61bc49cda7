//! What the service manager knows of the gateways that are installed: those that do not run cannot
//! be asked themselves.

use super::stage_word::StageWord;
use super::target::{self, is_named_outright};
use super::{Context, Exit};
use crate::config::Env;
use crate::service::{self, Installed, UnitState};
use crate::systemd::words::{ActiveState, Word};

/// An installed gateway and its manager's view of it; none where the manager cannot be reached.
pub struct InstalledService {
    pub unit: Installed,
    /// What it is doing.
    pub state: Option<UnitState>,
}

impl InstalledService {
    /// What it is doing.
    pub fn stage(&self) -> StageWord {
        self.state
            .as_ref()
            .map_or(StageWord::Unknown, |state| stage(state).0)
    }
}

/// All installed gateways that the flags may mean.
pub async fn all(ctx: &Context) -> Vec<InstalledService> {
    if is_named_outright(&ctx.global) {
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
