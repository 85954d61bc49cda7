//! The next generation: read, built beside the current one, taken or thrown away.

use std::sync::Arc;

use tokio::task::JoinHandle;

use super::Happening;
use super::driver::Gateway;
use super::generation::{BuildError, Generation, Plan, Started};
use super::handover::ToPredecessor;
use super::lifecycle::{Budget, Event, Kind, Phase};
use super::progress::Reporter;
use crate::config::{self, Config, Env, Loaded, Overrides};
use crate::control::protocol::FailureCode;

/// What the generation under construction came from.
#[derive(Debug)]
pub(super) struct Next {
    pub(super) loaded: Loaded,
    pub(super) report: Reporter,
}

/// A generation under construction.
#[derive(Debug)]
pub(super) struct Building {
    pub(super) number: u64,
    pub(super) task: JoinHandle<()>,
    pub(super) started: Started,
}

impl Gateway {
    /// Reads the configuration again (but for the first generation) and builds from it.
    pub(super) fn build(&mut self, number: u64, kind: Kind, budget: Budget, request: Option<String>, persist: bool) {
        let first = self.current.is_none();
        if kind == Kind::Reload {
            self.reloading = true;
            self.notifier.reloading("reloading the configuration");
        }
        let next = match if first { Ok(self.loaded.clone()) } else { self.read_again() } {
            Ok(next) => next,
            Err(error) => {
                self.failed_as = FailureCode::ConfigInvalid;
                self.broken(number, &error);
                return;
            }
        };
        self.unchanged = kind == Kind::Reload && next.config == self.loaded.config;
        let plan = Plan {
            number,
            config: Arc::new(next.config.clone()),
            previous: self.current.clone(),
            kind,
            budget,
            persist,
            started: Started::default(),
            leases: self.leases.claim(),
            gate: if first { self.gate() } else { None },
        };
        let started = plan.started.clone();
        let report =
            Reporter::new(request, self.happened.clone()).passing_on(self.taking.as_ref().map(|taking| taking.predecessor.clone()));
        let next_report = report.clone();
        let context = Arc::clone(&self.context);
        let happened = self.happened.clone();
        let task = tokio::spawn(async move {
            let result = plan.build(&context, &report).await;
            // When the loop is gone, dropping the result stops its sidecars.
            let _ = happened.send(Happening::Built(number, Box::new(result)));
        });
        self.building = Some(Building { number, task, started });
        self.next = Some(Next { loaded: next, report: next_report });
        if self.announced && !self.reloading {
            self.notifier.status(&self.stage().1);
        }
    }

    fn read_again(&mut self) -> Result<Loaded, String> {
        let flags = Overrides { instance: Some(self.loaded.instance.clone()), ..self.context.flags.clone() };
        let mut loaded = config::load(&flags, &Env::real()).map_err(|error| error.to_string())?;
        // Port 0 was chosen by the kernel once; the choice stands.
        self.listeners.change(&needed(&loaded.config, &self.loaded.config)).map_err(|error| error.to_string())?;
        loaded.path = loaded.path.or_else(|| self.loaded.path.clone());
        Ok(loaded)
    }

    pub(super) fn built(&mut self, number: u64, result: Result<Generation, BuildError>) {
        self.building.take_if(|building| building.number == number);
        match result {
            Ok(generation) => {
                if self.machine.phase() == &Phase::Ended || matches!(self.machine.phase(), Phase::Stopping { .. }) {
                    // The stop sees to its sidecars: they are among the abandoned.
                    return;
                }
                if let Some(Next { loaded, report }) = self.next.take() {
                    self.loaded = loaded;
                    self.report = report;
                }
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
            crate::log::error_lines(&format!("cannot start: {why}"));
        }
        if self.is_candidate() {
            self.tell_predecessor(&ToPredecessor::Failed { why: why.to_owned() });
        }
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

/// The addresses to have sockets for; a port 0 that is served already needs no second one.
fn needed(next: &Config, now: &Config) -> Vec<config::Listen> {
    let zero_before = |listen: &config::Listen| listen.port() == Some(0) && now.gateway.listen.contains(listen);
    next.gateway.listen.iter().filter(|listen| !zero_before(listen)).cloned().collect()
}
