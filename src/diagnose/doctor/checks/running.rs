//! The running gateway, as it reports itself.

use crate::config::LimitsSection;
use crate::control::protocol::{
    REFUSED_COPIES, RecoveryRung, RecoveryStatus, SidecarStateName, SidecarStatus, Stage, Status,
};
use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Problem, advice, command, lines};
use crate::os::descriptors;
use crate::sidecar::loopback;
use crate::systemd::WaitsFor;
use crate::text::shell;

/// In percent of the limit: above it, a burst of clients reaches the limit.
const FDS_MOST: u64 = 80;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "safe-mode",
        title: "the gateway is in safe mode",
        why: "The sidecars are off because several starts in quick succession failed; clients get \
               503.",
        cure: "Correct the cause, then run gatewayctl recover. The gateway tries again every 10 \
               minutes.",
        judge: |facts| waiting(facts, RecoveryRung::SafeMode),
        ..Check::ERROR
    },
    Check {
        code: "last-good",
        title: "the gateway uses the last good configuration",
        why: "The configuration on disk was invalid when the gateway started; changes made since \
               then are not in effect.",
        cure: "gatewayctl config check shows what is wrong; gatewayctl reload applies the corrected \
               file.",
        judge: |facts| {
            let (_, recovery) = recovering(facts, RecoveryRung::LastGood)?;
            let path = shell::word(&facts.config.path);
            let next = command(format!("gatewayctl config check --config {path}"));
            let message = recovery.reason.lines().next().unwrap_or_default();
            Problem::at(path, message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "throttled",
        title: "the gateway is waiting before it starts its sidecars",
        why: "Several starts in quick succession ended unplanned; until the next try, clients get \
               503.",
        cure: "gatewayctl recover tries now; gatewayctl why names the cause.",
        judge: |facts| waiting(facts, RecoveryRung::Throttled),
        ..Check::WARNING
    },
    Check {
        code: "sidecar-down",
        title: "a sidecar is down",
        why: "Requests to it are held for a while, then answered with 503.",
        cure: "gatewayctl logs --sidecar NAME shows its output.",
        judge: sidecar_down,
        ..Check::ERROR
    },
    Check {
        code: "sidecar-failing",
        title: "a sidecar is up, but died again and again",
        why: "It died five times, each within half an hour of the time before; the next time, \
               clients wait again.",
        cure: "gatewayctl logs --sidecar NAME shows its output. It counts as well again after ten \
               minutes, or after a restart.",
        judge: sidecar_failing,
        ..Check::WARNING
    },
    Check {
        code: "second-copy-refused",
        title: "a server ends when a second copy of it is started",
        why: "During a restart old and new run side by side, and the new copy ended by itself while \
               the old one ran, twice in a row: it may hold a lock, a database or a port that only \
               one can have. No restart succeeds until then.",
        cure: "Set overlap = false for it ([sidecar.NAME]; --exclusive on the command line): requests \
               then wait while it restarts. If the new copy ended for another reason, correct that.",
        judge: second_copy_refused,
        ..Check::WARNING
    },
    Check {
        code: "sidecar-exposed",
        title: "a sidecar is reached past the front door",
        why: "It listens on its private port at more than loopback: who reaches this machine gets its \
               answers without routes, limits and health checks, as a client that it may trust.",
        cure: "Let it listen on 127.0.0.1 alone. Express: app.listen(port, \"127.0.0.1\"); Next: -H \
               127.0.0.1; Vite, uvicorn, Flask: --host 127.0.0.1; gunicorn: -b 127.0.0.1:PORT; Django: \
               runserver 127.0.0.1:PORT; Rails: -b 127.0.0.1; puma: -b tcp://127.0.0.1:PORT; php: -S \
               127.0.0.1:PORT; python -m http.server: --bind 127.0.0.1; .NET: --urls \
               http://127.0.0.1:PORT; Spring: --server.address=127.0.0.1.",
        judge: |facts| {
            let status = facts.status.as_ref()?;
            let mut sidecars = status.sidecars.iter();
            let exposed = sidecars.find(|sidecar| !sidecar.exposed.is_empty())?;
            let SidecarStatus { name, command, .. } = exposed;
            let message = format!("{name} listens on {}", exposed.exposed.join(" and "));
            let next = advice(loopback::switch(command));
            Problem::with(
                vec![command.clone()],
                format!("[sidecar.{name}]"),
                message,
                next,
            )
        },
        ..Check::WARNING
    },
    Check {
        code: "standing-by",
        title: "another gateway serves instead of this one",
        why: "This gateway started while another process of the same instance owned the address. \
               It takes over when that process ends.",
        cure: "Stop the other process.",
        judge: standing_by,
        ..Check::WARNING
    },
    Check {
        code: "fd-usage",
        title: "the gateway is close to its limit of open files",
        why: "At the limit it turns clients away and opens no connections to sidecars.",
        cure: "Raise the hard limit of LimitNOFILE=, or lower [limits] connections.",
        judge: |facts| {
            let process = facts.process.as_ref()?;
            let (used, limit) = process
                .descriptors
                .filter(|(used, limit)| used * 100 >= limit * FDS_MOST)?;
            let message = format!("{used} of {limit} descriptors are in use");
            Problem::at(
                format!("pid {}", process.pid),
                message,
                command(raise(facts)),
            )
        },
        ..Check::WARNING
    },
    Check {
        code: "fd-clients",
        title: "the limit of open files allows fewer clients than configured",
        why: "Each client takes two descriptors: its own and the sidecar's. Beyond what the limit \
               allows, new clients are answered 503.",
        cure: "Raise the hard limit of open files, or lower [limits] connections.",
        judge: few_clients,
        ..Check::WARNING
    },
];

/// What raises the limit of open files.
fn raise(facts: &DoctorFacts) -> String {
    match &facts.unit {
        Some(unit) => unit.set("LimitNOFILE=1024:524288"),
        None => "ulimit -Hn   (in the shell that starts the gateway)".to_owned(),
    }
}

/// A gateway that may have fewer clients than its configuration says. Nobody chose the default, which
/// is high on purpose: half of it is enough.
fn few_clients(facts: &DoctorFacts) -> Option<Problem> {
    let process = facts.process.as_ref()?;
    let (_, limit) = process.descriptors?;
    let clients = facts.config.get().limits.connections;
    let needed = descriptors::needed(clients);
    let unit = facts.loaded_unit().map(|(_, properties)| properties.nofile);
    // Then unit-nofile says so.
    if unit.is_some_and(|limit| limit < needed) {
        return None;
    }
    let enough = match clients == LimitsSection::default().connections {
        true => clients / 2,
        false => clients,
    };
    let allowed = Some(descriptors::allowed(limit)).filter(|allowed| *allowed < enough)?;
    let message = format!(
        "{allowed} clients may connect at once, and not {clients} (limits.connections): these need {needed} descriptors, and {limit} is the limit"
    );
    Problem::at(
        format!("pid {}", process.pid),
        message,
        command(raise(facts)),
    )
}

/// The recovery that a gateway is in, if it is this one.
fn recovering(facts: &DoctorFacts, rung: RecoveryRung) -> Option<(&Status, &RecoveryStatus)> {
    let status = facts.status.as_ref()?;
    let recovery = status.recovery.as_ref()?;
    (recovery.rung == rung).then_some((status, recovery))
}

/// Safe mode, or the throttle.
fn waiting(facts: &DoctorFacts, rung: RecoveryRung) -> Option<Problem> {
    let (status, recovery) = recovering(facts, rung)?;
    let flags = &facts.flags;
    let next = command(format!(
        "gatewayctl recover{flags}   (first correct the cause)"
    ));
    Problem::at(format!("pid {}", status.pid), &recovery.reason, next)
}

fn sidecar_down(facts: &DoctorFacts) -> Option<Problem> {
    let status = facts.status.as_ref()?;
    // During a start or a restart a sidecar is not ready yet.
    let settled = matches!(status.stage, Stage::Degraded | Stage::Failed);
    if status.recovery.is_some() || !settled {
        return None;
    }
    let up = [SidecarStateName::Ready, SidecarStateName::Stopping];
    let down = status
        .sidecars
        .iter()
        .find(|sidecar| !up.contains(&sidecar.state))?;
    of_sidecar(facts, down)
}

/// One that is up again, but died too often.
fn sidecar_failing(facts: &DoctorFacts) -> Option<Problem> {
    let status = facts.status.as_ref()?;
    let up = [SidecarStateName::Ready, SidecarStateName::Stopping];
    let mut sidecars = status.sidecars.iter();
    let failing = sidecars.find(|one| one.failing && up.contains(&one.state))?;
    of_sidecar(facts, failing)
}

/// One whose second copy ended by itself, again and again.
fn second_copy_refused(facts: &DoctorFacts) -> Option<Problem> {
    let status = facts.status.as_ref()?;
    let mut sidecars = status.sidecars.iter();
    let refused = sidecars.find(|one| one.refused_copies >= REFUSED_COPIES)?;
    let (name, times) = (&refused.name, refused.refused_copies);
    let message = format!(
        "the last {times} restarts failed because a second copy of {name} ended while the first one ran"
    );
    let next = command(format!(
        "gatewayctl logs --sidecar {}{}",
        shell::word(name),
        facts.flags
    ));
    Problem::at(format!("[sidecar.{name}]"), message, next)
}

/// What is known of the end of a sidecar's last process.
fn of_sidecar(facts: &DoctorFacts, down: &SidecarStatus) -> Option<Problem> {
    let (name, state, flags) = (&down.name, down.state, &facts.flags);
    let cause = down.cause.as_ref().or(down.last_death.as_ref());
    let cause = cause.cloned().unwrap_or_else(|| format!("{name}: {state}"));
    let next = command(format!(
        "gatewayctl logs --sidecar {}{flags}",
        shell::word(name)
    ));
    let mut detail = lines(&cause).into_iter();
    let first = detail.next().unwrap_or_default();
    let first = first.strip_prefix("it ").unwrap_or(&first);
    let message = match first.strip_prefix(name.as_str()) {
        Some(_) => first.to_owned(),
        None => format!("{name} {first}"),
    };
    Problem::with(detail.collect(), format!("[sidecar.{name}]"), message, next)
}

fn standing_by(facts: &DoctorFacts) -> Option<Problem> {
    let status = facts
        .status
        .as_ref()
        .filter(|status| status.stage == Stage::StandingBy);
    let by_itself = status.map(|status| (format!("pid {}", status.pid), status.detail.clone()));
    // The control socket may belong to the gateway that serves.
    let by_unit = || {
        let unit = facts.unit.as_ref()?;
        let properties = &unit.properties;
        (properties.waits_for == Some(WaitsFor::Owner))
            .then(|| (unit.name().to_owned(), properties.status_text.clone()))
    };
    let (place, detail) = by_itself.or_else(by_unit)?;
    let next = command(format!("gatewayctl status{}", facts.flags));
    Problem::at(place, detail, next)
}
