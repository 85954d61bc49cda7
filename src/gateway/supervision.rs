//! Where the next generation is to live, as things stand now, and how long an end may take.

use std::time::Duration;

use tracing::warn;

use super::budget::{EndBudget, KillTime, PlannedEnd, Surroundings};
use super::lifecycle::{Budget, FORCE_EXIT, Phase, Placement};
use super::loop_event::LoopEvent;
use super::run_loop::Gateway;
use super::strategy::{Strategy, StrategyChoice, StrategyFacts, StrategyRefusal, choose};
use crate::config::Env;
use crate::control::protocol::RestartParams;
use crate::supervisor::{Evidence, Supervisor, SupervisorVerdict, detect, launchd};
use crate::systemd::Notifier;
use crate::systemd::unit::{UnitFacts, facts_of};

/// Who supervises this process, and what is known about that.
#[derive(Debug)]
pub(super) struct Supervision {
    pub(super) verdict: SupervisorVerdict,
    /// What systemd says about our unit; none while it has not answered.
    pub(super) unit: Option<UnitFacts>,
    /// What a predecessor knew.
    handed: Option<SupervisorVerdict>,
    no_respawn: bool,
}

impl Supervision {
    /// What can be told without asking anybody.
    pub(super) fn at_first(instance: &str, handed: Option<SupervisorVerdict>) -> Self {
        let env = Env::real();
        let verdict = detect(&Evidence {
            handed: handed.clone(),
            ..Evidence::gather(&env, instance)
        });
        let no_respawn = env.is_on("GATEWAY_NO_RESPAWN");
        Self {
            verdict,
            unit: None,
            handed,
            no_respawn,
        }
    }

    /// systemd has answered.
    fn learn(&mut self, instance: &str, unit: Option<UnitFacts>) {
        let evidence = Evidence::gather(&Env::real(), instance);
        self.verdict = detect(&Evidence {
            manager: unit.clone(),
            handed: self.handed.clone(),
            ..evidence
        });
        self.unit = unit;
    }

    /// Whether somebody answers our end with a new start.
    pub(super) fn is_service(&self) -> bool {
        self.verdict.supervisor.is_service()
    }

    /// Whether a person started this process and sees how it ends.
    pub(super) fn by_hand(&self) -> bool {
        self.verdict.supervisor == Supervisor::Terminal
    }

    fn by_systemd(&self) -> bool {
        matches!(self.verdict.supervisor, Supervisor::Systemd { .. })
    }
}

impl Gateway {
    /// Asks systemd about our unit, besides; the answer comes as a [`LoopEvent::Supervised`].
    pub(super) fn ask_manager(&self) {
        let happened = self.happened.clone();
        tokio::spawn(async move {
            let facts = facts_of(std::process::id()).await;
            // When the loop is gone, nobody needs to know.
            let _ = happened.send(LoopEvent::Supervised(facts.map(Box::new)));
        });
    }

    pub(super) fn supervised(&mut self, facts: Option<UnitFacts>) {
        self.supervision.learn(&self.loaded.instance, facts);
    }

    /// Where a restart would put the next generation now, and why.
    pub(super) fn choice(&self, params: &RestartParams) -> Result<StrategyChoice, StrategyRefusal> {
        let unit = self.supervision.unit.as_ref();
        choose(&StrategyFacts {
            mode: self.loaded.config.restart.mode,
            verdict: &self.supervision.verdict,
            fresh: params.fresh,
            update: params.update,
            no_respawn: self.supervision.no_respawn,
            can_speak_mainpid: self.notifier.active() && unit.is_none_or(|unit| unit.hears_main()),
            holder: unit.is_some_and(|unit| unit.relaunches() && unit.holds_listeners()),
            drainers: self.predecessors.len(),
        })
    }

    /// The same for the lifecycle.
    pub(super) fn place(
        &mut self,
        params: &RestartParams,
        budget: Budget,
    ) -> Result<Placement, StrategyRefusal> {
        let choice = self.choice(params)?;
        Ok(match choice.strategy {
            Strategy::InProcess => Placement::Here,
            Strategy::Respawn { waiter } => {
                self.stays = waiter;
                // A request that joins a hand-over under way makes no further process.
                if choice.cut_oldest
                    && self.machine.phase() == &Phase::Serving
                    && let Some(pid) = self.predecessors.cut_oldest()
                {
                    warn!("[gateway] {}: pid {pid} finishes as in a stop", choice.why);
                }
                Placement::Successor {
                    update: params.update,
                }
            }
            Strategy::Exit => Placement::Next {
                until: self
                    .leave_budget(budget, false)
                    .force_exit
                    .map(|limit| self.now() + limit),
            },
        })
    }

    /// How long an end may take that makes room for the next start. `asked` when the service
    /// manager has asked for it, whose clock then runs.
    pub(super) fn leave_budget(&self, budget: Budget, asked: bool) -> EndBudget {
        EndBudget::of(
            PlannedEnd::Restart(self.drain_time(budget)),
            self.surroundings(asked),
        )
    }

    /// How long a stop may take.
    pub(super) fn stop_limit(&self) -> Duration {
        let end = EndBudget::of(
            PlannedEnd::Stop(self.loaded.config.restart.stop_drain.0),
            self.surroundings(true),
        );
        end.force_exit.unwrap_or(FORCE_EXIT)
    }

    fn surroundings(&self, asked: bool) -> Surroundings {
        let patience = match &self.supervision.unit {
            _ if !asked => KillTime::Endless,
            Some(unit) => unit.timeout_stop.map_or(KillTime::Endless, KillTime::Limit),
            None if self.supervision.by_systemd() => KillTime::Unanswered,
            None => KillTime::Endless,
        };
        let extends = self.notifier.active() && self.supervision.by_systemd();
        Surroundings {
            patience,
            extends,
            machine_stopping: self.machine_stops,
        }
    }

    /// How long work may go on; none for ever.
    pub(super) fn drain_time(&self, budget: Budget) -> Option<Duration> {
        budget.time(self.loaded.config.restart.drain.0)
    }

    /// Whether the service manager keeps the listeners.
    pub(super) fn manager_holds(&self) -> bool {
        self.notifier.active() || self.silenced.is_some_and(Notifier::active)
    }

    /// Whether the service manager ends what is left when its main process dies, and starts the
    /// next one.
    pub(super) fn manager_ends_us(&self) -> bool {
        self.supervision.by_systemd() && self.waiter.is_none()
    }

    /// How long launchd must see this process before it starts the next one without a pause; a
    /// restart by force does not wait.
    pub(super) fn launchd_delay(&self, budget: Budget) -> Duration {
        if !matches!(
            self.supervision.verdict.supervisor,
            Supervisor::Launchd { .. }
        ) || budget == Budget::Force
        {
            return Duration::ZERO;
        }
        launchd::exit_delay(
            self.now(),
            launchd::throttle_interval(None),
            self.loaded.config.restart.launchd_exit_delay.0,
        )
    }

    /// Since this process began.
    pub(super) fn now(&self) -> Duration {
        self.context.front.started.elapsed()
    }
}
