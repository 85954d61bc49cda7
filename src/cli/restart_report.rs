//! What a restart or reload did: the answer with `--json`, and the lines for people.

use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::downtime_probe::Downtime;
use super::drain_text::draining;
use super::restart_over_control::Done;
use super::ui::Tone;
use crate::control::protocol::{DrainStatus, GenerationInfo, Method, Outcome, Status};
use crate::state::terms::RequestOutcome;
use crate::text::human::span;

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
pub struct RestartAnswer<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    /// The instance.
    instance: &'a str,
    #[serde(flatten)]
    outcome: &'a Outcome,
    /// What a client saw meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    probe: Option<&'a Downtime>,
}

/// Prints what `method`, asked of the gateway of `before`, did.
pub fn report(ctx: &Context, method: &Method, before: &Status, change: &Done) {
    let Done { outcome, seen, now } = change;
    ctx.ui.object(&RestartAnswer {
        ok: true,
        instance: &before.instance,
        outcome,
        probe: seen.as_ref(),
    });
    let drainers = now.as_ref().map_or(&[][..], |now| &now.drainers);
    for line in verdict(ctx, method, before.pid, outcome, seen.as_ref(), drainers) {
        ctx.ui.say(&line);
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
) -> Vec<String> {
    let done = if matches!(method, Method::Reload) {
        "reloaded"
    } else {
        "restarted"
    };
    // The number of a generation alone says less than the process that serves it.
    let process = outcome
        .pid
        .filter(|after| *after != pid)
        .map_or(String::new(), |after| format!("pid {pid} -> {after}, "));
    let head = match (outcome.outcome, &outcome.into) {
        (RequestOutcome::Unchanged, _) => format!(
            "nothing to do: generation {} serves on",
            outcome.after.number
        ),
        (RequestOutcome::Scheduled, _) => {
            "scheduled: it ends when its work is done, and its supervisor starts the next"
                .to_owned()
        }
        (RequestOutcome::Coalesced, Some(into)) => format!(
            "joined restart {into}, which was under way: {process}generation {}",
            numbers(outcome)
        ),
        _ => format!(
            "{done}: {process}generation {} in {}",
            numbers(outcome),
            span(outcome.took_ms)
        ),
    };
    let mut lines = vec![ctx.ui.paint(&head, Tone::Good)];
    if matches!(
        outcome.outcome,
        RequestOutcome::Unchanged | RequestOutcome::Scheduled
    ) {
        return lines;
    }
    let width = outcome
        .after
        .sidecars
        .iter()
        .chain(&outcome.before.sidecars)
        .map(|(name, _)| name.len())
        .max()
        .unwrap_or(0);
    for name in names(&outcome.before, &outcome.after) {
        lines.push(format!(
            "  {name:<width$}  {}",
            pids(pid_in(&outcome.before, name), pid_in(&outcome.after, name))
        ));
    }
    if let Some(seen) = seen.filter(|seen| seen.sent > 0) {
        let tone = if seen.failed == 0 {
            Tone::Good
        } else {
            Tone::Bad
        };
        lines.push(format!("  {}", ctx.ui.paint(&seen.sentence(), tone)));
    } else {
        lines.push("  downtime unknown: the front door did not answer the probe before".to_owned());
    }
    for drainer in drainers
        .iter()
        .filter(|drainer| drainer.requests + drainer.tunnels + drainer.leases > 0)
    {
        lines.push(format!("  still finishing: {}", draining(drainer)));
    }
    lines.extend(
        outcome
            .notes
            .iter()
            .map(|note| format!("  note: {}", crate::text::log::escape(note))),
    );
    lines
}

fn numbers(outcome: &Outcome) -> String {
    match outcome.before.number == outcome.after.number {
        true => outcome.after.number.to_string(),
        false => format!("{} -> {}", outcome.before.number, outcome.after.number),
    }
}

fn names<'a>(before: &'a GenerationInfo, after: &'a GenerationInfo) -> Vec<&'a str> {
    let mut names: Vec<&str> = before
        .sidecars
        .iter()
        .chain(&after.sidecars)
        .map(|(name, _)| name.as_str())
        .collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The process id of a sidecar; none when it is not part of that generation, 0 when it does not
/// run.
fn pid_in(generation: &GenerationInfo, name: &str) -> Option<u32> {
    generation
        .sidecars
        .iter()
        .find(|(known, _)| known == name)
        .map(|(_, pid)| *pid)
}

fn pids(before: Option<u32>, after: Option<u32>) -> String {
    let shown = |pid: u32| {
        if pid == 0 {
            "none".to_owned()
        } else {
            pid.to_string()
        }
    };
    match (before, after) {
        (Some(before), Some(after)) if before == after => format!("pid {} (kept)", shown(after)),
        (Some(before), Some(after)) => format!("pid {} -> {}", shown(before), shown(after)),
        (None, Some(after)) => format!("pid {} (new)", shown(after)),
        (Some(before), None) => format!("pid {} (removed)", shown(before)),
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Ui;
    use crate::cli::args::{Color, Global};
    use crate::control::fake_gateway;
    use crate::control::protocol::RestartParams;

    #[test]
    fn the_verdict_says_what_a_user_asks() {
        let ctx = Context {
            ui: Ui::new(&Global {
                color: Color::Never,
                ..Global::default()
            }),
            global: Global::default(),
        };
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
            pid: 0,
            left_ms: None,
            blockers: Vec::new(),
        };
        let idle = DrainStatus {
            requests: 0,
            ..drainer.clone()
        };
        let lines = verdict(
            &ctx,
            &Method::Restart(RestartParams::default()),
            12,
            &outcome,
            Some(&seen),
            &[idle, drainer],
        );
        assert_eq!(
            lines,
            [
                "restarted: generation 3 -> 4 in 412 ms",
                "  main  pid 100 -> 200",
                "  downtime 0 ms: 38 probes, none failed, slowest answer 2 ms",
                "  still finishing: generation 3: 1 request, 0 tunnels; without limit",
                "  note: two copies of main ran side by side",
            ]
        );
        outcome.pid = Some(34);
        let lines = verdict(
            &ctx,
            &Method::Restart(RestartParams::default()),
            12,
            &outcome,
            None,
            &[],
        );
        assert_eq!(
            lines[0],
            "restarted: pid 12 -> 34, generation 3 -> 4 in 412 ms"
        );
        assert_eq!(
            (
                pids(Some(0), Some(5)),
                pids(None, Some(5)),
                pids(Some(5), Some(5))
            ),
            (
                "pid none -> 5".into(),
                "pid 5 (new)".into(),
                "pid 5 (kept)".into()
            )
        );
    }
}
