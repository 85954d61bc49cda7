//! The unit's limits and environment as systemd uses them, drop-ins included.

use std::collections::BTreeSet;

use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Problem, advice, command, root_command};
use crate::os::descriptors;
use crate::state::paths::Scope;
use crate::systemd::words::Word;

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
        title: "one sidecar out of memory stops the gateway",
        why: "With OOMPolicy=stop or kill, systemd ends the whole service when the kernel kills \
               any of its processes for lack of memory.",
        cure: "Set OOMPolicy=continue: the gateway restarts only that sidecar.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let policy = &properties.oom_policy;
            match policy {
                Word::Known(_) => Problem::setting(unit, "OOMPolicy", policy, "continue"),
                Word::Other(_) => None,
            }
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-nofile",
        title: "the limit of open files is too low",
        why: "Each client takes two descriptors: its own and the sidecar's. At the limit, the \
               gateway turns new clients away.",
        cure: "Raise the hard limit of LimitNOFILE=, or lower [limits] connections.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let clients = facts.config.get().limits.connections;
            let needed = descriptors::needed(clients);
            let limit = Some(properties.nofile).filter(|limit| *limit < needed)?;
            let message = format!("LimitNOFILE={limit}, but {clients} clients need {needed}");
            let next = command(unit.set("LimitNOFILE=1024:524288"));
            Problem::at(unit.place("LimitNOFILE"), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-network-online",
        title: "a user unit waits for network-online.target",
        why: "Only the system manager has that target. In a user's manager it orders nothing, and \
               hides that the network may be missing at login.",
        cure: "Remove the line, or install in system scope.",
        judge: network_online,
        ..Check::WARNING
    },
    Check {
        code: "unit-output",
        title: "output is discarded",
        why: "With StandardOutput=null or StandardError=null, the last messages before a crash are \
               lost.",
        cure: "Set it to journal, systemd's default.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let mut outputs = ["StandardOutput", "StandardError"]
                .into_iter()
                .zip(&properties.output);
            let (key, value) = outputs.find(|(_, output)| *output == "null")?;
            Problem::setting(unit, key, value, "journal")
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-environment",
        title: "an environment variable disables a safety feature",
        why: "Some variables turn off what makes restarts safe, or replace what systemd tells the \
               gateway.",
        cure: "Remove the variable from the unit.",
        judge: environment,
        ..Check::WARNING
    },
    Check {
        code: "unit-account",
        title: "the unit's user does not exist",
        why: "systemd ends the start with 217/USER before the gateway runs.",
        cure: "Create the user, or install with another --run-as.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit().filter(|(unit, _)| !unit.has_account)?;
            let user = &properties.user;
            let cure = root_command(facts, &format!("useradd --system {user}"));
            let message = format!("user `{user}` does not exist");
            Problem::at(unit.place("User"), message, cure)
        },
        ..Check::ERROR
    },
];

fn network_online(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit()?;
    let waits = properties
        .wants
        .iter()
        .any(|other| other == "network-online.target");
    if !waits || unit.installed.scope != Scope::User {
        return None;
    }
    let key = ["Wants", "After", "Requires"]
        .into_iter()
        .find(|key| unit.value(key).is_some());
    let place = key.map_or_else(|| unit.file().to_string(), |key| unit.place(key));
    Problem::at(
        place,
        "a user's manager has no network-online.target",
        advice("remove network-online.target from After= and Wants="),
    )
}

fn environment(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit()?;
    let pairs = properties
        .environment
        .iter()
        .filter_map(|pair| pair.split_once('='));
    let in_unit: BTreeSet<&str> = pairs.map(|(name, _)| name).collect();
    // systemd sets the others for every service; only the unit shows that a user set them.
    let in_process = |name: &str| {
        let process = facts
            .process
            .as_ref()
            .filter(|_| NEVER_BY_SYSTEMD.contains(&name));
        process.is_some_and(|process| process.environment.contains_key(name))
    };
    let set: Vec<(&str, &str)> = UNSAFE_VARIABLES
        .into_iter()
        .filter(|(name, _)| in_unit.contains(name) || in_process(name))
        .collect();
    let (name, _) = *set.first()?;
    let key = if in_unit.contains(name) {
        "Environment"
    } else {
        "EnvironmentFile"
    };
    let effects = set.iter().map(|(name, effect)| format!("{name}: {effect}"));
    let next = command(unit.set(&format!("UnsetEnvironment={name}")));
    Problem::with(
        effects.collect(),
        unit.place(key),
        format!("{name} is set"),
        next,
    )
}
