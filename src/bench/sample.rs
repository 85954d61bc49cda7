//! A sample: one life of the gateway under measure, from its start over some restarts to its end.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::failure::BenchFailure;
use super::iteration::{BenchLimits, RestartIteration, restart};
use super::load::{LoadPlan, LoadRun};
use super::load_report::LoadReport;
use super::log_lines::{Told, TraceFigures};
use super::measured::{MeasuredEnd, MeasuredServer};
use super::probe::{ProbeResult, until_back};
use super::resources::ResourceSlope;
use super::stats::tenths;
use super::subject::Subject;

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
    /// What clients saw; null without a load.
    pub load: Option<LoadReport>,
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
    pub subject: Subject<'a>,
    pub restarts: usize,
    pub limits: BenchLimits,
    /// Requests a second on new connections, and as many on kept ones; 0 for no load.
    pub per_second: u32,
    /// How many connections are kept.
    pub kept: u32,
}

/// The load runs so long before the first restart and after the last one.
const UNDISTURBED: Duration = Duration::from_secs(1);

/// Measures one life. The gateway is in `running` as long as it lives, so that who gives up can end it;
/// `told` hears of each restart.
///
/// # Errors
/// When it cannot be started.
pub async fn measure(
    plan: &BenchPlan<'_>,
    running: &mut Option<MeasuredServer>,
    mut told: impl FnMut(&RestartIteration),
) -> io::Result<RestartSample> {
    let gateway = running.insert(MeasuredServer::start(&plan.subject)?);
    let (start, mut failure) = begin(gateway, &plan.subject, plan.limits).await;
    let mut iterations = Vec::new();
    let load = match (plan.per_second, failure) {
        (1.., None) => Some(LoadRun::start(LoadPlan {
            listen: gateway.listen(),
            path: plan.subject.load_path().to_owned(),
            per_second: plan.per_second,
            kept: plan.kept,
        })?),
        _ => None,
    };
    if load.is_some() {
        sleep(UNDISTURBED).await;
    }
    while failure.is_none() && iterations.len() < plan.restarts {
        let iteration = restart(gateway, &plan.subject, iterations.len() + 1, plan.limits).await;
        told(&iteration);
        failure = iteration.failure_code;
        iterations.push(iteration);
    }
    let load = match load {
        Some(load) => {
            sleep(UNDISTURBED).await;
            load.finish().await
        }
        None => None,
    };
    let end = match running.take() {
        Some(gateway) => gateway.stop().await,
        None => MeasuredEnd {
            status: None,
            clean: true,
            tail: Vec::new(),
        },
    };
    let failure = failure.or(match end.clean {
        // Many end by the signal that asks them to.
        true if end.code() == Some(0) || !plan.subject.speaks() => None,
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
        load,
        child_exit_code: end.code(),
        child_signal: end.signal(),
        output_tail: end.tail,
    })
}

/// Waits until it is there: both probes good, and the line that says ready.
async fn begin(
    gateway: &mut MeasuredServer,
    subject: &Subject<'_>,
    limits: BenchLimits,
) -> (SampleStart, Option<BenchFailure>) {
    let mut start = SampleStart::default();
    let mut traces = TraceFigures::default();
    let (began, listen, ended) = (gateway.began(), gateway.listen(), gateway.ended());
    let deadline = began + limits.timeout;
    // Any good answer will do: nothing was there before.
    let (_ready, is_ready) = watch::channel(Some(began));
    let stop = CancellationToken::new();
    let probe = |path| {
        let (ready, stop) = (is_ready.clone(), stop.clone());
        until_back(&listen, path, Duration::ZERO, began, ready, stop)
    };
    let probes = async { tokio::join!(probe(subject.alive()), probe(subject.ready())) };
    let mut probes = std::pin::pin!(probes);
    let mut results = None;
    let is_silent =
        |start: &SampleStart| subject.speaks() && start.initial_gateway_ready_log_ms.is_none();
    while results.is_none() || is_silent(&start) {
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
    } else if is_silent(&start) {
        Some(BenchFailure::InitialReadyLogTimeout)
    } else {
        None
    };
    (start, failure)
}
