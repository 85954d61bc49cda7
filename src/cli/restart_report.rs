//! What a restart or reload did: the answer with `--json`, and the lines for people.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;

use super::downtime_probe::Downtime;
use super::restart_over_control::CompletedChange;
use super::styled_line::Tone;
use super::{Context, Ui};
use crate::cli::styled_line::StyledLine;
use crate::control::protocol::{DrainStatus, GenerationInfo, Method, Outcome, Status};
use crate::state::clients_seen::ClientsSeen;
use crate::state::passage::{Passage, PassageEnd};
use crate::state::terms::RequestOutcome;
use crate::text::human::{count, mebibytes, padded, span};

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
pub struct RestartAnswer<'a> {
    /// Whether the gateway failed no client meanwhile, but by `--force`, and none of the requests that it
    /// sent itself afterwards (`passages`); an error has its own object.
    ok: bool,
    /// The instance.
    instance: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
    /// What a client saw during the restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Downtime>,
}

/// Prints what `method`, asked of the gateway of `before`, did.
pub fn report(ctx: &Context, method: &Method, before: &Status, change: &CompletedChange) {
    let CompletedChange { outcome, seen, now } = change;
    ctx.ui.object(&RestartAnswer {
        ok: !failed(method, outcome),
        instance: &before.instance,
        outcome,
        probe: seen.as_ref(),
    });
    let drainers = now.as_ref().map_or(&[][..], |now| &now.drainers);
    for line in verdict(ctx, method, before.pid, outcome, seen.as_ref(), drainers) {
        ctx.ui.say(line);
    }
}

/// Whether it was done, and is a failure all the same: clients failed because of it, though nobody
/// wanted that, or would get no answer now.
pub fn failed(method: &Method, outcome: &Outcome) -> bool {
    outcome.passages.iter().any(Passage::failed) || failed_clients(method, outcome)
}

fn failed_clients(method: &Method, outcome: &Outcome) -> bool {
    let forced = match method {
        Method::Restart(params) => params.force,
        Method::RestartSidecar(params) => params.force,
        _ => false,
    };
    let clients = outcome.clients.as_ref();
    clients.is_some_and(|seen| seen.failures() > 0) && !forced
}

/// Good, or bad if it is that.
fn tone(bad: bool) -> Tone {
    match bad {
        true => Tone::Bad,
        false => Tone::Good,
    }
}

/// The lines for people.
pub fn verdict(
    ctx: &Context,
    method: &Method,
    pid: u32,
    outcome: &Outcome,
    seen: Option<&Downtime>,
    drainers: &[DrainStatus],
) -> Vec<StyledLine> {
    let headline = headline(method, pid, outcome);
    let mut lines = vec![ctx.ui.paint(&headline, tone(failed(method, outcome)))];
    let notes = outcome.notes.iter();
    let notes = notes.map(|note| StyledLine::from(format!("  note: {note}")));
    if matches!(
        outcome.outcome,
        RequestOutcome::Unchanged | RequestOutcome::Scheduled
    ) {
        lines.extend(notes);
        return lines;
    }
    lines.extend(given_up(outcome).map(StyledLine::from));
    lines.extend(
        sidecar_lines(&outcome.before, &outcome.after)
            .into_iter()
            .map(StyledLine::from),
    );
    let clients = outcome.clients.as_ref();
    if let Some(clients) = clients.filter(|seen| **seen != ClientsSeen::default()) {
        let tone = tone(failed_clients(method, outcome));
        let text = ctx.ui.paint(&clients.sentence(), tone);
        lines.push(StyledLine::from("  ").and(text));
    }
    lines.extend(outcome.passages.iter().map(|passage| {
        let tone = match &passage.end {
            PassageEnd::NotAsked { .. } => Tone::Dim,
            PassageEnd::Behind { .. } => Tone::Busy,
            _ => tone(passage.is_bad()),
        };
        let text = ctx.ui.paint(&passage.sentence(), tone);
        StyledLine::from("  ").and(text)
    }));
    lines.push(downtime(
        &ctx.ui,
        seen,
        "the front door did not answer the probe before",
    ));
    let busy = drainers.iter().filter(|drainer| !is_idle(drainer));
    lines.extend(busy.map(|drainer| format!("  still finishing: {}", draining(drainer)).into()));
    lines.extend(notes);
    lines
}

/// Why the number of the new generation does not follow that of the one before: numbers are never
/// used twice.
fn given_up(outcome: &Outcome) -> Option<String> {
    let between = outcome.before.number.saturating_add(1)..outcome.after.number;
    let (first, last) = (between.start, between.end.checked_sub(1)?);
    match last.checked_sub(first)? {
        0 => Some(format!("  generation {first} was given up before")),
        _ => Some(format!(
            "  generations {first} to {last} were given up before"
        )),
    }
}

/// What was done, with the processes and generations before and after.
fn headline(method: &Method, pid: u32, outcome: &Outcome) -> String {
    let done = match method {
        Method::Reload => "reloaded".to_owned(),
        Method::RestartSidecar(params) => format!("{} restarted", params.sidecar),
        _ => "restarted".to_owned(),
    };
    // The number of a generation alone says less than the process that serves it.
    let process = outcome
        .pid
        .filter(|after| *after != pid)
        .map_or(String::new(), |after| format!("pid {pid} -> {after}, "));
    let (before, after) = (outcome.before.number, outcome.after.number);
    let numbers = if before == after {
        after.to_string()
    } else {
        format!("{before} -> {after}")
    };
    match (outcome.outcome, &outcome.into) {
        (RequestOutcome::Unchanged, _) => {
            format!("nothing to do: generation {after} serves on")
        }
        (RequestOutcome::Scheduled, _) => {
            "scheduled: it ends when its work is done, and its supervisor starts the next"
                .to_owned()
        }
        (RequestOutcome::Coalesced, Some(into)) => {
            format!("joined restart {into}, which was under way: {process}generation {numbers}")
        }
        _ => format!(
            "{done}: {process}generation {numbers} in {}",
            span(outcome.took_ms)
        ),
    }
}

/// What clients saw, or why that is not known.
pub fn downtime(ui: &Ui, seen: Option<&Downtime>, unknown: &str) -> StyledLine {
    let Some(seen) = seen.filter(|seen| seen.sent > 0) else {
        return format!("  downtime unknown: {unknown}").into();
    };
    StyledLine::from("  ").and(ui.paint(&seen.sentence(), tone(seen.failed > 0)))
}

/// What an older generation still does.
pub fn draining(drainer: &DrainStatus) -> String {
    let (generation, pid, leases) = (drainer.generation, drainer.pid, drainer.leases);
    let left = match drainer.left_ms {
        Some(left) => format!("the rest is cut in {}", span(left)),
        None => "without limit".to_owned(),
    };
    if pid != 0 && is_idle(drainer) {
        // Another process reports its work only once, to its successor at the hand-over.
        return format!("generation {generation} (pid {pid}): finishes its work; {left}");
    }
    let mut text = format!("generation {generation}");
    if pid != 0 {
        text.push_str(&format!(" (pid {pid})"));
    }
    let requests = count(drainer.requests, "request");
    let tunnels = count(drainer.tunnels, "tunnel");
    text.push_str(&format!(": {requests}, {tunnels}"));
    if leases > 0 {
        text.push_str(&format!(", {}", count(leases, "lease")));
    }
    if let Some(memory) = drainer.memory_bytes {
        text.push_str(&format!(", {}", mebibytes(memory)));
    }
    format!("{text}; {left}")
}

fn is_idle(drainer: &DrainStatus) -> bool {
    [drainer.requests, drainer.tunnels, drainer.leases] == [0; 3]
}

/// A line for each sidecar of either generation, with its process before and after.
fn sidecar_lines(before: &GenerationInfo, after: &GenerationInfo) -> Vec<String> {
    let mut sidecars: BTreeMap<&str, [Option<u32>; 2]> = BTreeMap::new();
    for (side, generation) in [before, after].into_iter().enumerate() {
        for (name, pid) in &generation.sidecars {
            sidecars.entry(name).or_default()[side] = Some(*pid);
        }
    }
    let width = sidecars.keys().map(|name| name.len()).max().unwrap_or(0);
    sidecars
        .iter()
        .map(|(name, pids)| format!("  {}  {}", padded(name, width), pid_change(*pids)))
        .collect()
}

/// None: the sidecar is not part of that generation; 0: it does not run.
fn pid_change(pids: [Option<u32>; 2]) -> String {
    let shown = |pid: u32| match pid {
        0 => "none".to_owned(),
        pid => pid.to_string(),
    };
    match pids {
        [Some(before), Some(after)] if before == after => format!("pid {} (kept)", shown(after)),
        [Some(before), Some(after)] => format!("pid {} -> {}", shown(before), shown(after)),
        [None, Some(after)] => format!("pid {} (new)", shown(after)),
        [Some(before), None] => format!("pid {} (removed)", shown(before)),
        [None, None] => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::fake_gateway;
    use crate::control::protocol::RestartParams;

    #[test]
    fn the_verdict_says_what_a_user_asks() {
        let ctx = Context::plain();
        let restart = Method::Restart(RestartParams::default());
        let mut outcome = fake_gateway::outcome();
        outcome
            .notes
            .push("two copies of main ran side by side".into());
        let seen = Downtime {
            sent: 38,
            slowest_ms: 2,
            ..Downtime::default()
        };
        let drainer = DrainStatus {
            generation: 3,
            requests: 1,
            tunnels: 0,
            leases: 0,
            memory_bytes: None,
            pid: 0,
            left_ms: None,
            blockers: Vec::new(),
        };
        let idle = DrainStatus {
            requests: 0,
            ..drainer.clone()
        };
        assert_eq!(
            verdict(&ctx, &restart, 12, &outcome, Some(&seen), &[idle, drainer]),
            [
                "restarted: generation 3 -> 4 in 412 ms",
                "  main  pid 100 -> 200",
                "  downtime 0 ms: 38 probes, none failed, slowest answer 2 ms",
                "  still finishing: generation 3: 1 request, 0 tunnels; without limit",
                "  note: two copies of main ran side by side",
            ]
        );
        outcome.pid = Some(34);
        assert_eq!(
            verdict(&ctx, &restart, 12, &outcome, None, &[])[0],
            "restarted: pid 12 -> 34, generation 3 -> 4 in 412 ms"
        );
        for (pids, expected) in [
            ([Some(0), Some(5)], "pid none -> 5"),
            ([None, Some(5)], "pid 5 (new)"),
            ([Some(5), Some(5)], "pid 5 (kept)"),
        ] {
            assert_eq!(pid_change(pids), expected);
        }
    }
}
