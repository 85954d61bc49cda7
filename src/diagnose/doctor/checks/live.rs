//! What the running gateway says of itself.

use super::super::facts::Facts;
use super::super::finding::{Check, Level, Seen, command};
use crate::control::protocol::{RecoveryStatus, Stage};

/// Of its descriptors, in percent: beyond it a burst of clients reaches the limit.
const FDS_MOST: u64 = 80;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "safe-mode",
        level: Level::Error,
        what: "it is in safe mode",
        why: "The servers are off, because starts in quick succession ended badly; clients get 503.",
        cure: "Mend the cause, then gatewayctl recover. It tries by itself every 10 minutes.",
        mends: false,
        judge: safe_mode,
    },
    Check {
        code: "last-good",
        level: Level::Error,
        what: "it serves with the last good configuration",
        why: "The one on disk was not valid when it started; changes made since are not in effect.",
        cure: "gatewayctl config check says what is wrong, gatewayctl reload applies what was mended.",
        mends: false,
        judge: last_good,
    },
    Check {
        code: "throttled",
        level: Level::Warning,
        what: "it waits before it starts its servers",
        why: "Several starts in quick succession ended unplanned; the front door answers 503 meanwhile.",
        cure: "gatewayctl recover tries at once; gatewayctl why names the cause.",
        mends: false,
        judge: throttled,
    },
    Check {
        code: "sidecar-down",
        level: Level::Error,
        what: "a server behind it is down",
        why: "Requests to it are held for a while, then answered 503.",
        cure: "gatewayctl logs --sidecar NAME shows what it said.",
        mends: false,
        judge: sidecar_down,
    },
    Check {
        code: "standing-by",
        level: Level::Warning,
        what: "another gateway serves in its place",
        why: "It was started while another process of the same name owned the address, and takes over when that one ends.",
        cure: "Stop the other one.",
        mends: false,
        judge: standing_by,
    },
    Check {
        code: "fd-usage",
        level: Level::Warning,
        what: "it is close to its limit of open files",
        why: "At the limit it accepts no client and opens no connection to a server.",
        cure: "Raise the hard limit of LimitNOFILE=, or lower [limits] connections.",
        mends: false,
        judge: fds,
    },
];

fn rung<'a>(facts: &'a Facts, name: &str) -> Option<&'a RecoveryStatus> {
    facts
        .live
        .as_ref()?
        .recovery
        .as_ref()
        .filter(|recovery| recovery.rung == name)
}

fn process(facts: &Facts) -> String {
    facts
        .live
        .as_ref()
        .map_or(String::new(), |live| format!("pid {}", live.pid))
}

fn safe_mode(facts: &Facts) -> Option<Seen> {
    let recovery = rung(facts, "safe_mode")?;
    Seen::at(
        process(facts),
        &recovery.reason,
        command(format!(
            "gatewayctl recover{}   (when the cause is mended)",
            facts.flags
        )),
    )
}

fn last_good(facts: &Facts) -> Option<Seen> {
    let recovery = rung(facts, "last_good")?;
    let next = command(format!(
        "gatewayctl config check --config {}",
        facts.config.path.display()
    ));
    Seen::at(
        facts.config.path.display(),
        recovery.reason.lines().next().unwrap_or_default(),
        next,
    )
}

fn throttled(facts: &Facts) -> Option<Seen> {
    let recovery = rung(facts, "throttled")?;
    Seen::at(
        process(facts),
        &recovery.reason,
        command(format!(
            "gatewayctl recover{}   (when the cause is mended)",
            facts.flags
        )),
    )
}

fn sidecar_down(facts: &Facts) -> Option<Seen> {
    let live = facts.live.as_ref().filter(|live| live.recovery.is_none())?;
    // At a start and in a restart a sidecar may rightly not be ready.
    let settled = matches!(live.stage, Stage::Degraded | Stage::Failed);
    let down = live
        .sidecars
        .iter()
        .find(|sidecar| settled && !matches!(sidecar.state.as_str(), "ready" | "stopping"))?;
    let cause = down
        .cause
        .clone()
        .unwrap_or_else(|| format!("{}: {}", down.name, down.state));
    let next = command(format!(
        "gatewayctl logs --sidecar {}{}",
        down.name, facts.flags
    ));
    let mut lines = cause.lines();
    let found = Seen::at(
        format!("[sidecar.{}]", down.name),
        lines.next().unwrap_or_default(),
        next,
    )?;
    Some(found.with(lines.map(str::to_owned).collect()))
}

fn standing_by(facts: &Facts) -> Option<Seen> {
    let told = facts
        .live
        .as_ref()
        .filter(|live| live.stage == Stage::StandingBy)
        .map(|live| (process(facts), live.detail.clone()));
    // The control socket may be that of the one that serves.
    let said = facts.unit.as_ref().and_then(|unit| {
        Some((
            unit.installed.unit.clone(),
            unit.says.as_ref()?.status.clone(),
        ))
    });
    let (place, detail) =
        told.or_else(|| said.filter(|(_, status)| status.starts_with("standing by")))?;
    Seen::at(
        place,
        detail,
        command(format!("gatewayctl status{}", facts.flags)),
    )
}

fn fds(facts: &Facts) -> Option<Seen> {
    let process = facts.process.as_ref()?;
    let (used, limit) = process
        .fds
        .filter(|(used, limit)| used * 100 >= limit * FDS_MOST)?;
    let next = match &facts.unit {
        Some(unit) => unit.set("LimitNOFILE=1024:524288"),
        None => "ulimit -Hn   (in the shell that starts it)".to_owned(),
    };
    Seen::at(
        format!("pid {}", process.pid),
        format!("{used} of {limit} descriptors are in use"),
        command(next),
    )
}
