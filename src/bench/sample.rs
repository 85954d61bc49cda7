//! A sample: one life of the gateway under measure, from its start over some restarts to its end.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::case::BenchCase;
use super::failure::BenchFailure;
use super::gateway_process::{GatewayEnd, GatewayProcess};
use super::iteration::{BenchLimits, RestartIteration, restart};
use super::log_lines::{Told, TraceFigures};
use super::probe::{ProbeResult, until_back};
use super::resources::ResourceSlope;
use super::stats::tenths;

/// One life of the gateway.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartSample {
    /// What failed first; null where nothing did.
    pub failure_code: Option<BenchFailure>,
    #[serde(flatten)]
    pub start: SampleStart,
    pub iterations: Vec<RestartIteration>,
    pub resource_slope: ResourceSlope,
    /// The most memory of all snapshots, in MiB.
    pub max_rss_mb: Option<f64>,
    /// The exit code of the gateway when it was asked to end.
    pub child_exit_code: Option<i32>,
    /// The signal that ended it.
    pub child_signal: Option<String>,
    /// The last 30 lines of its output.
    pub output_tail: Vec<String>,
}

/// Its start, in milliseconds since then.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SampleStart {
    /// When it said anything.
    pub first_output_ms: Option<f64>,
    pub initial_http_listen_log_ms: Option<f64>,
    pub initial_http_listen_log_line: Option<String>,
    pub initial_gateway_ready_log_ms: Option<f64>,
    pub initial_gateway_ready_log_line: Option<String>,
    pub initial_healthz: ProbeResult,
    pub initial_readyz: ProbeResult,
    /// The steps of the start.
    pub initial_startup_trace: BTreeMap<String, f64>,
}

/// What a benchmark measures, and how.
#[derive(Clone, Copy, Debug)]
pub struct BenchPlan<'a> {
    /// The gateway under measure.
    pub gateway: &'a Path,
    /// The program whose `bench serve` is a server.
    pub own: &'a Path,
    pub restarts: usize,
    pub limits: BenchLimits,
}

/// Measures one life. The gateway is in `running` as long as it lives, so that who gives up can end it;
/// `told` hears of each restart.
///
/// # Errors
/// When it cannot be started.
pub async fn measure(
    plan: &BenchPlan<'_>,
    case: BenchCase,
    running: &mut Option<GatewayProcess>,
    mut told: impl FnMut(&RestartIteration),
) -> io::Result<RestartSample> {
    let gateway = running.insert(GatewayProcess::start(case, plan.gateway, plan.own)?);
    let (start, mut failure) = begin(gateway, plan.limits).await;
    let mut iterations = Vec::new();
    while failure.is_none() && iterations.len() < plan.restarts {
        let iteration = restart(gateway, iterations.len() + 1, plan.limits).await;
        told(&iteration);
        failure = iteration.failure_code;
        iterations.push(iteration);
    }
    let end = match running.take() {
        Some(gateway) => gateway.stop().await,
        None => GatewayEnd {
            status: None,
            clean: true,
            tail: Vec::new(),
        },
    };
    let failure = failure.or(match end.clean {
        true if end.code() == Some(0) => None,
        true => Some(BenchFailure::ChildNonzeroExit),
        false => Some(BenchFailure::CleanupFailed),
    });
    let snapshots = || iterations.iter().flat_map(|it| &it.resource_snapshots);
    let settled = iterations
        .iter()
        .filter_map(|it| it.resource_snapshots.last());
    Ok(RestartSample {
        failure_code: failure,
        start,
        resource_slope: ResourceSlope::of(settled),
        max_rss_mb: snapshots().filter_map(|it| it.rss_mb).reduce(f64::max),
        iterations,
        child_exit_code: end.code(),
        child_signal: end.signal(),
        output_tail: end.tail,
    })
}

/// Waits until it is there: both probes good, and the line that says ready.
async fn begin(
    gateway: &mut GatewayProcess,
    limits: BenchLimits,
) -> (SampleStart, Option<BenchFailure>) {
    let mut start = SampleStart::default();
    let mut traces = TraceFigures::default();
    let (began, listen, ended) = (gateway.began(), gateway.listen(), gateway.ended());
    let deadline = began + limits.timeout;
    // Any good answer will do: nothing was there before.
    let (_ready, is_ready) = watch::channel(Some(began));
    let stop = CancellationToken::new();
    let probe = |path| until_back(&listen, path, began, is_ready.clone(), stop.clone());
    let probes = async { tokio::join!(probe("/healthz"), probe("/readyz")) };
    let mut probes = std::pin::pin!(probes);
    let mut results = None;
    while results.is_none() || start.initial_gateway_ready_log_ms.is_none() {
        tokio::select! {
            back = &mut probes, if results.is_none() => results = Some(back),
            line = gateway.line() => {
                let ms = Some(tenths((line.at - began).as_secs_f64() * 1000.0));
                traces.add(&line.text);
                start.first_output_ms = start.first_output_ms.or(ms);
                match Told::by(&line.text) {
                    Told::Ready => {
                        start.initial_gateway_ready_log_ms = ms;
                        start.initial_gateway_ready_log_line = Some(line.text);
                    }
                    Told::Listening => {
                        start.initial_http_listen_log_ms = ms;
                        start.initial_http_listen_log_line = Some(line.text);
                    }
                    Told::Restarting | Told::Other => {}
                }
            }
            () = ended.wait() => break,
            () = sleep_until(deadline) => break,
        }
    }
    stop.cancel();
    (start.initial_healthz, start.initial_readyz) = match results {
        Some(results) => results,
        None => probes.await,
    };
    // The end of the trace comes after the line.
    let settled = Instant::now() + limits.post_ready_delay;
    loop {
        tokio::select! {
            line = gateway.line() => traces.add(&line.text),
            () = sleep_until(settled) => break,
        }
    }
    start.initial_startup_trace = traces.startup;
    let failure = if start.initial_healthz.ms.is_none() {
        Some(BenchFailure::InitialHealthzTimeout)
    } else if start.initial_readyz.ms.is_none() {
        Some(BenchFailure::InitialReadyzTimeout)
    } else if start.initial_gateway_ready_log_ms.is_none() {
        Some(BenchFailure::InitialReadyLogTimeout)
    } else {
        None
    };
    (start, failure)
}
