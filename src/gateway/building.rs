//! The next generation: read, built beside the current one, taken or thrown away.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::config_source::Material;
use super::generation::{BuildError, BuildPlan, Generation, StartedSlots};
use super::handover::ToPredecessor;
use super::lifecycle::{Budget, Event, Phase, RequestKind};
use super::loop_event::LoopEvent;
use super::progress::Reporter;
use super::recovery::Rung;
use super::run_loop::Gateway;
use crate::config::{self, Config, Env, Overrides};
use crate::control::protocol::FailureCode;

/// What the generation under construction came from.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) material: Material,
    pub(super) report: Reporter,
}

/// A generation under construction.
#[derive(Debug)]
pub(super) struct Building {
    pub(super) number: u64,
    pub(super) task: JoinHandle<()>,
    pub(super) started: StartedSlots,
}

impl Gateway {
    /// Reads the configuration again, unless the process has just begun, and builds from it.
    pub(super) fn build(
        &mut self,
        number: u64,
        kind: RequestKind,
        budget: Budget,
        request: Option<String>,
        persist: bool,
    ) {
        let first = self.current.is_none();
        if let Some(id) = &request {
            self.traces.perform(id);
        }
        if kind == RequestKind::Reload {
            self.reloading = true;
            self.notifier.reloading("reloading the configuration");
        }
        let Material {
            loaded: next,
            configuration,
        } = match self.material() {
            Ok(material) => material,
            Err(error) => {
                self.failed_as = FailureCode::ConfigInvalid;
                self.broken(number, &error);
                return;
            }
        };
        self.unchanged = kind == RequestKind::Reload && next.config == self.loaded.config;
        let plan = BuildPlan {
            number,
            config: Arc::new(next.config.clone()),
            previous: self.current.clone(),
            kind,
            budget,
            persist,
            started: StartedSlots::default(),
            leases: self.leases.claim(),
            gate: if first { self.gate() } else { None },
        };
        let started = plan.started.clone();
        let report = Reporter::new(request, self.happened.outbox(LoopEvent::Progress)).passing_on(
            self.taking
                .as_ref()
                .map(|taking| taking.predecessor.clone()),
        );
        let next_report = report.clone();
        let context = Arc::clone(&self.context);
        let happened = self.happened.clone();
        let task = tokio::spawn(async move {
            let result = plan.build(&context, &report).await;
            // When the loop is gone, dropping the result stops its sidecars.
            let _ = happened.send(LoopEvent::Built(number, Box::new(result)));
        });
        self.building = Some(Building {
            number,
            task,
            started,
        });
        self.next = Some(Next {
            material: Material {
                loaded: next,
                configuration,
            },
            report: next_report,
        });
        if self.announced && !self.reloading {
            self.notifier.status(&self.stage().1);
        }
    }

    /// What the next generation is made of. While nobody serves, something stands in for a
    /// configuration that is not valid.
    fn material(&mut self) -> Result<Material, String> {
        let env = Env::real();
        let flags = Overrides {
            instance: Some(self.loaded.instance.clone()),
            ..self.context.flags.clone()
        };
        let nobody_serves = matches!(self.machine.phase(), Phase::Starting(..));
        let waited = matches!(
            self.standing.recovery.rung(),
            Rung::Throttled { .. } | Rung::Safe { .. }
        );
        let before = Material {
            loaded: self.loaded.clone(),
            configuration: self.standing.configuration.clone(),
        };
        if nobody_serves && !waited && self.current.is_none() {
            // It was read a moment ago.
            return Ok(before);
        }
        let read = config::load(&flags, &env).map_err(|error| error.to_string());
        let mut material = if nobody_serves {
            before.again(read, &flags, &env, &self.paths.state)?
        } else {
            Material::valid(read?)
        };
        // Port 0 was chosen by the kernel once; the choice stands.
        self.listeners
            .change(&needed(&material.loaded.config, &self.loaded.config))
            .map_err(|error| error.to_string())?;
        material.loaded.path = material.loaded.path.or_else(|| self.loaded.path.clone());
        if nobody_serves {
            let actions = self.standing.recovery.adopted(&material.configuration);
            self.climb(actions);
        }
        Ok(material)
    }

    pub(super) fn built(&mut self, number: u64, result: Result<Generation, BuildError>) {
        self.building.take_if(|building| building.number == number);
        match result {
            Ok(generation) => {
                if self.machine.phase() == &Phase::Ended
                    || matches!(self.machine.phase(), Phase::Stopping { .. })
                {
                    // The stop sees to its sidecars: they are among the abandoned.
                    return;
                }
                if let Some(Next {
                    material:
                        Material {
                            loaded,
                            configuration,
                        },
                    report,
                }) = self.next.take()
                {
                    self.loaded = loaded;
                    self.report = report;
                    let actions = self.standing.recovery.adopted(&configuration);
                    self.standing.configuration = configuration;
                    self.standing.broken = None;
                    self.climb(actions);
                }
                self.traces.phase("sidecars");
                let previous = self.current.replace(Arc::new(generation));
                self.step_with(Event::Built(number), previous);
            }
            Err(error) => {
                self.failed_as = FailureCode::Failed;
                self.broken(number, &error.to_string());
            }
        }
    }

    pub(super) fn broken(&mut self, number: u64, why: &str) {
        if matches!(self.machine.phase(), Phase::Starting(..)) {
            crate::text::log::error_lines(&format!("cannot start: {why}"));
            self.start_failed(why);
        }
        if self.is_candidate() {
            self.tell_predecessor(&ToPredecessor::Failed {
                why: why.to_owned(),
            });
        }
        self.traces.give_up();
        self.next = None;
        if let Some(current) = self.current.clone() {
            // Sockets bound for a generation that never came: nobody accepts there.
            self.listeners.prune(&current.config.gateway.listen);
        }
        // Before the step, which may begin the next reload.
        self.finish_reload();
        self.step(Event::Broken(number, why.to_owned()));
        if let Some(current) = self.current.clone() {
            // What was replaced and put back runs in a new sidecar.
            self.follow(&current);
        }
        self.refresh();
    }
}

impl Gateway {
    /// Keeps what is known about a start that failed. A candidate's predecessor does that, and a
    /// trial was one of many.
    fn start_failed(&mut self, why: &str) {
        self.standing.recovery.failed(why);
        self.standing.broken = Some(why.to_owned());
        if !self.is_candidate() && !matches!(self.standing.recovery.rung(), Rung::Safe { .. }) {
            self.bundle("start-failed", why);
        }
    }
}

/// The addresses to have sockets for; a port 0 that is served already needs no second one.
fn needed(next: &Config, now: &Config) -> Vec<config::Listen> {
    let zero_before =
        |listen: &config::Listen| listen.port() == Some(0) && now.gateway.listen.contains(listen);
    next.gateway
        .listen
        .iter()
        .filter(|listen| !zero_before(listen))
        .cloned()
        .collect()
}
