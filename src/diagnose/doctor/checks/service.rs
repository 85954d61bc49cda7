//! The service: whether it runs, and whether it starts again after a crash or a boot.

use std::time::Duration;

use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Fix, Level, Problem, Remedy, command};
use crate::diagnose::doctor::unit_facts::UnitProperties;
use crate::systemd::words::{ActiveState, ServiceResult, SubState, UnitFileState};

/// Fewer automatic restarts may be chance.
const STORM: u64 = 5;

/// A younger process was restarted recently.
const STORM_AGE: Duration = Duration::from_secs(600);

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "start-limit-hit",
        level: Level::Error,
        title: "systemd has given up starting the service",
        why: "The service failed too often in a short time. systemd refuses every start until the \
               failure is reset.",
        cure: "With --fix: the failure is reset. Then correct its cause and start the service.",
        fixable: true,
        judge: start_limit_hit,
    },
    Check {
        code: "unit-failed",
        level: Level::Error,
        title: "the service has failed",
        why: "It is not running, and systemd does not restart it.",
        cure: "gatewayctl why names the cause; gatewayctl start starts the service.",
        fixable: false,
        judge: failed,
    },
    Check {
        code: "unit-stopped",
        level: Level::Note,
        title: "the service is stopped",
        why: "It is installed but not running. Unless that is intended, start it.",
        cure: "Run gatewayctl start.",
        fixable: false,
        judge: stopped,
    },
    Check {
        code: "unit-not-enabled",
        level: Level::Warning,
        title: "the service does not start at boot",
        why: "It is running now, but will not run after the next boot or login.",
        cure: "With --fix: the unit and its socket are enabled.",
        fixable: true,
        judge: not_enabled,
    },
    Check {
        code: "unit-linger",
        level: Level::Warning,
        title: "the service ends with the last session of its user",
        why: "Without lingering, a user's services start at login and stop at logout: on a server, \
               when the SSH session ends.",
        cure: "With --fix: lingering is turned on.",
        fixable: true,
        judge: linger,
    },
    Check {
        code: "restart-storm",
        level: Level::Warning,
        title: "systemd keeps restarting the service",
        why: "A gateway that ends soon after each start does not serve, even if its port is open.",
        cure: "gatewayctl why and gatewayctl logs show the cause.",
        fixable: false,
        judge: restart_storm,
    },
    Check {
        code: "scope-duplicate",
        level: Level::Error,
        title: "the instance is installed in two scopes",
        why: "The system manager and a user's manager each start a gateway: the two compete for \
               the address, and commands may reach the wrong one.",
        cure: "Uninstall one of the two.",
        fixable: false,
        judge: scope_duplicate,
    },
    Check {
        code: "gateway-silent",
        level: Level::Error,
        title: "the gateway is running but does not answer",
        why: "The process exists, but nothing answers at its control socket: it hangs, is \
               suspended, or its socket was removed.",
        cure: "Restart the service with its service manager.",
        fixable: false,
        judge: silent,
    },
    Check {
        code: "log-suppressed",
        level: Level::Note,
        title: "journald dropped log lines of the service",
        why: "The service logged more than the rate limit allows. The line that you look for may \
               be missing.",
        cure: "Log less, or raise LogRateLimitBurst= in a drop-in.",
        fixable: false,
        judge: log_suppressed,
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

fn start_limit_hit(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| gave_up(properties))?;
    let cure = Remedy::Fix(
        Fix::ResetFailed,
        unit.systemctl(&format!("reset-failed {}", unit.installed.unit)),
    );
    Problem::at(
        &unit.installed.unit,
        format!(
            "it is failed ({}) after {} starts",
            properties.result,
            properties.restarts.max(properties.limit_burst)
        ),
        cure,
    )
}

fn failed(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit().filter(|(_, properties)| {
        properties.active == ActiveState::Failed && !gave_up(properties)
    })?;
    let next = command(format!(
        "gatewayctl start{0}   (first correct the cause: gatewayctl logs{0})",
        facts.flags
    ));
    Problem::at(
        &unit.installed.unit,
        format!("it is failed ({})", properties.result),
        next,
    )
}

fn stopped(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, _) = facts.loaded_unit().filter(|(_, properties)| {
        properties.active == ActiveState::Inactive && facts.status.is_none()
    })?;
    Problem::at(
        &unit.installed.unit,
        "it is installed but not running",
        command(format!("gatewayctl start{}", facts.flags)),
    )
}

fn not_enabled(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts.loaded_unit().filter(|(_, properties)| {
        properties.file_state == UnitFileState::Disabled && properties.active == ActiveState::Active
    })?;
    let units = [Some(&unit.installed.unit), unit.installed.socket.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>();
    let cure = Remedy::Fix(
        Fix::Enable,
        unit.systemctl(&format!("enable {}", units.join(" "))),
    );
    Problem::at(
        &unit.installed.unit,
        format!("it is {}", properties.file_state),
        cure,
    )
}

fn linger(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| unit.lingers == Some(false))?;
    let user = &facts.user;
    let cure = Remedy::Fix(Fix::Linger, format!("loginctl enable-linger {user}"));
    Problem::at(
        &unit.installed.unit,
        format!("lingering is off for {user}"),
        cure,
    )
}

fn restart_storm(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.restarts >= STORM)?;
    let recent = facts
        .process
        .as_ref()
        .is_some_and(|process| process.age < STORM_AGE)
        || properties.sub == SubState::AutoRestart;
    let message = format!(
        "systemd has restarted it {} times, most recently within the last 10 min",
        properties.restarts
    );
    recent
        .then(|| {
            Problem::at(
                &unit.installed.unit,
                message,
                command(format!("gatewayctl logs{}", facts.flags)),
            )
        })
        .flatten()
}

fn scope_duplicate(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let other = facts
        .other_gateways
        .iter()
        .find(|other| other.instance == facts.instance && other.scope != unit.installed.scope)?;
    let flag = if unit.installed.scope == crate::state::paths::Scope::System {
        "--user"
    } else {
        "--system"
    };
    let found = Problem::at(
        unit.installed.path.display(),
        format!(
            "{} is installed in system scope and in user scope",
            facts.instance
        ),
        command(format!(
            "gatewayctl uninstall {flag} --instance {}   (or the other one)",
            facts.instance
        )),
    )?;
    Some(found.with(vec![format!("other unit: {}", other.path.display())]))
}

fn silent(facts: &DoctorFacts) -> Option<Problem> {
    let (unit, properties) = facts
        .loaded_unit()
        .filter(|(_, properties)| properties.active.is_up() && properties.main_pid != 0)?;
    if facts.status.is_some() || !facts.unseen.is_empty() || properties.waits() {
        return None;
    }
    let next = command(unit.systemctl(&format!("restart {}", unit.installed.unit)));
    Problem::at(
        format!("pid {}", properties.main_pid),
        "nothing answers at its control socket",
        next,
    )
}

fn log_suppressed(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| !unit.suppressed.is_empty())?;
    let next = command(unit.set("LogRateLimitBurst=50000"));
    Some(
        Problem::at(
            &unit.installed.unit,
            "its log of this boot misses lines",
            next,
        )?
        .with(unit.suppressed.clone()),
    )
}
