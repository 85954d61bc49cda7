//! Which steps of an install are left to do, compared with what is there.

use super::file_transaction::PlannedFile;
use super::plan::InstallPlan;
use super::request::{Ask, InstallRequest};
use crate::service::error::ServiceError;
use crate::service::linger;
use crate::service::manager::{Manager, UnitState};
use crate::state::paths::Scope;

/// What is left to do.
pub(super) struct RemainingSteps {
    pub files: bool,
    pub unit: bool,
    pub prove: bool,
    pub enable: bool,
    /// The former socket unit starts at boot.
    pub disable_socket: bool,
    pub linger: bool,
    pub start: bool,
    pub active: bool,
    /// The socket unit must begin to hold the listeners that the running service holds itself.
    pub hand_over: bool,
}

/// What systemd says is there.
#[derive(Default)]
struct There {
    /// The service runs.
    active: bool,
    socket_up: bool,
    enabled: bool,
    /// The former socket unit starts at boot.
    disable_socket: bool,
}

impl RemainingSteps {
    pub async fn find(
        manager: &Manager,
        request: &InstallRequest,
        plan: &InstallPlan,
        state: &UnitState,
    ) -> Self {
        let socket = manager.socket_state(&plan.installed).await;
        let mut enabled = manager.is_enabled(&plan.installed.unit).await;
        if let Some(socket) = &plan.installed.socket {
            enabled &= manager.is_enabled(socket).await;
        }
        let disable_socket = match &plan.former_socket {
            Some(socket) => manager.is_enabled(socket).await,
            None => false,
        };
        let there = There {
            active: state.is_active() && state.main_pid != 0,
            socket_up: socket.is_ok_and(|state| state.is_active()),
            enabled,
            disable_socket,
        };
        Self::of(request, plan, &there)
    }

    /// Those of a service of which nothing is there yet.
    pub fn of_none(request: &InstallRequest, plan: &InstallPlan) -> Self {
        Self::of(request, plan, &There::default())
    }

    fn of(request: &InstallRequest, plan: &InstallPlan, there: &There) -> Self {
        let files = plan.changed().next().is_some();
        let active = there.active;
        let exclusive = plan
            .contents
            .config
            .sidecar
            .values()
            .any(|spec| !spec.overlaps());
        let hand_over = active && plan.installed.socket.is_some() && !there.socket_up;
        let start = request.now && (!active || files || hand_over);
        Self {
            files,
            // systemd reads units and variables only when it starts the service.
            unit: plan
                .changed()
                .any(|file| file.path == plan.installed.path || file.shown.is_some()),
            // Two copies of a server that must be alone would harm each other.
            prove: !plan.contents.config.sidecar.is_empty()
                && (files || start)
                && !(active && exclusive),
            enable: !there.enabled,
            disable_socket: there.disable_socket,
            linger: plan.installed.scope == Scope::User && !linger::is_on(),
            start,
            active,
            hand_over,
        }
    }

    /// Whether the addresses of a running service go to its socket unit or come from it, which
    /// takes one stop.
    fn stops(&self, plan: &InstallPlan) -> bool {
        self.active && (self.hand_over || plan.former_socket.is_some())
    }

    /// Asks before it stops what runs.
    pub fn consent(
        &self,
        request: &InstallRequest,
        plan: &InstallPlan,
        ask: Ask<'_>,
    ) -> Result<(), ServiceError> {
        if !self.stops(plan) {
            return Ok(());
        }
        let unit = &plan.installed.unit;
        let from_to = if self.hand_over {
            "from the service to its socket unit"
        } else {
            "from the socket unit to the service"
        };
        let what = format!(
            "{unit} must stop for a moment: its addresses go {from_to}, and clients are refused meanwhile"
        );
        if !request.now {
            return Err(ServiceError::usage(format!("{what}; nothing was changed"))
                .next("the same command with --now --yes   (now)\ngatewayctl stop   (before it, at a time of your choice)"));
        }
        match if request.yes { Some(true) } else { ask(&what) } {
            Some(true) => Ok(()),
            Some(false) => Err(ServiceError::refused("nothing was changed")),
            None => Err(ServiceError::usage(format!(
                "{what}; nothing was changed, because nobody could be asked"
            ))
            .next("the same command with --yes")),
        }
    }

    pub fn is_empty(&self) -> bool {
        !(self.files || self.enable || self.linger || self.start)
    }

    pub fn actions(&self, plan: &InstallPlan) -> Vec<String> {
        let unit = &plan.installed.unit;
        let mut actions: Vec<String> = plan.changed().map(PlannedFile::action).collect();
        let stop =
            format!("stop {unit} for a moment, while its addresses change hands (asks first)");
        let steps = [
            (self.files, "make systemd read its unit files".to_owned()),
            (
                self.prove,
                "test-start the command in a temporary unit".to_owned(),
            ),
            (self.enable, format!("enable {unit}")),
            (
                self.linger,
                "turn lingering on, so that it runs without a login".to_owned(),
            ),
            (self.start && self.stops(plan), stop),
            (
                self.start,
                format!("{} {unit} and wait until it is ready", self.verb()),
            ),
        ];
        actions.extend(
            steps
                .into_iter()
                .filter(|(wanted, _)| *wanted)
                .map(|(_, text)| text),
        );
        actions
    }

    fn verb(&self) -> &'static str {
        match (self.active, self.unit || self.hand_over) {
            (false, _) => "start",
            (true, true) => "restart",
            (true, false) => "reload",
        }
    }
}
