//! The unit's settings for start, stop and restart as systemd uses them, drop-ins included.

use std::time::Duration;

use crate::config::{BEFORE_KILL, Dur, STOP_MARGIN};
use crate::diagnose::doctor::finding::{Check, Problem, command};
use crate::systemd::words::{KillMode, NotifyAccess, RestartPolicy, Word};

/// After a crash, clients wait in the queue of the listener; most give up after this time.
const RESTART_DELAY_MOST: Duration = Duration::from_secs(5);

/// The exit code for an invalid configuration, EX_CONFIG of sysexits.h: another start would fail,
/// too.
const CONFIG_INVALID: i32 = 78;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "unit-type",
        title: "Type= is not notify",
        why: "systemd considers the service ready as soon as its process starts, does not follow \
               it to a new process, and kills that process with the old one: every restart breaks \
               connections.",
        cure: "Set Type=notify.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let kind = &properties.service_type;
            match kind {
                Word::Known(_) => None,
                Word::Other(_) => Problem::setting(unit, "Type", kind, "notify"),
            }
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-notify-access",
        title: "NotifyAccess= is not main",
        why: "With none, systemd ignores the gateway's notifications. With all, every sidecar can \
               send notifications in the gateway's name.",
        cure: "Set NotifyAccess=main: the old main process announces the new one.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let access = &properties.notify_access;
            match access {
                Word::Known(NotifyAccess::Main | NotifyAccess::Exec) => None,
                _ => Problem::setting(unit, "NotifyAccess", access, "main"),
            }
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-kill-mode",
        title: "KillMode= leaves processes running",
        why: "With process or none, sidecars keep running after the service stops. They hold ports \
               and memory, and every restart adds more of them.",
        cure: "Set KillMode=mixed.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let mode = &properties.kill_mode;
            match mode {
                Word::Known(KillMode::Process | KillMode::None) => {
                    Problem::setting(unit, "KillMode", mode, "mixed")
                }
                _ => None,
            }
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-kill-group",
        title: "a stop signals the sidecars at once",
        why: "With KillMode=control-group, systemd sends SIGTERM to the sidecars and to the \
               gateway at the same time. Requests that the gateway is still finishing fail.",
        cure: "Set KillMode=mixed: systemd signals only the gateway, which stops its sidecars when \
               their requests are done.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let mode = &properties.kill_mode;
            match mode {
                Word::Known(KillMode::ControlGroup) => {
                    Problem::setting(unit, "KillMode", mode, "mixed")
                }
                _ => None,
            }
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-restart",
        title: "Restart= does not restart the gateway after a crash",
        why: "A gateway that crashes stays down until it is started by hand.",
        cure: "Set Restart=always.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let policy = &properties.restart;
            match policy {
                Word::Known(RestartPolicy::Always | RestartPolicy::OnFailure) => None,
                _ => Problem::setting(unit, "Restart", policy, "always"),
            }
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-restart-delay",
        title: "RestartSec= is long",
        why: "After a crash nothing answers for that long. The gateway delays its failing sidecars \
               by itself, with the port open.",
        cure: "Set RestartSec=100ms.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let delay =
                Some(properties.restart_delay).filter(|delay| *delay > RESTART_DELAY_MOST)?;
            Problem::setting(unit, "RestartSec", Dur(delay), "100ms")
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-exit-status",
        title: "RestartPreventExitStatus= is not 78",
        why: "Exit code 78 means that the configuration is invalid and another start would fail, \
               too. Any other code in the list keeps down a gateway that should restart.",
        cure: "Set RestartPreventExitStatus=78.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            if properties.prevent == [CONFIG_INVALID] {
                return None;
            }
            let codes: Vec<String> = properties.prevent.iter().map(i32::to_string).collect();
            Problem::setting(unit, "RestartPreventExitStatus", codes.join(" "), "78")
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-stop-timeout",
        title: "TimeoutStopSec= is shorter than a stop takes",
        why: "systemd kills the gateway while it finishes requests: connections break, and the \
               sidecars are killed, too. A stop takes up to stop_delay and stop_drain of the \
               configuration plus 10 s.",
        cure: "Raise TimeoutStopSec=, or lower [restart] stop_drain.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let restart = &facts.config.get().restart;
            let drain = Dur(restart.stop_delay.0 + restart.stop_drain.0);
            let needed = drain.0 + STOP_MARGIN + BEFORE_KILL;
            let limit = properties.timeout_stop.filter(|limit| *limit < needed)?;
            let message = format!(
                "TimeoutStopSec={}, but a stop may take {} (stop_delay and stop_drain: {drain}, plus 10 s)",
                Dur(limit),
                Dur(needed)
            );
            let next = unit.set(&format!("TimeoutStopSec={}", needed.as_secs()));
            Problem::at(unit.place("TimeoutStopSec"), message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-watchdog",
        title: "WatchdogSec= is off",
        why: "systemd never restarts a gateway that hangs: the service looks active while clients \
               get no answer.",
        cure: "Set WatchdogSec=30.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            // systemd reports the value at the last start, and 0 for a service that was not started: what
            // its files say counts.
            let value = match unit.value("WatchdogSec") {
                Some(off @ ("0" | "infinity" | "")) => off,
                Some(_) => return None,
                None if properties.watchdog.is_some() => return None,
                None => "0",
            };
            Problem::setting(unit, "WatchdogSec", value, "30")
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-fd-store",
        title: "nothing keeps the listeners open after a crash",
        why: "Without the fd store and without a socket unit, the port is closed from a crash to \
               the next start, and clients are refused.",
        cure: "Set FileDescriptorStoreMax=64, or run gatewayctl install --socket.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            if properties.fd_store > 0 || properties.socket {
                return None;
            }
            Problem::setting(unit, "FileDescriptorStoreMax", "0", "64")
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-start-limit",
        title: "systemd's start limit can be reached",
        why: "After that many starts systemd gives up, and the port stays closed. The gateway has \
               a throttle of its own, which keeps the port open.",
        cure: "Set StartLimitIntervalSec=0 under [Unit].",
        judge: |facts| {
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
            let edit = unit.systemctl(&format!("edit {}", unit.name()));
            let next = format!("{edit}   (then write under [Unit]: StartLimitIntervalSec=0)");
            Problem::at(unit.place("StartLimitIntervalSec"), message, command(next))
        },
        ..Check::WARNING
    },
];
