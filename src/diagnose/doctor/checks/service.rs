//! The service: whether it runs, and whether it starts again after a crash or a boot.

use std::time::Duration;

use crate::diagnose::doctor::finding::{Check, Fix, Problem, Remedy, command};
use crate::diagnose::doctor::unit_facts::UnitProperties;
use crate::state::paths::Scope;
use crate::systemd::words::{ActiveState, ServiceResult, SubState, UnitFileState};

/// Fewer automatic restarts may be chance.
const STORM: u64 = 5;

/// A younger process was restarted recently.
const STORM_AGE: Duration = Duration::from_secs(600);

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "start-limit-hit",
        title: "systemd has given up starting the service",
        why: "The service failed too often in a short time. systemd refuses every start until the \
               failure is reset.",
        cure: "With --fix: the failure is reset. Then correct its cause and start the service.",
        fixable: true,
        judge: |facts| {
            let (unit, properties) = facts
                .loaded_unit()
                .filter(|(_, properties)| gave_up(properties))?;
            let starts = properties.restarts.max(properties.limit_burst);
            let message = format!("it is failed ({}) after {starts} starts", properties.result);
            let reset = unit.systemctl(&format!("reset-failed {}", unit.name()));
            Problem::at(unit.name(), message, Remedy::Fix(Fix::ResetFailed, reset))
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-failed",
        title: "the service has failed",
        why: "It is not running, and systemd does not restart it.",
        cure: "gatewayctl why names the cause; gatewayctl start starts the service.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            if properties.active != ActiveState::Failed || gave_up(properties) {
                return None;
            }
            let flags = &facts.flags;
            let next = format!(
                "gatewayctl why{flags}   (then correct the cause, and gatewayctl start{flags})"
            );
            let message = format!("it is failed ({})", properties.result);
            Problem::at(unit.name(), message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-stopped",
        title: "the service is stopped",
        why: "It is installed but not running. Unless that is intended, start it.",
        cure: "Run gatewayctl start; gatewayctl why says how it ended.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            if properties.active != ActiveState::Inactive || facts.status.is_some() {
                return None;
            }
            let flags = &facts.flags;
            let next = command(format!(
                "gatewayctl start{flags}   (gatewayctl why{flags} says how it ended)"
            ));
            Problem::at(unit.name(), "it is installed but not running", next)
        },
        ..Check::NOTE
    },
    Check {
        code: "unit-not-enabled",
        title: "the service does not start at boot",
        why: "It is running now, but will not run after the next boot or login.",
        cure: "With --fix: the unit and its socket are enabled.",
        fixable: true,
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            if properties.file_state != UnitFileState::Disabled
                || properties.active != ActiveState::Active
            {
                return None;
            }
            let enable = unit.systemctl(&format!("enable {}", unit.names().join(" ")));
            let message = format!("it is {}", properties.file_state);
            Problem::at(unit.name(), message, Remedy::Fix(Fix::Enable, enable))
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-linger",
        title: "the service ends with the last session of its user",
        why: "Without lingering, a user's services start at login and stop at logout: on a server, \
               when the SSH session ends.",
        cure: "With --fix: lingering is turned on.",
        fixable: true,
        judge: |facts| {
            let unit = facts
                .unit
                .as_ref()
                .filter(|unit| unit.lingers == Some(false))?;
            let user = &facts.user;
            let cure = Remedy::Fix(Fix::Linger, format!("loginctl enable-linger {user}"));
            Problem::at(unit.name(), format!("lingering is off for {user}"), cure)
        },
        ..Check::WARNING
    },
    Check {
        code: "restart-storm",
        title: "systemd keeps restarting the service",
        why: "A gateway that ends soon after each start does not serve, even if its port is open.",
        cure: "gatewayctl why and gatewayctl logs show the cause.",
        judge: |facts| {
            let (unit, properties) = facts.loaded_unit()?;
            let restarts = Some(properties.restarts).filter(|restarts| *restarts >= STORM)?;
            let process = facts.process.as_ref();
            let young = process.is_some_and(|process| process.age < STORM_AGE);
            if !young && properties.sub != SubState::AutoRestart {
                return None;
            }
            let message = format!(
                "systemd has restarted it {restarts} times, most recently within the last 10 min"
            );
            let next = command(format!("gatewayctl logs{}", facts.flags));
            Problem::at(unit.name(), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "scope-duplicate",
        title: "the instance is installed in two scopes",
        why: "The system manager and a user's manager each start a gateway: the two compete for \
               the address, and commands may reach the wrong one.",
        cure: "Uninstall one of the two.",
        judge: |facts| {
            let (unit, instance) = (facts.unit.as_ref()?, &facts.instance);
            let scope = unit.installed.scope;
            let mut others = facts.other_gateways.iter();
            let other = others.find(|other| other.instance == *instance && other.scope != scope)?;
            let flag = match scope {
                Scope::System => "--user",
                Scope::User => "--system",
            };
            Problem::with(
                vec![format!("other unit: {}", other.path.display())],
                unit.file(),
                format!("{instance} is installed in system scope and in user scope"),
                command(format!("gatewayctl uninstall {flag} --instance {instance}")),
            )
        },
        ..Check::ERROR
    },
    Check {
        code: "gateway-silent",
        title: "the gateway is running but does not answer",
        why: "The process exists, but nothing answers at its control socket: it hangs, is \
               suspended, or its socket was removed.",
        cure: "Continue one that is suspended with kill -CONT; else restart the service with its \
               service manager.",
        judge: |facts| {
            if let Some(silent) = &facts.silent {
                let next = command(&silent.next);
                return Problem::at(format!("pid {}", silent.pid), &silent.message, next);
            }
            let (unit, properties) = facts.loaded_unit()?;
            let pid = Some(properties.main_pid).filter(|pid| *pid != 0)?;
            let answers_or_hidden = facts.status.is_some() || !facts.unseen.is_empty();
            if answers_or_hidden || !properties.active.is_up() || properties.waits_for.is_some() {
                return None;
            }
            let next = command(unit.systemctl(&format!("restart {}", unit.name())));
            let message = "nothing answers at its control socket";
            Problem::at(format!("pid {pid}"), message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "log-suppressed",
        title: "journald dropped log lines of the service",
        why: "The service logged more than the rate limit allows. The line that you look for may \
               be missing.",
        cure: "Log less, or raise LogRateLimitBurst= in a drop-in.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            unit.suppressed.first()?;
            let next = command(unit.set("LogRateLimitBurst=50000"));
            let message = "its log of this boot misses lines";
            Problem::with(unit.suppressed.clone(), unit.name(), message, next)
        },
        ..Check::NOTE
    },
];

/// Whether systemd refuses to start it again. After automatic restarts the result is still that of
/// the last run.
fn gave_up(properties: &UnitProperties) -> bool {
    let used_up = properties.limit_interval.is_some()
        && properties.limit_burst > 0
        && properties.restarts >= properties.limit_burst;
    properties.active == ActiveState::Failed
        && (properties.result == ServiceResult::StartLimitHit || used_up)
}
