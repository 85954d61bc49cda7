//! Where the next generation is to live, as things stand now.

use std::time::Duration;

use super::driver::Gateway;
use super::lifecycle::Place;
use crate::config::Mode;
use crate::control::protocol::RestartParams;

impl Gateway {
    /// Where a restart puts the next generation.
    pub(super) fn place(&self, params: &RestartParams) -> Place {
        match self.loaded.config.restart.mode {
            _ if params.update => Place::Successor { update: true },
            _ if params.fresh => Place::Successor { update: false },
            Mode::Respawn => Place::Successor { update: false },
            Mode::Exit => Place::Next { until: self.yield_limit().map(|limit| self.context.front.started.elapsed() + limit) },
            Mode::Auto | Mode::InProcess => Place::Here,
        }
    }

    /// Whether somebody knows this process by its pid and would take its end for the service's.
    pub(super) fn pid_must_survive(&self) -> bool {
        std::process::id() == 1
    }

    /// Whether the service manager ends what is left when its main process dies, and starts the next one.
    pub(super) fn manager_ends_us(&self) -> bool {
        self.notifier.active()
    }

    /// How long launchd must see this process before it starts the next one without a pause.
    pub(super) fn launchd_delay(&self) -> Duration {
        Duration::ZERO
    }
}
