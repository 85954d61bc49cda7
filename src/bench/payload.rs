//! The answer of a benchmark: every sample, and what they come to.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use super::failure::BenchFailure;
use super::iteration::RestartIteration;
use super::resources::SlopeSummary;
use super::sample::RestartSample;
use super::stats::{SummaryStats, thousandths};
use super::subject::Subject;

/// The answer of `gatewayctl bench restart`.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartBenchAnswer {
    /// Whether nothing failed.
    pub ok: bool,
    /// The program under measure, or the command of another server.
    pub entry: String,
    /// What it says with --version; null of another server.
    pub version: Option<String>,
    /// When the benchmark ended.
    pub generated_at: String,
    /// Operating system and processor.
    pub platform: String,
    pub results: Vec<CaseResult>,
}

/// A case, or another server.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaseResult {
    pub id: &'static str,
    pub name: String,
    pub samples: Vec<RestartSample>,
    pub summary: CaseSummary,
}

/// What the restarts of a case come to; times in milliseconds. Null where there is nothing to count.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CaseSummary {
    /// Of the restarts in which a probe was bad: that of /readyz, else that of /healthz.
    pub downtime_ms: Option<SummaryStats>,
    /// In how many restarts no probe was bad.
    pub never_down: usize,
    /// Which part of the restarts failed; a sample that failed otherwise counts as one more.
    pub failure_rate: f64,
    pub first_failure_code: Option<BenchFailure>,
    /// Until /healthz answers in the new generation.
    pub healthz_recovery_ms: Option<SummaryStats>,
    /// Until /readyz answers in the new generation.
    pub readyz_recovery_ms: Option<SummaryStats>,
    /// From the signal to the line that says ready.
    pub ready_log_ms: Option<SummaryStats>,
    /// Processor time of all processes in a restart.
    pub cpu_ms: Option<SummaryStats>,
    pub resource_slope: SlopeSummary,
    /// The last step of the restart, by its own trace.
    pub restart_ready_ms: Option<SummaryStats>,
    /// The whole restart, by its own trace.
    pub restart_ready_total_ms: Option<SummaryStats>,
    /// Every figure of the traces.
    pub restart_trace: BTreeMap<String, SummaryStats>,
}

impl CaseResult {
    pub fn new(subject: &Subject<'_>, samples: Vec<RestartSample>) -> Self {
        Self {
            id: subject.id(),
            name: subject.name(),
            summary: CaseSummary::of(&samples),
            samples,
        }
    }
}

impl CaseSummary {
    fn of(samples: &[RestartSample]) -> Self {
        let iterations: Vec<&RestartIteration> = samples
            .iter()
            .flat_map(|sample| &sample.iterations)
            .collect();
        let over = |of: &dyn Fn(&RestartIteration) -> Option<f64>| {
            SummaryStats::of(iterations.iter().filter_map(|it| of(it)))
        };
        let traced = |name: &str| over(&|it| it.restart_trace.get(name).copied());
        let names: BTreeSet<&String> = iterations
            .iter()
            .flat_map(|it| it.restart_trace.keys())
            .collect();
        let slopes: Vec<_> = samples
            .iter()
            .map(|sample| &sample.resource_slope)
            .collect();
        Self {
            downtime_ms: over(&downtime),
            never_down: iterations
                .iter()
                .filter(|it| downtime(it).is_none())
                .count(),
            failure_rate: failure_rate(samples),
            first_failure_code: samples.iter().find_map(|sample| sample.failure_code),
            healthz_recovery_ms: over(&|it| it.healthz.ms),
            readyz_recovery_ms: over(&|it| it.readyz.ms),
            ready_log_ms: over(&|it| it.gateway_ready_log_ms),
            cpu_ms: over(&|it| it.cpu_ms),
            resource_slope: SlopeSummary::of(&slopes),
            restart_ready_ms: traced("restart.ready"),
            restart_ready_total_ms: traced("restart.ready.total"),
            restart_trace: (names.into_iter())
                .filter_map(|name| Some((name.clone(), traced(name)?)))
                .collect(),
        }
    }
}

fn downtime(iteration: &RestartIteration) -> Option<f64> {
    iteration
        .readyz
        .downtime_ms
        .or(iteration.healthz.downtime_ms)
}

fn failure_rate(samples: &[RestartSample]) -> f64 {
    let of_sample = |sample: &RestartSample| {
        let restarts = sample.iterations.len();
        let failed = sample
            .iterations
            .iter()
            .filter(|it| it.failure_code.is_some())
            .count();
        match sample.failure_code {
            Some(_) if failed == 0 => (restarts + 1, 1),
            _ => (restarts, failed),
        }
    };
    let counts = samples.iter().map(of_sample);
    let (all, failed) = counts.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    thousandths(failed as f64 / all.max(1) as f64)
}
