//! The files of the unit: whose they are, and whether systemd uses what is there.

use super::super::facts::{Facts, Unit};
use super::super::finding::{Check, Level, Mend, Remedy, Seen, command};
use crate::service::provenance::Written;

/// Settings on which restarts, crashes and stops depend.
const LOAD_BEARING: [&str; 14] = [
    "Type",
    "NotifyAccess",
    "ExecStart",
    "KillMode",
    "Restart",
    "RestartSec",
    "RestartForceExitStatus",
    "RestartPreventExitStatus",
    "TimeoutStopSec",
    "WatchdogSec",
    "FileDescriptorStoreMax",
    "StartLimitIntervalSec",
    "StartLimitBurst",
    "OOMPolicy",
];

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "manager-unreachable",
        level: Level::Error,
        what: "the service manager cannot be asked",
        why: "A service whose manager is not there neither runs nor starts. A user's manager needs a login or lingering, and its bus \
              in $XDG_RUNTIME_DIR.",
        cure: "Let the user's manager run without a login, or log in instead of using su.",
        mends: false,
        judge: manager,
    },
    Check {
        code: "unit-not-loaded",
        level: Level::Error,
        what: "systemd does not accept the unit",
        why: "A unit that is masked or has a line that systemd refuses does not start.",
        cure: "Unmask it, or mend the line that systemd-analyze names.",
        mends: false,
        judge: not_loaded,
    },
    Check {
        code: "unit-reload-needed",
        level: Level::Warning,
        what: "the unit's files changed since systemd read them",
        why: "systemd goes on with what it read before, until some reload later makes the change take effect unexpectedly.",
        cure: "Mended: systemd reads the files anew. The running process is not touched.",
        mends: true,
        judge: reload_needed,
    },
    Check {
        code: "unit-edited",
        level: Level::Warning,
        what: "the unit was changed since gatewayctl wrote it",
        why: "A later gatewayctl install refuses to replace it, so it stays behind what newer versions know.",
        cure: "Move the change into a drop-in, which survives, and install again.",
        mends: false,
        judge: edited,
    },
    Check {
        code: "unit-foreign",
        level: Level::Note,
        what: "the unit was not written by gatewayctl",
        why: "gatewayctl install and uninstall leave it alone, and nobody keeps it up to date.",
        cure: "Install over it on purpose, or leave it to whoever wrote it.",
        mends: false,
        judge: foreign,
    },
    Check {
        code: "unit-outdated",
        level: Level::Warning,
        what: "the unit is not what this version would write",
        why: "It was written by another version, or for another version of systemd, and lacks what was learned since.",
        cure: "Look at the difference and install again; the configuration and drop-ins stay.",
        mends: false,
        judge: outdated,
    },
    Check {
        code: "unit-drop-in",
        level: Level::Note,
        what: "drop-ins change settings that restarts depend on",
        why: "They are yours and stay, but they are the first place to look when a restart does not go as promised.",
        cure: "Nothing need be done if they are meant.",
        mends: false,
        judge: drop_in,
    },
    Check {
        code: "unit-shadowed",
        level: Level::Warning,
        what: "another unit file of the same name is hidden",
        why: "Of several files systemd takes one whole and forgets the others: an update of the hidden one, as by a package, has no \
              effect.",
        cure: "Remove the one that is not meant.",
        mends: false,
        judge: shadowed,
    },
    Check {
        code: "unit-secret",
        level: Level::Warning,
        what: "a secret stands in the unit",
        why: "Unit files are readable for everybody, and so is what systemctl show says of them.",
        cure: "Move it into a file of variables with mode 0600 (EnvironmentFile=), and make a new secret.",
        mends: false,
        judge: secret,
    },
    Check {
        code: "env-file-missing",
        level: Level::Error,
        what: "a file of variables is missing",
        why: "systemd does not start a service whose EnvironmentFile= is not there.",
        cure: "Put it back, or write a `-` before its name if it may be missing.",
        mends: false,
        judge: env_missing,
    },
    Check {
        code: "env-file-mode",
        level: Level::Warning,
        what: "a file of variables is readable for everybody",
        why: "That is where secrets are kept. systemd reads it as root, before it becomes the service's user.",
        cure: "Mended: mode 0600.",
        mends: true,
        judge: env_mode,
    },
];

fn unit(facts: &Facts) -> Option<&Unit> {
    facts.unit.as_ref()
}

fn install(facts: &Facts, more: &str) -> String {
    let instance = if facts.instance == crate::config::DEFAULT_INSTANCE {
        String::new()
    } else {
        format!(" --instance {}", facts.instance)
    };
    format!("gatewayctl install{instance}{more}")
}

fn manager(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts)?;
    let why = unit.unreachable.as_ref()?;
    let next = match unit.lingers {
        Some(false) => command(format!("sudo loginctl enable-linger {}", facts.user)),
        Some(true) => command("sudo systemctl start user@$(id -u).service"),
        None => command("systemctl is-system-running"),
    };
    let found = Seen::at(
        &unit.installed.unit,
        "its service manager cannot be asked",
        next,
    )?;
    Some(found.with(why.lines().map(str::to_owned).collect()))
}

fn not_loaded(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts)?;
    let says = unit.says.as_ref().filter(|says| says.load != "loaded")?;
    let next = match says.load.as_str() {
        "masked" => unit.systemctl(&format!("unmask {}", unit.installed.unit)),
        _ => format!("systemd-analyze verify {}", unit.installed.path.display()),
    };
    let detail = if says.load_error.is_empty() {
        Vec::new()
    } else {
        vec![says.load_error.clone()]
    };
    Some(
        Seen::at(
            unit.installed.path.display(),
            format!("systemd has it as {}", says.load),
            command(next),
        )?
        .with(detail),
    )
}

fn reload_needed(facts: &Facts) -> Option<Seen> {
    let unit =
        unit(facts).filter(|unit| unit.says.as_ref().is_some_and(|says| says.needs_reload))?;
    let cure = Remedy::Mend(Mend::DaemonReload, unit.systemctl("daemon-reload"));
    Seen::at(
        unit.installed.path.display(),
        "it or one of its drop-ins changed since systemd read it",
        cure,
    )
}

fn edited(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts).filter(|unit| matches!(unit.written, Written::Edited(_)))?;
    let next = format!(
        "{}   (keep what you need of it in: {})",
        install(facts, " --diff"),
        unit.systemctl(&format!("edit {}", unit.installed.unit))
    );
    Seen::at(
        unit.installed.path.display(),
        unit.written.why_not(),
        command(next),
    )
}

fn foreign(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts)
        .filter(|unit| unit.in_our_place && matches!(unit.written, Written::Foreign(_)))?;
    Seen::at(
        unit.installed.path.display(),
        unit.written.why_not(),
        command(install(facts, " --diff")),
    )
}

fn outdated(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts)?;
    let change = unit.outdated.as_ref()?;
    let lines = change.lines().filter(|line| {
        line.starts_with(['+', '-']) && !line.starts_with("---") && !line.starts_with("+++")
    });
    let found = Seen::at(
        unit.installed.path.display(),
        format!(
            "it differs from what gatewayctl {} writes",
            env!("CARGO_PKG_VERSION")
        ),
        command(format!(
            "{}   (then the same without --diff)",
            install(facts, " --diff")
        )),
    )?;
    Some(found.with(lines.map(str::to_owned).collect()))
}

fn drop_in(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts)?;
    let made = unit.files.iter().skip(1).flat_map(|file| {
        let bearing = file
            .lines
            .iter()
            .filter(|line| LOAD_BEARING.contains(&line.key.as_str()));
        bearing.map(|line| {
            format!(
                "{}:{}: {}={}",
                file.path.display(),
                line.number,
                line.key,
                line.value
            )
        })
    });
    let made: Vec<String> = made.collect();
    if made.is_empty() {
        return None;
    }
    let next = command(unit.systemctl(&format!("cat {}", unit.installed.unit)));
    Some(
        Seen::at(
            &unit.installed.unit,
            "drop-ins change what restarts depend on",
            next,
        )?
        .with(made),
    )
}

fn shadowed(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts).filter(|unit| !unit.shadowed.is_empty())?;
    let hidden: Vec<String> = unit
        .shadowed
        .iter()
        .map(|path| format!("hidden: {}", path.display()))
        .collect();
    let next = command(format!(
        "diff {} {}",
        unit.installed.path.display(),
        unit.shadowed.first()?.display()
    ));
    Some(
        Seen::at(
            unit.installed.path.display(),
            "it hides another unit file of the same name",
            next,
        )?
        .with(hidden),
    )
}

fn secret(facts: &Facts) -> Option<Seen> {
    let unit = unit(facts).filter(|unit| !unit.secrets.is_empty())?;
    let message = format!(
        "{} stands in the unit, where everybody may read it",
        unit.secrets.join(", ")
    );
    Seen::at(
        unit.place("Environment"),
        message,
        command(install(
            facts,
            " --env-file FILE   (with FILE of mode 0600)",
        )),
    )
}

fn env_missing(facts: &Facts) -> Option<Seen> {
    let file = unit(facts)?
        .env_files
        .iter()
        .find(|file| file.mode.is_none() && !file.optional)?;
    let cure = command(format!(
        "install -m 0600 /dev/null {0}   (and fill it)",
        file.path.display()
    ));
    Seen::at(
        file.path.display(),
        "the unit needs it (EnvironmentFile=), and it is not there",
        cure,
    )
}

fn env_mode(facts: &Facts) -> Option<Seen> {
    let file = unit(facts)?
        .env_files
        .iter()
        .find(|file| file.secret && file.mode.is_some_and(|mode| mode & 0o007 != 0))?;
    let chmod = format!("chmod o-rwx {}", file.path.display());
    let narrow = file.mode.unwrap_or(0) & 0o770;
    // The service manager reads it; whoever else does is known to its owner only.
    let cure = if file.ours {
        Remedy::Mend(Mend::Mode(file.path.clone(), narrow), chmod)
    } else {
        command(chmod)
    };
    Seen::at(
        file.path.display(),
        format!(
            "every user of the machine may read it (mode {:03o})",
            file.mode.unwrap_or(0)
        ),
        cure,
    )
}
