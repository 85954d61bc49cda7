//! A benchmark as people read it.

use crate::bench::iteration::RestartIteration;
use crate::bench::log_lines::slowest;
use crate::bench::payload::CaseResult;
use crate::bench::sample::RestartSample;
use crate::bench::stats::SummaryStats;
use crate::cli::Ui;
use crate::cli::styled_line::Tone;
use crate::text::human::count;

/// How many steps of a trace are shown of a restart that failed.
const SLOWEST: usize = 10;

/// A restart, as it is measured.
pub fn iteration(iteration: &RestartIteration, of: usize) -> String {
    let ready = match iteration.gateway_ready_log_ms {
        Some(ms) => format!("ready after {ms} ms"),
        None => "not ready".to_owned(),
    };
    let down = match iteration
        .readyz
        .downtime_ms
        .or(iteration.healthz.downtime_ms)
    {
        Some(ms) => format!("down {ms} ms"),
        None => "never down".to_owned(),
    };
    let failed = match iteration.failure_code {
        Some(code) => format!(", failed: {}", code.word()),
        None => String::new(),
    };
    format!("restart {}/{of} {ready}, {down}{failed}", iteration.index)
}

/// A case, and of each life in it that failed why.
pub fn case(ui: &Ui, case: &CaseResult) {
    let summary = &case.summary;
    ui.say(ui.paint(case.name, Tone::Strong));
    let say = |label: &str, text: String| ui.say(ui.labelled(label, &text));
    let restarts: usize = case
        .samples
        .iter()
        .map(|sample| sample.iterations.len())
        .sum();
    let lives = count(case.samples.len() as u64, "run");
    say("restarts", format!("{restarts} in {lives}"));
    let downtime = match &summary.downtime_ms {
        None => "none: every probe was answered".to_owned(),
        Some(stats) => format!("{}, never down in {}", ms(stats), summary.never_down),
    };
    say("downtime", downtime);
    let times = [
        ("ready line", &summary.ready_log_ms),
        ("healthz", &summary.healthz_recovery_ms),
        ("readyz", &summary.readyz_recovery_ms),
        ("trace", &summary.restart_ready_total_ms),
        ("cpu", &summary.cpu_ms),
    ];
    for (label, stats) in times {
        say(label, stats.as_ref().map_or_else(|| "n/a".to_owned(), ms));
    }
    let slope = &summary.resource_slope;
    let each = |stats: &Option<SummaryStats>| {
        stats.map_or_else(|| "n/a".to_owned(), |stats| format!("{:+.3}", stats.avg))
    };
    say(
        "slopes",
        format!(
            "memory {} MiB, descriptors {}, threads {}, processes {} a restart",
            each(&slope.rss_mb_per_restart),
            each(&slope.fd_count_per_restart),
            each(&slope.thread_count_per_restart),
            each(&slope.process_count_per_restart)
        ),
    );
    if let Some(code) = summary.first_failure_code {
        let rate = format!(
            "{:.1} %, first {}",
            summary.failure_rate * 100.0,
            code.word()
        );
        ui.say(ui.paint(&format!("  failures   {rate}"), Tone::Bad));
    }
    case.samples.iter().for_each(|sample| failure(ui, sample));
}

fn ms(stats: &SummaryStats) -> String {
    let SummaryStats {
        avg,
        max,
        min,
        p50,
        p95,
    } = stats;
    let p95 = p95.map_or_else(String::new, |p95| format!(" p95 {p95}"));
    format!("p50 {p50} avg {avg} min {min}{p95} max {max} ms")
}

/// Where a life failed: its last lines, and the slowest steps of its last restart, or of its start.
fn failure(ui: &Ui, sample: &RestartSample) {
    let Some(code) = sample.failure_code else {
        return;
    };
    let last = sample.iterations.last();
    let at = last.map_or_else(
        || "its start".to_owned(),
        |last| format!("restart {}", last.index),
    );
    ui.say(ui.paint(&format!("failed: {} after {at}", code.word()), Tone::Bad));
    let trace = match last {
        Some(last) if !last.restart_trace.is_empty() => &last.restart_trace,
        _ => &sample.start.initial_startup_trace,
    };
    let steps = slowest(trace, SLOWEST);
    ui.say_all(
        "  ",
        steps
            .iter()
            .map(|(step, took)| format!("{took:>10.1} ms  {step}")),
    );
    ui.say_all("  | ", &sample.output_tail);
}
