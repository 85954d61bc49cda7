//! The settings of the unit as systemd uses them, drop-ins included.

use std::time::Duration;

use super::super::facts::{Facts, Says, Unit};
use super::super::finding::{Check, Level, Seen, advice, command};
use crate::config::Dur;
use crate::gateway::budget::{BEFORE_KILL, STOP_MARGIN};
use crate::state::paths::Scope;

/// Clients wait in the queue of the listener after a crash; one that waits longer than this has
/// mostly given up.
const RESTART_DELAY_MOST: Duration = Duration::from_secs(5);

/// The exit code for an invalid configuration, EX_CONFIG of sysexits.h: starting again would only
/// fail again.
const CONFIG_INVALID: i32 = 78;

/// Descriptors that are neither clients nor upstreams: listeners, logs, sidecars' pipes.
const OTHER_FILES: u64 = 256;

/// Variables that change what the gateway does in ways a service never needs.
const DEFEATING: [(&str, &str); 6] = [
    (
        "GATEWAY_NO_RESPAWN",
        "no fresh process takes over: updates and `restart --fresh` are refused",
    ),
    (
        "GATEWAY_FAILPOINT",
        "hand-overs fail on purpose; it is for tests",
    ),
    (
        "GATEWAY_SUPERVISOR",
        "the supervisor is not detected but believed",
    ),
    (
        "NOTIFY_SOCKET",
        "systemd is not told that the gateway is ready, alive or stopping",
    ),
    (
        "LISTEN_FDS",
        "the gateway takes the wrong descriptors for its listeners",
    ),
    (
        "WATCHDOG_USEC",
        "the gateway pings at the wrong pace, and the watchdog kills it or never bites",
    ),
];

/// Those of them that also count in the environment of the process, where a file of variables may
/// have put them.
const ANYWHERE: [&str; 2] = ["GATEWAY_NO_RESPAWN", "GATEWAY_FAILPOINT"];

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "unit-type",
        level: Level::Error,
        what: "Type= is not notify",
        why: "systemd takes the service for ready as soon as it is started, does not follow it to a fresh process, and kills that \
              one with the old: every restart cuts clients.",
        cure: "Type=notify.",
        mends: false,
        judge: kind,
    },
    Check {
        code: "unit-notify-access",
        level: Level::Warning,
        what: "NotifyAccess= is not main",
        why: "With none systemd hears nothing from the gateway; with all every program behind it can speak to systemd in its name.",
        cure: "NotifyAccess=main: the old main process names the new one.",
        mends: false,
        judge: notify_access,
    },
    Check {
        code: "unit-kill-mode",
        level: Level::Error,
        what: "KillMode= leaves processes behind",
        why: "With process or none what the gateway started survives its stop: orphans hold ports and memory, and every further \
              restart adds to them.",
        cure: "KillMode=mixed.",
        mends: false,
        judge: kill_mode,
    },
    Check {
        code: "unit-kill-group",
        level: Level::Warning,
        what: "a stop signals the servers at once",
        why: "With KillMode=control-group systemd sends SIGTERM to the servers behind the gateway in the same moment as to the \
              gateway, and the requests that it still finishes are cut.",
        cure: "KillMode=mixed: only the gateway is signalled, and ends its servers when their work is done.",
        mends: false,
        judge: kill_group,
    },
    Check {
        code: "unit-restart",
        level: Level::Error,
        what: "Restart= does not bring it back",
        why: "A gateway that crashes stays down until somebody looks.",
        cure: "Restart=always.",
        mends: false,
        judge: restart,
    },
    Check {
        code: "unit-restart-delay",
        level: Level::Warning,
        what: "RestartSec= is long",
        why: "After a crash nobody answers for that long; the gateway slows its servers down by itself, with the port open.",
        cure: "RestartSec=100ms.",
        mends: false,
        judge: restart_delay,
    },
    Check {
        code: "unit-exit-status",
        level: Level::Warning,
        what: "RestartPreventExitStatus= is not 78",
        why: "78 says that the configuration is not valid and another start would only fail again. Any other code in the list \
              keeps a gateway down that should come back.",
        cure: "RestartPreventExitStatus=78.",
        mends: false,
        judge: exit_status,
    },
    Check {
        code: "unit-stop-timeout",
        level: Level::Error,
        what: "TimeoutStopSec= is shorter than a stop takes",
        why: "systemd kills the gateway while it finishes requests: clients are cut, and the servers get no end of their own. It \
              needs stop_drain of the configuration and 10 s.",
        cure: "A longer TimeoutStopSec=, or a shorter [restart] stop_drain.",
        mends: false,
        judge: stop_timeout,
    },
    Check {
        code: "unit-watchdog",
        level: Level::Warning,
        what: "WatchdogSec= is off",
        why: "A gateway that hangs is never restarted: it is up for systemd and dead for its clients.",
        cure: "WatchdogSec=30.",
        mends: false,
        judge: watchdog,
    },
    Check {
        code: "unit-fd-store",
        level: Level::Warning,
        what: "nobody keeps the listeners over a crash",
        why: "Without the fd store and without a socket unit the port is closed from a crash to the next start, and clients are \
              refused.",
        cure: "FileDescriptorStoreMax=64, or gatewayctl install --socket.",
        mends: false,
        judge: fd_store,
    },
    Check {
        code: "unit-start-limit",
        level: Level::Warning,
        what: "systemd's start limit can be reached",
        why: "After so many starts systemd gives up and closes the port for good. The gateway has a throttle of its own, which keeps \
              the port open.",
        cure: "StartLimitIntervalSec=0 under [Unit].",
        mends: false,
        judge: start_limit,
    },
    Check {
        code: "unit-oom-policy",
        level: Level::Warning,
        what: "one server out of memory takes the gateway down",
        why: "With OOMPolicy=stop or kill the end of any process of the service for want of memory ends the whole service.",
        cure: "OOMPolicy=continue: the gateway restarts the server alone.",
        mends: false,
        judge: oom_policy,
    },
    Check {
        code: "unit-nofile",
        level: Level::Warning,
        what: "too few files may be open",
        why: "Each client takes two descriptors, its own and the server's. At the limit new clients are not accepted.",
        cure: "A higher hard limit in LimitNOFILE=, or a lower [limits] connections.",
        mends: false,
        judge: nofile,
    },
    Check {
        code: "unit-network-online",
        level: Level::Warning,
        what: "a user's unit waits for network-online.target",
        why: "That target exists in the machine's manager only: in a user's it orders nothing, and hides that the network may be \
              missing at login.",
        cure: "Take the line out, or install in system scope.",
        mends: false,
        judge: network_online,
    },
    Check {
        code: "unit-output",
        level: Level::Warning,
        what: "output is thrown away",
        why: "With StandardOutput= or StandardError= of null the last words before a crash are lost.",
        cure: "journal, systemd's default.",
        mends: false,
        judge: output,
    },
    Check {
        code: "unit-environment",
        level: Level::Warning,
        what: "a variable defeats the gateway",
        why: "Some variables switch off what makes restarts safe, or speak in systemd's place.",
        cure: "Take it out of the unit.",
        mends: false,
        judge: environment,
    },
    Check {
        code: "unit-account",
        level: Level::Error,
        what: "the unit's user does not exist",
        why: "systemd ends the start with 217/USER before the gateway runs.",
        cure: "Make the user, or install with another --run-as.",
        mends: false,
        judge: account,
    },
];

fn says(facts: &Facts) -> Option<(&Unit, &Says)> {
    let unit = facts.unit.as_ref()?;
    unit.says
        .as_ref()
        .filter(|says| says.load == "loaded")
        .map(|says| (unit, says))
}

/// A finding about a setting: where it is made, what it is, what it should be.
fn setting(unit: &Unit, key: &str, value: impl std::fmt::Display, wanted: &str) -> Option<Seen> {
    Seen::at(
        unit.place(key),
        format!("{key}={value}"),
        command(unit.set(wanted)),
    )
}

fn seconds(time: Duration) -> String {
    Dur(time).to_string()
}

fn kind(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts)
        .filter(|(_, says)| !matches!(says.kind.as_str(), "notify" | "notify-reload"))?;
    setting(unit, "Type", &says.kind, "Type=notify")
}

fn notify_access(facts: &Facts) -> Option<Seen> {
    let (unit, says) =
        says(facts).filter(|(_, says)| !matches!(says.notify_access.as_str(), "main" | "exec"))?;
    setting(
        unit,
        "NotifyAccess",
        &says.notify_access,
        "NotifyAccess=main",
    )
}

fn kill_mode(facts: &Facts) -> Option<Seen> {
    let (unit, says) =
        says(facts).filter(|(_, says)| matches!(says.kill_mode.as_str(), "process" | "none"))?;
    setting(unit, "KillMode", &says.kill_mode, "KillMode=mixed")
}

fn kill_group(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| says.kill_mode == "control-group")?;
    setting(unit, "KillMode", &says.kill_mode, "KillMode=mixed")
}

fn restart(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts)
        .filter(|(_, says)| !matches!(says.restart.as_str(), "always" | "on-failure"))?;
    setting(unit, "Restart", &says.restart, "Restart=always")
}

fn restart_delay(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| says.restart_delay > RESTART_DELAY_MOST)?;
    setting(
        unit,
        "RestartSec",
        seconds(says.restart_delay),
        "RestartSec=100ms",
    )
}

fn exit_status(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| says.prevent != [CONFIG_INVALID])?;
    let codes: Vec<String> = says.prevent.iter().map(i32::to_string).collect();
    setting(
        unit,
        "RestartPreventExitStatus",
        codes.join(" "),
        "RestartPreventExitStatus=78",
    )
}

fn stop_timeout(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts)?;
    let drain = facts.config.get().restart.stop_drain;
    let needed = drain.0 + STOP_MARGIN + BEFORE_KILL;
    let limit = says.timeout_stop.filter(|limit| *limit < needed)?;
    let message = format!(
        "TimeoutStopSec={}, and a stop may take {} (stop_drain {drain} and 10 s)",
        seconds(limit),
        seconds(needed)
    );
    Seen::at(
        unit.place("TimeoutStopSec"),
        message,
        command(unit.set(&format!("TimeoutStopSec={}", needed.as_secs()))),
    )
}

fn watchdog(facts: &Facts) -> Option<Seen> {
    // Of one that runs systemd tells what was set when it started.
    let off = |unit: &Unit| matches!(unit.value("WatchdogSec"), Some("0" | "infinity"));
    let (unit, _) = says(facts).filter(|(unit, says)| says.watchdog.is_none() || off(unit))?;
    setting(unit, "WatchdogSec", "0", "WatchdogSec=30")
}

fn fd_store(facts: &Facts) -> Option<Seen> {
    let (unit, _) = says(facts).filter(|(_, says)| says.fd_store == 0 && !says.socket)?;
    setting(
        unit,
        "FileDescriptorStoreMax",
        "0",
        "FileDescriptorStoreMax=64",
    )
}

fn start_limit(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts)?;
    let interval = says.limit_interval.filter(|_| says.limit_burst > 0)?;
    let burst = u32::try_from(says.limit_burst).unwrap_or(u32::MAX);
    if says.restart_delay.saturating_mul(burst) >= interval {
        return None;
    }
    let message = format!(
        "{burst} starts within {} end it for good, and RestartSec is {}",
        seconds(interval),
        seconds(says.restart_delay)
    );
    let place = unit.place("StartLimitIntervalSec");
    let edit = format!(
        "{}   (and write, under [Unit]: StartLimitIntervalSec=0)",
        unit.systemctl(&format!("edit {}", unit.installed.unit))
    );
    Seen::at(place, message, command(edit))
}

fn oom_policy(facts: &Facts) -> Option<Seen> {
    let (unit, says) =
        says(facts).filter(|(_, says)| matches!(says.oom_policy.as_str(), "stop" | "kill"))?;
    setting(unit, "OOMPolicy", &says.oom_policy, "OOMPolicy=continue")
}

fn nofile(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts)?;
    let clients = facts.config.get().limits.connections as u64;
    let needed = clients * 2 + OTHER_FILES;
    if says.nofile >= needed {
        return None;
    }
    let message = format!(
        "LimitNOFILE={}, and {clients} clients take {needed}",
        says.nofile
    );
    Seen::at(
        unit.place("LimitNOFILE"),
        message,
        command(unit.set("LimitNOFILE=1024:524288")),
    )
}

fn network_online(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(unit, _)| unit.installed.scope == Scope::User)?;
    says.wants
        .iter()
        .find(|other| *other == "network-online.target")?;
    let place = ["Wants", "After", "Requires"]
        .into_iter()
        .map(|key| unit.place(key))
        .find(|place| place.contains(".service:") || place.contains(".conf:"));
    let place = place.unwrap_or_else(|| unit.installed.path.display().to_string());
    Seen::at(
        place,
        "there is no network-online.target in a user's manager",
        advice("take network-online.target out of After= and Wants="),
    )
}

fn output(facts: &Facts) -> Option<Seen> {
    let (unit, says) =
        says(facts).filter(|(_, says)| says.output.iter().any(|output| output == "null"))?;
    let key = if says.output.first().is_some_and(|output| output == "null") {
        "StandardOutput"
    } else {
        "StandardError"
    };
    setting(unit, key, "null", &format!("{key}=journal"))
}

fn environment(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts)?;
    let in_unit = |name: &str| {
        says.environment
            .iter()
            .any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
    };
    // Of what systemd sets for every service only the unit tells who meant it.
    let in_process = |name: &str| {
        ANYWHERE.contains(&name)
            && facts
                .process
                .as_ref()
                .is_some_and(|process| process.environment.contains_key(name))
    };
    let set: Vec<(&str, &str)> = DEFEATING
        .into_iter()
        .filter(|(name, _)| in_unit(name) || in_process(name))
        .collect();
    let (name, _) = *set.first()?;
    let place = if in_unit(name) {
        unit.place("Environment")
    } else {
        unit.place("EnvironmentFile")
    };
    let found = Seen::at(
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

fn account(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(unit, _)| !unit.has_account)?;
    let cure = command(format!("sudo useradd --system {}", says.user));
    Seen::at(
        unit.place("User"),
        format!("there is no user `{}`", says.user),
        cure,
    )
}
