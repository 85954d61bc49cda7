//! One restart under measure: from the signal until the gateway has said that it is ready and answers.

use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::failure::{BenchFailure, RestartEvidence};
use super::log_lines::{Told, TraceFigures};
use super::measured::{MeasuredServer, OutputLine};
use super::probe::{ProbeResult, until_back};
use super::resources::ResourceSnapshot;
use super::stats::{tenths, thousandths};
use super::subject::Subject;

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
    /// Why it could not be asked to restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure_detail: Option<String>,
    /// When the signal was sent, since the start of the sample.
    pub signal_sent_ms: Option<f64>,
    /// When it said that it is ready; null of a server that is no gateway.
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
    gateway: &mut MeasuredServer,
    subject: &Subject<'_>,
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
    let mut seen = watch_it(gateway, subject, began, limits.timeout).await;
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
    let failure_code = match &seen.refused {
        Some(_) => Some(BenchFailure::RestartSignalFailed),
        None => seen.evidence(subject.speaks()).failure(),
    };
    let since = |line: &OutputLine| tenths((line.at - began).as_secs_f64() * 1000.0);
    let heard = seen.heard;
    RestartIteration {
        index,
        failure_code,
        signal_sent_ms: seen.refused.is_none().then(|| tenths(since_start(began))),
        failure_detail: seen.refused,
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

/// What was seen of a restart.
#[derive(Debug, Default)]
struct RestartSeen {
    heard: RestartHeard,
    healthz: ProbeResult,
    readyz: ProbeResult,
    exited: bool,
    /// Why it could not be asked.
    refused: Option<String>,
    /// Whether who asked it is done.
    asked: bool,
}

impl RestartSeen {
    /// Of a server that says when it is ready, or of one of which only the answers are known.
    fn evidence(&self, speaks: bool) -> RestartEvidence {
        let ready_line = match speaks {
            true => self.heard.ready.is_some(),
            false => self.asked,
        };
        // Without a ready line there is no probe after it: then the last answer counts.
        let good = |probe: &ProbeResult| match ready_line {
            true => probe.ms.is_some(),
            false => probe.status == Some(200),
        };
        RestartEvidence {
            child_exited: self.exited,
            healthz_good: good(&self.healthz),
            readyz_good: good(&self.readyz),
            begun: self.heard.begun || !speaks,
            ready_line,
            trace: self.heard.is_traced() || !speaks,
        }
    }
}

async fn watch_it(
    server: &mut MeasuredServer,
    subject: &Subject<'_>,
    began: Instant,
    limit: Duration,
) -> RestartSeen {
    let (mut seen, speaks) = (RestartSeen::default(), subject.speaks());
    let (deadline, listen, ended) = (began + limit, server.listen(), server.ended());
    let (ready, is_ready) = watch::channel(None);
    let stop = CancellationToken::new();
    let probe = |path| {
        let (ready, stop) = (is_ready.clone(), stop.clone());
        until_back(&listen, path, subject.quiet(), began, ready, stop)
    };
    let probes = async { tokio::join!(probe(subject.alive()), probe(subject.ready())) };
    let mut probes = std::pin::pin!(probes);
    let mut asking = std::pin::pin!(subject.restart(server.handle(), limit));
    let mut results = None;
    let mut trace_due = deadline;
    while results.is_none() || (speaks && !seen.heard.is_traced()) {
        tokio::select! {
            asked = &mut asking, if !seen.asked => {
                seen.asked = true;
                if let Err(why) = asked {
                    seen.refused = Some(why);
                    break;
                }
                if !speaks {
                    ready.send_replace(Some(Instant::now()));
                }
            }
            back = &mut probes, if results.is_none() => {
                results = Some(back);
                if seen.heard.ready.is_some() {
                    trace_due = deadline.min(Instant::now() + TRACE_PATIENCE);
                }
            }
            line = server.line() => {
                seen.heard.add(line);
                if let Some(line) = &seen.heard.ready && speaks {
                    ready.send_replace(Some(line.at));
                }
            }
            // Another server may be replaced by a process that is none of its own.
            () = ended.wait(), if speaks => {
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
