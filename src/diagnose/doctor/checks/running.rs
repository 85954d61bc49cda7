//! The running gateway, as it reports itself.

use crate::control::protocol::{RecoveryRung, RecoveryStatus, SidecarStateName, Stage};
use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Level, Problem, command};

/// In percent of the limit: above it, a burst of clients reaches the limit.
const FDS_MOST: u64 = 80;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "safe-mode",
        level: Level::Error,
        title: "the gateway is in safe mode",
        why: "The sidecars are off because several starts in quick succession failed; clients get \
               503.",
        cure: "Correct the cause, then run gatewayctl recover. The gateway tries again every 10 \
               minutes.",
        fixable: false,
        judge: safe_mode,
    },
    Check {
        code: "last-good",
        level: Level::Error,
        title: "the gateway uses the last good configuration",
        why: "The configuration on disk was invalid when the gateway started; changes made since \
               then are not in effect.",
        cure: "gatewayctl config check shows what is wrong; gatewayctl reload applies the corrected \
               file.",
        fixable: false,
        judge: last_good,
    },
    Check {
        code: "throttled",
        level: Level::Warning,
        title: "the gateway is waiting before it starts its sidecars",
        why: "Several starts in quick succession ended unplanned; until the next try, clients get \
               503.",
        cure: "gatewayctl recover tries now; gatewayctl why names the cause.",
        fixable: false,
        judge: throttled,
    },
    Check {
        code: "sidecar-down",
        level: Level::Error,
        title: "a sidecar is down",
        why: "Requests to it are held for a while, then answered with 503.",
        cure: "gatewayctl logs --sidecar NAME shows its output.",
        fixable: false,
        judge: sidecar_down,
    },
    Check {
        code: "standing-by",
        level: Level::Warning,
        title: "another gateway serves instead of this one",
        why: "This gateway started while another process of the same instance owned the address. \
               It takes over when that process ends.",
        cure: "Stop the other process.",
        fixable: false,
        judge: standing_by,
    },
    Check {
        code: "fd-usage",
        level: Level::Warning,
        title: "the gateway is close to its limit of open files",
        why: "At the limit it accepts no clients and opens no connections to sidecars.",
        cure: "Raise the hard limit of LimitNOFILE=, or lower [limits] connections.",
        fixable: false,
        judge: descriptors,
    },
];

fn rung(facts: &DoctorFacts, name: RecoveryRung) -> Option<&RecoveryStatus> {
    facts
        .status
        .as_ref()?
        .recovery
        .as_ref()
        .filter(|recovery| recovery.rung == name)
}

fn process(facts: &DoctorFacts) -> String {
    facts
        .status
        .as_ref()
        .map_or(String::new(), |status| format!("pid {}", status.pid))
}

fn safe_mode(facts: &DoctorFacts) -> Option<Problem> {
    let recovery = rung(facts, RecoveryRung::SafeMode)?;
    Problem::at(
        process(facts),
        &recovery.reason,
        command(format!(
            "gatewayctl recover{}   (first correct the cause)",
            facts.flags
        )),
    )
}

fn last_good(facts: &DoctorFacts) -> Option<Problem> {
    let recovery = rung(facts, RecoveryRung::LastGood)?;
    let next = command(format!(
        "gatewayctl config check --config {}",
        facts.config.path.display()
    ));
    Problem::at(
        facts.config.path.display(),
        recovery.reason.lines().next().unwrap_or_default(),
        next,
    )
}

fn throttled(facts: &DoctorFacts) -> Option<Problem> {
    let recovery = rung(facts, RecoveryRung::Throttled)?;
    Problem::at(
        process(facts),
        &recovery.reason,
        command(format!(
            "gatewayctl recover{}   (first correct the cause)",
            facts.flags
        )),
    )
}

fn sidecar_down(facts: &DoctorFacts) -> Option<Problem> {
    let status = facts
        .status
        .as_ref()
        .filter(|status| status.recovery.is_none())?;
    // During a start or a restart a sidecar is not ready yet.
    let settled = matches!(status.stage, Stage::Degraded | Stage::Failed);
    let down = status.sidecars.iter().find(|sidecar| {
        settled
            && !matches!(
                sidecar.state,
                SidecarStateName::Ready | SidecarStateName::Stopping
            )
    })?;
    let cause = down
        .cause
        .clone()
        .unwrap_or_else(|| format!("{}: {}", down.name, down.state));
    let next = command(format!(
        "gatewayctl logs --sidecar {}{}",
        down.name, facts.flags
    ));
    let mut lines = cause.lines();
    let found = Problem::at(
        format!("[sidecar.{}]", down.name),
        lines.next().unwrap_or_default(),
        next,
    )?;
    Some(found.with(lines.map(str::to_owned).collect()))
}

fn standing_by(facts: &DoctorFacts) -> Option<Problem> {
    let told = facts
        .status
        .as_ref()
        .filter(|status| status.stage == Stage::StandingBy)
        .map(|status| (process(facts), status.detail.clone()));
    // The control socket may belong to the gateway that serves.
    let said = facts.unit.as_ref().and_then(|unit| {
        Some((
            unit.installed.unit.clone(),
            unit.properties.as_ref()?.stands_by_text()?,
        ))
    });
    let (place, detail) = told.or(said)?;
    Problem::at(
        place,
        detail,
        command(format!("gatewayctl status{}", facts.flags)),
    )
}

fn descriptors(facts: &DoctorFacts) -> Option<Problem> {
    let process = facts.process.as_ref()?;
    let (used, limit) = process
        .descriptors
        .filter(|(used, limit)| used * 100 >= limit * FDS_MOST)?;
    let next = match &facts.unit {
        Some(unit) => unit.set("LimitNOFILE=1024:524288"),
        None => "ulimit -Hn   (in the shell that starts the gateway)".to_owned(),
    };
    Problem::at(
        format!("pid {}", process.pid),
        format!("{used} of {limit} descriptors are in use"),
        command(next),
    )
}
