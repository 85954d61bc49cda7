//! A benchmark as people read it.

use crate::bench::iteration::RestartIteration;
use crate::bench::load_report::{LoadPart, LoadReport};
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
    let ready = match (iteration.gateway_ready_log_ms, iteration.readyz.ms) {
        (Some(ms), _) => format!("ready after {ms} ms"),
        (None, Some(ms)) => format!("back after {ms} ms"),
        (None, None) => "not back".to_owned(),
    };
    let down = match iteration
        .readyz
        .downtime_ms
        .or(iteration.healthz.downtime_ms)
    {
        Some(ms) => format!("down {ms} ms"),
        None => "never down".to_owned(),
    };
    let failed = match (iteration.failure_code, &iteration.failure_detail) {
        (Some(code), Some(why)) => format!(", failed: {}: {why}", code.word()),
        (Some(code), None) => format!(", failed: {}", code.word()),
        (None, _) => String::new(),
    };
    format!("restart {}/{of} {ready}, {down}{failed}", iteration.index)
}

/// A case, and of each life in it that failed why.
pub fn case(ui: &Ui, case: &CaseResult) {
    let summary = &case.summary;
    ui.say(ui.paint(&case.name, Tone::Strong));
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
        if let Some(stats) = stats {
            say(label, ms(stats));
        }
    }
    for load in case
        .samples
        .iter()
        .filter_map(|sample| sample.load.as_ref())
    {
        clients(ui, load);
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

/// What clients saw of a life.
fn clients(ui: &Ui, load: &LoadReport) {
    let parts = [("new", Some(&load.new)), ("kept", load.kept.as_ref())];
    for (label, part) in parts {
        let lines = part.map(|part| [requests(part), latencies(part)]);
        for line in lines
            .iter()
            .flat_map(|lines| ui.labelled_list(label, lines))
        {
            ui.say(line);
        }
    }
}

fn requests(part: &LoadPart) -> String {
    let kinds = [
        (part.refused, "refused"),
        (part.reset, "reset"),
        (part.cut, "cut"),
        (part.truncated, "truncated"),
        (part.timed_out, "timed out"),
        (part.non_200, "not 200"),
        (part.other, "other"),
    ];
    let kinds = kinds.into_iter().filter(|(times, _)| *times > 0);
    let kinds: Vec<String> = kinds
        .map(|(times, kind)| format!("{times} {kind}"))
        .collect();
    let failed = match kinds.is_empty() {
        true => "none failed".to_owned(),
        false => format!("{} failed ({})", part.failed, kinds.join(", ")),
    };
    let idle = match part.closed_idle {
        0 => String::new(),
        closed => format!(", {closed} idle connections closed"),
    };
    format!("{} requests, {failed}{idle}", part.sent)
}

fn latencies(part: &LoadPart) -> String {
    let at = |ms: Option<f64>| ms.map_or_else(|| "n/a".to_owned(), |ms| format!("{ms:.1}"));
    format!(
        "p50 {} p90 {} p99 {} p99.9 {} max {} ms, longest gap {:.1} ms, sent late by {:.1} ms at most",
        at(part.p50_ms),
        at(part.p90_ms),
        at(part.p99_ms),
        at(part.p999_ms),
        at(part.max_ms),
        part.longest_gap_ms,
        part.late_ms
    )
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
