//! The unit's settings for start, stop and restart as systemd uses them, drop-ins included.

use std::time::Duration;

use crate::config::{BEFORE_KILL, Dur, STOP_MARGIN};
use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Level, Problem, command};
use crate::diagnose::doctor::unit_facts::InstalledUnit;
use crate::systemd::words::{KillMode, NotifyAccess, RestartPolicy, Word};

/// After a crash, clients wait in the queue of the listener; most give up after this time.
const RESTART_DELAY_MOST: Duration = Duration::from_secs(5);

/// The exit code for an invalid configuration, EX_CONFIG of sysexits.h: another start would fail,
/// too.
const CONFIG_INVALID: i32 = 78;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "unit-type",
        level: Level::Error,
        title: "Type= is not notify",
        why: "systemd considers the service ready as soon as its process starts, does not follow \
               it to a new process, and kills that process with the old one: every restart breaks \
               connections.",
        cure: "Set Type=notify.",
        fixable: false,
        judge: service_type,
    },
    Check {
        code: "unit-notify-access",
        level: Level::Warning,
        title: "NotifyAccess= is not main",
        why: "With none, systemd ignores the gateway's notifications. With all, every sidecar can \
               send notifications in the gateway's name.",
        cure: "Set NotifyAccess=main: the old main process announces the new one.",
        fixable: false,
        judge: notify_access,
    },
    Check {
        code: "unit-kill-mode",
        level: Level::Error,
        title: "KillMode= leaves processes running",
        why: "With process or none, sidecars keep running after the service stops. They hold ports \
               and memory, and every restart adds more of them.",
        cure: "Set KillMode=mixed.",
        fixable: false,
        judge: kill_mode,
    },
    Check {
        code: "unit-kill-group",
        level: Level::Warning,
        title: "a stop signals the sidecars at once",
        why: "With KillMode=control-group, systemd sends SIGTERM to the sidecars and to the \
               gateway at the same time. Requests that the gateway is still finishing fail.",
        cure: "Set KillMode=mixed: systemd signals only the gateway, which stops its sidecars when \
               their requests are done.",
        fixable: false,
        judge: kill_group,
    },
    Check {
        code: "unit-restart",
        level: Level::Error,
        title: "Restart= does not restart the gateway after a crash",
        why: "A gateway that crashes stays down until it is started by hand.",
        cure: "Set Restart=always.",
        fixable: false,
        judge: restart,
    },
    Check {
        code: "unit-restart-delay",
        level: Level::Warning,
        title: "RestartSec= is long",
        why: "After a crash nothing answers for that long. The gateway delays its failing sidecars \
               by itself, with the port open.",
        cure: "Set RestartSec=100ms.",
        fixable: false,
        judge: restart_delay,
    },
    Check {
        code: "unit-exit-status",
        level: Level::Warning,
        title: "RestartPreventExitStatus= is not 78",
        why: "Exit code 78 means that the configuration is invalid and another start would fail, \
               too. Any other code in the list keeps down a gateway that should restart.",
        cure: "Set RestartPreventExitStatus=78.",
        fixable: false,
        judge: exit_status,
    },
    Check {
        code: "unit-stop-timeout",
        level: Level::Error,
        title: "TimeoutStopSec= is shorter than a stop takes",
        why: "systemd kills the gateway while it finishes requests: connections break, and the \
               sidecars are killed, too. A stop takes up to stop_drain of the configuration plus 10 \
               s.",
        cure: "Raise TimeoutStopSec=, or lower [restart] stop_drain.",
        fixable: false,
        judge: stop_timeout,
    },
    Check {
        code: "unit-watchdog",
        level: Level::Warning,
        title: "WatchdogSec= is off",
        why: "systemd never restarts a gateway that hangs: the service looks active while clients \
               get no answer.",
        cure: "Set WatchdogSec=30.",
        fixable: false,
        judge: watchdog,
    },
    Check {
        code: "unit-fd-store",
        level: Level::Warning,
        title: "nothing keeps the listeners open after a crash",
        why: "Without the fd store and without a socket unit, the port is closed from a crash to \
               the next start, and clients are refused.",
        cure: "Set FileDescriptorStoreMax=64, or run gatewayctl install --socket.",
        fixable: false,
        judge: fd_store,
    },
    Check {
        code: "unit-start-limit",
        level: Level::Warning,
        title: "systemd's start limit can be reached",
        why: "After that many starts systemd gives up, and the port stays closed. The gateway has \
               a throttle of its own, which keeps the port open.",
        cure: "Set StartLimitIntervalSec=0 under [Unit].",
        fixable: false,
        judge: start_limit,
    },
];

fn service_type(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| !matches!(properties.service_type, Word::Known(_)))?;
    Problem::setting(unit, "Type", &properties.service_type, "Type=notify")
}

fn notify_access(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit().filter(|(_, properties)| {
        !matches!(
            properties.notify_access,
            Word::Known(NotifyAccess::Main | NotifyAccess::Exec)
        )
    })?;
    Problem::setting(
        unit,
        "NotifyAccess",
        &properties.notify_access,
        "NotifyAccess=main",
    )
}

fn kill_mode(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit().filter(|(_, properties)| {
        matches!(
            properties.kill_mode,
            Word::Known(KillMode::Process | KillMode::None)
        )
    })?;
    Problem::setting(unit, "KillMode", &properties.kill_mode, "KillMode=mixed")
}

fn kill_group(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.kill_mode == KillMode::ControlGroup)?;
    Problem::setting(unit, "KillMode", &properties.kill_mode, "KillMode=mixed")
}

fn restart(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit().filter(|(_, properties)| {
        !matches!(
            properties.restart,
            Word::Known(RestartPolicy::Always | RestartPolicy::OnFailure)
        )
    })?;
    Problem::setting(unit, "Restart", &properties.restart, "Restart=always")
}

fn restart_delay(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.restart_delay > RESTART_DELAY_MOST)?;
    Problem::setting(
        unit,
        "RestartSec",
        Dur(properties.restart_delay),
        "RestartSec=100ms",
    )
}

fn exit_status(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.prevent != [CONFIG_INVALID])?;
    let codes: Vec<String> = properties.prevent.iter().map(i32::to_string).collect();
    Problem::setting(
        unit,
        "RestartPreventExitStatus",
        codes.join(" "),
        "RestartPreventExitStatus=78",
    )
}

fn stop_timeout(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit()?;
    let drain = facts.config.get().restart.stop_drain;
    let needed = drain.0 + STOP_MARGIN + BEFORE_KILL;
    let limit = properties.timeout_stop.filter(|limit| *limit < needed)?;
    let message = format!(
        "TimeoutStopSec={}, but a stop may take {} (stop_drain {drain} plus 10 s)",
        Dur(limit),
        Dur(needed)
    );
    Problem::at(
        unit.place("TimeoutStopSec"),
        message,
        command(unit.set(&format!("TimeoutStopSec={}", needed.as_secs()))),
    )
}

fn watchdog(facts: &DoctorFacts) -> Option<Problem> {
    // For a running service systemd reports the value at its start.
    let off = |unit: &InstalledUnit| matches!(unit.value("WatchdogSec"), Some("0" | "infinity"));
    let (unit, _) = facts
        .loaded_unit()
        .filter(|(unit, properties)| properties.watchdog.is_none() || off(unit))?;
    Problem::setting(unit, "WatchdogSec", "0", "WatchdogSec=30")
}

fn fd_store(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, _) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.fd_store == 0 && !properties.socket)?;
    Problem::setting(
        unit,
        "FileDescriptorStoreMax",
        "0",
        "FileDescriptorStoreMax=64",
    )
}

fn start_limit(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit()?;
    let interval = properties
        .limit_interval
        .filter(|_| properties.limit_burst > 0)?;
    let burst = u32::try_from(properties.limit_burst).unwrap_or(u32::MAX);
    if properties.restart_delay.saturating_mul(burst) >= interval {
        return None;
    }
    let message = format!(
        "{burst} starts within {} stop it for good, and RestartSec is {}",
        Dur(interval),
        Dur(properties.restart_delay)
    );
    let place = unit.place("StartLimitIntervalSec");
    let edit = format!(
        "{}   (then write under [Unit]: StartLimitIntervalSec=0)",
        unit.systemctl(&format!("edit {}", unit.installed.unit))
    );
    Problem::at(place, message, command(edit))
}
