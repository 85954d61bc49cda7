//! One restart under measure: from the signal until the gateway has said that it is ready and answers.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::failure::{BenchFailure, RestartEvidence};
use super::gateway_process::{GatewayProcess, OutputLine};
use super::log_lines::{Told, TraceFigures};
use super::probe::{ProbeResult, until_back};
use super::resources::ResourceSnapshot;
use super::stats::{tenths, thousandths};
use crate::state::restart_intent::{self, Intent};

/// The last step of a trace.
const TRACE_END: &str = "restart.ready.total";

/// The trace of a restart ends right after the line that says ready.
const TRACE_PATIENCE: Duration = Duration::from_secs(2);

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct BenchLimits {
    /// The start, and each restart.
    pub timeout: Duration,
    /// Between ready and the last snapshot of a restart.
    pub post_ready_delay: Duration,
}

/// One restart, in milliseconds since the signal.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RestartIteration {
    /// Counts from 1.
    pub index: usize,
    /// What failed first; null where nothing did.
    pub failure_code: Option<BenchFailure>,
    /// When the signal was sent, since the start of the sample.
    pub signal_sent_ms: Option<f64>,
    /// When it said that it is ready.
    pub gateway_ready_log_ms: Option<f64>,
    pub gateway_ready_log_line: Option<String>,
    /// When it said that it listens; null where it never stopped to.
    pub http_listen_log_ms: Option<f64>,
    pub http_listen_log_line: Option<String>,
    pub healthz: ProbeResult,
    pub readyz: ProbeResult,
    /// Processor time of all its processes from the signal until ready.
    pub cpu_ms: Option<f64>,
    /// The same as a part of one core.
    pub cpu_core_ratio: Option<f64>,
    /// Before the restart, when it was ready, and when it had settled.
    pub resource_snapshots: Vec<ResourceSnapshot>,
    /// The steps of the restart, each with its time, and NAME.total since the signal.
    pub restart_trace: BTreeMap<String, f64>,
    /// The steps of the start of a fresh process, if one was started.
    pub startup_trace: BTreeMap<String, f64>,
}

/// What the lines said since the signal.
#[derive(Debug, Default)]
struct RestartHeard {
    begun: bool,
    ready: Option<OutputLine>,
    listening: Option<OutputLine>,
    traces: TraceFigures,
}

impl RestartHeard {
    fn add(&mut self, line: OutputLine) {
        self.traces.add(&line.text);
        match Told::by(&line.text) {
            Told::Restarting => self.begun = true,
            Told::Ready if self.ready.is_none() => self.ready = Some(line),
            Told::Listening if self.listening.is_none() => self.listening = Some(line),
            Told::Ready | Told::Listening | Told::Other => {}
        }
    }

    fn is_traced(&self) -> bool {
        self.traces.restart.contains_key(TRACE_END)
    }
}

/// Restarts the gateway once.
pub async fn restart(
    gateway: &mut GatewayProcess,
    index: usize,
    limits: BenchLimits,
) -> RestartIteration {
    let (pid, start) = (gateway.pid(), gateway.began());
    let since_start = |at: Instant| (at - start).as_secs_f64() * 1000.0;
    let snapshot = |phase| ResourceSnapshot::take(pid, phase, since_start(Instant::now()));
    let before = snapshot("before");
    // What it said before the signal is not about this restart.
    while gateway.line_now().is_some() {}
    let began = Instant::now();
    let sent = ask(gateway);
    let mut seen = RestartSeen::default();
    if sent.is_ok() {
        seen = watch_it(gateway, began, limits.timeout).await;
    }
    let took = began.elapsed().as_secs_f64() * 1000.0;
    let ready = snapshot("ready");
    let settled_at = Instant::now() + limits.post_ready_delay;
    loop {
        tokio::select! {
            line = gateway.line() => seen.heard.add(line),
            () = sleep_until(settled_at) => break,
        }
    }
    let settled = snapshot("settled");
    let cpu_ms = ready
        .cpu_ms
        .zip(before.cpu_ms)
        .map(|(now, then)| now.saturating_sub(then) as f64);
    let failure_code = match sent {
        Err(()) => Some(BenchFailure::RestartSignalFailed),
        Ok(()) => seen.evidence().failure(),
    };
    let since = |line: &OutputLine| tenths((line.at - began).as_secs_f64() * 1000.0);
    let heard = seen.heard;
    RestartIteration {
        index,
        failure_code,
        signal_sent_ms: sent.is_ok().then(|| tenths(since_start(began))),
        gateway_ready_log_ms: heard.ready.as_ref().map(since),
        gateway_ready_log_line: heard.ready.map(|line| line.text),
        http_listen_log_ms: heard.listening.as_ref().map(since),
        http_listen_log_line: heard.listening.map(|line| line.text),
        healthz: seen.healthz,
        readyz: seen.readyz,
        cpu_ms,
        cpu_core_ratio: cpu_ms.map(|cpu| thousandths(cpu / took)),
        resource_snapshots: vec![before, ready, settled],
        restart_trace: heard.traces.restart,
        startup_trace: heard.traces.startup,
    }
}

/// Announces the restart and sends the signal.
fn ask(gateway: &GatewayProcess) -> Result<(), ()> {
    let intent = Intent {
        pid: gateway.pid(),
        created_at_ms: Timestamp::now()
            .as_millisecond()
            .try_into()
            .unwrap_or_default(),
        reason: "benchmark".to_owned(),
        force: false,
        wait_ms: None,
    };
    restart_intent::write(&gateway.home().state(), &intent).map_err(drop)?;
    gateway.signal(Signal::SIGUSR1).map_err(drop)
}

/// What was seen of a restart.
#[derive(Debug, Default)]
struct RestartSeen {
    heard: RestartHeard,
    healthz: ProbeResult,
    readyz: ProbeResult,
    exited: bool,
}

impl RestartSeen {
    fn evidence(&self) -> RestartEvidence {
        let ready_line = self.heard.ready.is_some();
        // Without a ready line there is no probe after it: then the last answer counts.
        let good = |probe: &ProbeResult| match ready_line {
            true => probe.ms.is_some(),
            false => probe.status == Some(200),
        };
        RestartEvidence {
            child_exited: self.exited,
            healthz_good: good(&self.healthz),
            readyz_good: good(&self.readyz),
            begun: self.heard.begun,
            ready_line,
            trace: self.heard.is_traced(),
        }
    }
}

async fn watch_it(gateway: &mut GatewayProcess, began: Instant, limit: Duration) -> RestartSeen {
    let mut seen = RestartSeen::default();
    let (deadline, listen, ended) = (began + limit, gateway.listen(), gateway.ended());
    let (ready, is_ready) = watch::channel(None);
    let stop = CancellationToken::new();
    let probe = |path| until_back(&listen, path, began, is_ready.clone(), stop.clone());
    let probes = async { tokio::join!(probe("/healthz"), probe("/readyz")) };
    let mut probes = std::pin::pin!(probes);
    let mut results = None;
    let mut trace_due = deadline;
    while results.is_none() || !seen.heard.is_traced() {
        tokio::select! {
            back = &mut probes, if results.is_none() => {
                results = Some(back);
                if seen.heard.ready.is_some() {
                    trace_due = deadline.min(Instant::now() + TRACE_PATIENCE);
                }
            }
            line = gateway.line() => {
                seen.heard.add(line);
                ready.send_replace(seen.heard.ready.as_ref().map(|line| line.at));
            }
            () = ended.wait() => {
                seen.exited = true;
                break;
            }
            () = sleep_until(trace_due) => break,
        }
    }
    stop.cancel();
    (seen.healthz, seen.readyz) = match results {
        Some(results) => results,
        None => probes.await,
    };
    seen
}
