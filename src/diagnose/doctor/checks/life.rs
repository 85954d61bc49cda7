//! What the service is doing, and whether it comes back.

use std::time::Duration;

use super::super::facts::{Facts, Says, Unit};
use super::super::finding::{Check, Level, Mend, Remedy, Seen, command};

/// So many automatic restarts are no accident …
const STORM: u64 = 5;

/// … when the last was this recent.
const STORM_AGE: Duration = Duration::from_secs(600);

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "start-limit-hit",
        level: Level::Error,
        what: "systemd has given up starting it",
        why: "It failed too often in too short a time; every further start is refused until the failure is forgotten.",
        cure: "Mended: the failure is forgotten. Then mend its cause and start it.",
        mends: true,
        judge: limit_hit,
    },
    Check {
        code: "unit-failed",
        level: Level::Error,
        what: "the service has failed",
        why: "It does not run, and systemd does not start it again.",
        cure: "gatewayctl why names the cause; gatewayctl start starts it again.",
        mends: false,
        judge: failed,
    },
    Check {
        code: "unit-stopped",
        level: Level::Note,
        what: "the service is stopped",
        why: "It is installed and does not run. If that is not meant, somebody stopped it.",
        cure: "gatewayctl start.",
        mends: false,
        judge: stopped,
    },
    Check {
        code: "unit-not-enabled",
        level: Level::Warning,
        what: "it does not start at boot",
        why: "It runs now, and is gone after the next boot or login.",
        cure: "Mended: the unit and its socket are enabled.",
        mends: true,
        judge: not_enabled,
    },
    Check {
        code: "unit-linger",
        level: Level::Warning,
        what: "it ends with the last session of its user",
        why: "Without lingering a user's services start at login and end at logout: on a server that is when the ssh session ends.",
        cure: "Mended: lingering is turned on.",
        mends: true,
        judge: linger,
    },
    Check {
        code: "restart-storm",
        level: Level::Warning,
        what: "it was started again and again",
        why: "A gateway that ends soon after each start serves nobody well, even with its port open.",
        cure: "gatewayctl why and gatewayctl logs tell the cause.",
        mends: false,
        judge: storm,
    },
    Check {
        code: "scope-duplicate",
        level: Level::Error,
        what: "two scopes have the same instance",
        why: "The machine's and a user's manager start one each: they fight for the address, and commands may mean the wrong one.",
        cure: "Uninstall one of the two.",
        mends: false,
        judge: duplicate,
    },
    Check {
        code: "gateway-silent",
        level: Level::Error,
        what: "it runs and does not answer",
        why: "The process is there, but its control socket is not, or nobody answers there: it hangs, is stopped, or its socket was \
              removed.",
        cure: "Restart it by its service manager.",
        mends: false,
        judge: silent,
    },
    Check {
        code: "log-suppressed",
        level: Level::Note,
        what: "journald left out lines of its log",
        why: "Something printed more than the rate limit lets through, and what is missing may be the line you look for.",
        cure: "Print less, or raise LogRateLimitBurst= in a drop-in.",
        mends: false,
        judge: suppressed,
    },
];

fn says(facts: &Facts) -> Option<(&Unit, &Says)> {
    let unit = facts.unit.as_ref()?;
    unit.says
        .as_ref()
        .filter(|says| says.load == "loaded")
        .map(|says| (unit, says))
}

/// Whether systemd refuses to start it again. After automatic restarts the result is still that of
/// the last life.
fn gave_up(says: &Says) -> bool {
    let used_up =
        says.limit_interval.is_some() && says.limit_burst > 0 && says.restarts >= says.limit_burst;
    says.active == "failed" && (says.result == "start-limit-hit" || used_up)
}

fn limit_hit(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| gave_up(says))?;
    let cure = Remedy::Mend(
        Mend::ResetFailed,
        unit.systemctl(&format!("reset-failed {}", unit.installed.unit)),
    );
    Seen::at(
        &unit.installed.unit,
        format!(
            "it is failed ({}), after {} starts",
            says.result,
            says.restarts.max(says.limit_burst)
        ),
        cure,
    )
}

fn failed(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| says.active == "failed" && !gave_up(says))?;
    let next = command(format!(
        "gatewayctl start{0}   (when the cause is mended: gatewayctl logs{0})",
        facts.flags
    ));
    Seen::at(
        &unit.installed.unit,
        format!("it is failed ({})", says.result),
        next,
    )
}

fn stopped(facts: &Facts) -> Option<Seen> {
    let (unit, _) =
        says(facts).filter(|(_, says)| says.active == "inactive" && facts.live.is_none())?;
    Seen::at(
        &unit.installed.unit,
        "it is installed and does not run",
        command(format!("gatewayctl start{}", facts.flags)),
    )
}

fn not_enabled(facts: &Facts) -> Option<Seen> {
    let (unit, says) =
        says(facts).filter(|(_, says)| says.file_state == "disabled" && says.active == "active")?;
    let units = [Some(&unit.installed.unit), unit.installed.socket.as_ref()]
        .into_iter()
        .flatten()
        .cloned()
        .collect::<Vec<_>>();
    let cure = Remedy::Mend(
        Mend::Enable,
        unit.systemctl(&format!("enable {}", units.join(" "))),
    );
    Seen::at(
        &unit.installed.unit,
        format!("it is {}", says.file_state),
        cure,
    )
}

fn linger(facts: &Facts) -> Option<Seen> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| unit.lingers == Some(false))?;
    let user = &facts.user;
    let cure = Remedy::Mend(Mend::Linger, format!("loginctl enable-linger {user}"));
    Seen::at(
        &unit.installed.unit,
        format!("lingering is off for {user}"),
        cure,
    )
}

fn storm(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| says.restarts >= STORM)?;
    let fresh = facts
        .process
        .as_ref()
        .is_some_and(|process| process.age < STORM_AGE)
        || says.sub == "auto-restart";
    let message = format!(
        "systemd has restarted it {} times, the last time not long ago",
        says.restarts
    );
    fresh
        .then(|| {
            Seen::at(
                &unit.installed.unit,
                message,
                command(format!("gatewayctl logs{}", facts.flags)),
            )
        })
        .flatten()
}

fn duplicate(facts: &Facts) -> Option<Seen> {
    let unit = facts.unit.as_ref()?;
    let other = facts
        .neighbours
        .iter()
        .find(|other| other.instance == facts.instance && other.scope != unit.installed.scope)?;
    let flag = if unit.installed.scope == crate::state::paths::Scope::System {
        "--user"
    } else {
        "--system"
    };
    let found = Seen::at(
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
    Some(found.with(vec![format!("the other one: {}", other.path.display())]))
}

/// Whether it waits for another gateway or for its address, and says so to its manager: it has no
/// control socket yet.
fn waits(says: &Says) -> bool {
    says.status.starts_with("standing by") || says.status.starts_with("waiting for ")
}

fn silent(facts: &Facts) -> Option<Seen> {
    let (unit, says) = says(facts).filter(|(_, says)| says.is_active() && says.main_pid != 0)?;
    if facts.live.is_some() || !facts.unseen.is_empty() || waits(says) {
        return None;
    }
    let next = command(unit.systemctl(&format!("restart {}", unit.installed.unit)));
    Seen::at(
        format!("pid {}", says.main_pid),
        "nobody answers at its control socket",
        next,
    )
}

fn suppressed(facts: &Facts) -> Option<Seen> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| !unit.suppressed.is_empty())?;
    let next = command(unit.set("LogRateLimitBurst=50000"));
    Some(
        Seen::at(
            &unit.installed.unit,
            "lines are missing in its log of this boot",
            next,
        )?
        .with(unit.suppressed.clone()),
    )
}
