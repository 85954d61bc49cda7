//! The unit's limits and environment as systemd uses them, drop-ins included.

use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Level, Problem, advice, command};
use crate::state::paths::Scope;
use crate::systemd::words::Word;

/// Descriptors that are neither clients nor upstreams: listeners, logs, sidecars' pipes.
const OTHER_FILES: u64 = 256;

/// Variables that a service never needs, and what each of them disables.
const UNSAFE_VARIABLES: [(&str, &str); 6] = [
    (
        "GATEWAY_NO_RESPAWN",
        "no new process takes over: updates and `restart --fresh` are refused",
    ),
    ("GATEWAY_FAILPOINT", "hand-overs fail on purpose, for tests"),
    (
        "GATEWAY_SUPERVISOR",
        "the gateway does not detect its supervisor but believes the variable",
    ),
    (
        "NOTIFY_SOCKET",
        "systemd does not learn that the gateway is ready, alive or stopping",
    ),
    (
        "LISTEN_FDS",
        "the gateway takes the wrong descriptors for its listeners",
    ),
    (
        "WATCHDOG_USEC",
        "the gateway pings at the wrong interval: the watchdog kills it or never fires",
    ),
];

/// Those that systemd never sets by itself: in the environment of the process, an environment file
/// set them.
const NEVER_BY_SYSTEMD: [&str; 2] = ["GATEWAY_NO_RESPAWN", "GATEWAY_FAILPOINT"];

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "unit-oom-policy",
        level: Level::Warning,
        title: "one sidecar out of memory stops the gateway",
        why: "With OOMPolicy=stop or kill, systemd ends the whole service when the kernel kills \
               any of its processes for lack of memory.",
        cure: "Set OOMPolicy=continue: the gateway restarts only that sidecar.",
        fixable: false,
        judge: oom_policy,
    },
    Check {
        code: "unit-nofile",
        level: Level::Warning,
        title: "the limit of open files is too low",
        why: "Each client takes two descriptors: its own and the sidecar's. At the limit, the \
               gateway accepts no new clients.",
        cure: "Raise the hard limit of LimitNOFILE=, or lower [limits] connections.",
        fixable: false,
        judge: nofile,
    },
    Check {
        code: "unit-network-online",
        level: Level::Warning,
        title: "a user unit waits for network-online.target",
        why: "Only the system manager has that target. In a user's manager it orders nothing, and \
               hides that the network may be missing at login.",
        cure: "Remove the line, or install in system scope.",
        fixable: false,
        judge: network_online,
    },
    Check {
        code: "unit-output",
        level: Level::Warning,
        title: "output is discarded",
        why: "With StandardOutput=null or StandardError=null, the last messages before a crash are \
               lost.",
        cure: "Set it to journal, systemd's default.",
        fixable: false,
        judge: output,
    },
    Check {
        code: "unit-environment",
        level: Level::Warning,
        title: "an environment variable disables a safety feature",
        why: "Some variables turn off what makes restarts safe, or replace what systemd tells the \
               gateway.",
        cure: "Remove the variable from the unit.",
        fixable: false,
        judge: environment,
    },
    Check {
        code: "unit-account",
        level: Level::Error,
        title: "the unit's user does not exist",
        why: "systemd ends the start with 217/USER before the gateway runs.",
        cure: "Create the user, or install with another --run-as.",
        fixable: false,
        judge: account,
    },
];

fn oom_policy(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| matches!(properties.oom_policy, Word::Known(_)))?;
    Problem::setting(
        unit,
        "OOMPolicy",
        &properties.oom_policy,
        "OOMPolicy=continue",
    )
}

fn nofile(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit()?;
    let clients = facts.config.get().limits.connections as u64;
    let needed = clients * 2 + OTHER_FILES;
    if properties.nofile >= needed {
        return None;
    }
    let message = format!(
        "LimitNOFILE={}, but {clients} clients need {needed}",
        properties.nofile
    );
    Problem::at(
        unit.place("LimitNOFILE"),
        message,
        command(unit.set("LimitNOFILE=1024:524288")),
    )
}

fn network_online(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(unit, _)| unit.installed.scope == Scope::User)?;
    properties
        .wants
        .iter()
        .find(|other| *other == "network-online.target")?;
    let place = ["Wants", "After", "Requires"]
        .into_iter()
        .map(|key| unit.place(key))
        .find(|place| place.contains(".service:") || place.contains(".conf:"));
    let place = place.unwrap_or_else(|| unit.installed.path.display().to_string());
    Problem::at(
        place,
        "a user's manager has no network-online.target",
        advice("remove network-online.target from After= and Wants="),
    )
}

fn output(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.output.iter().any(|output| output == "null"))?;
    let key = if properties
        .output
        .first()
        .is_some_and(|output| output == "null")
    {
        "StandardOutput"
    } else {
        "StandardError"
    };
    Problem::setting(unit, key, "null", &format!("{key}=journal"))
}

fn environment(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit()?;
    let in_unit = |name: &str| {
        properties
            .environment
            .iter()
            .any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
    };
    // systemd sets the others for every service; only the unit shows that somebody set them.
    let in_process = |name: &str| {
        NEVER_BY_SYSTEMD.contains(&name)
            && facts
                .process
                .as_ref()
                .is_some_and(|process| process.environment.contains_key(name))
    };
    let set: Vec<(&str, &str)> = UNSAFE_VARIABLES
        .into_iter()
        .filter(|(name, _)| in_unit(name) || in_process(name))
        .collect();
    let (name, _) = *set.first()?;
    let place = if in_unit(name) {
        unit.place("Environment")
    } else {
        unit.place("EnvironmentFile")
    };
    let found = Problem::at(
        place,
        format!("{name} is set"),
        command(unit.set(&format!("UnsetEnvironment={name}"))),
    )?;
    Some(
        found.with(
            set.into_iter()
                .map(|(name, effect)| format!("{name}: {effect}"))
                .collect(),
        ),
    )
}

fn account(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit().filter(|(unit, _)| !unit.has_account)?;
    let cure = command(format!("sudo useradd --system {}", properties.user));
    Problem::at(
        unit.place("User"),
        format!("user `{}` does not exist", properties.user),
        cure,
    )
}
