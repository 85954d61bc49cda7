//! The unit's files: who wrote them, and whether systemd uses them as they are.

use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Fix, Level, Problem, Remedy, command};
use crate::service::provenance::Written;
use crate::systemd::words::{LoadState, Word};

/// The settings that restarts, crashes and stops depend on.
const RESTART_SETTINGS: [&str; 14] = [
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
        title: "the service manager does not answer",
        why: "Without its manager the service neither runs nor starts. A user's manager runs only \
               while the user is logged in or lingering is on, and its bus lies in \
               $XDG_RUNTIME_DIR.",
        cure: "Turn lingering on for the user, or log in directly instead of with su.",
        fixable: false,
        judge: manager_unreachable,
    },
    Check {
        code: "unit-not-loaded",
        level: Level::Error,
        title: "systemd rejects the unit",
        why: "A unit that is masked, or has a line that systemd rejects, does not start.",
        cure: "Unmask the unit, or correct the line that systemd-analyze names.",
        fixable: false,
        judge: not_loaded,
    },
    Check {
        code: "unit-reload-needed",
        level: Level::Warning,
        title: "the unit files changed after systemd read them",
        why: "systemd keeps using what it read before, until a later daemon-reload applies the \
               change unexpectedly.",
        cure: "With --fix: systemd reads the unit files again. The running process is not affected.",
        fixable: true,
        judge: reload_needed,
    },
    Check {
        code: "unit-edited",
        level: Level::Warning,
        title: "the unit was edited after gatewayctl wrote it",
        why: "The next gatewayctl install refuses to replace it, so the unit misses what newer \
               versions add.",
        cure: "Move the change into a drop-in, which install keeps, and install again.",
        fixable: false,
        judge: edited,
    },
    Check {
        code: "unit-foreign",
        level: Level::Note,
        title: "the unit was not written by gatewayctl",
        why: "gatewayctl install and uninstall leave it alone, so gatewayctl does not keep it up \
               to date.",
        cure: "Replace it deliberately with gatewayctl install, or leave it to its author.",
        fixable: false,
        judge: foreign,
    },
    Check {
        code: "unit-outdated",
        level: Level::Warning,
        title: "the unit differs from what this version writes",
        why: "It was written by another version of gatewayctl or for another version of systemd, \
               and lacks later improvements.",
        cure: "Review the difference and install again. The configuration and your drop-ins are \
               kept.",
        fixable: false,
        judge: outdated,
    },
    Check {
        code: "unit-drop-in",
        level: Level::Note,
        title: "drop-ins change settings that restarts depend on",
        why: "Your drop-ins are kept. Look at them first when a restart does not go as expected.",
        cure: "Do nothing if the changes are intended.",
        fixable: false,
        judge: drop_in,
    },
    Check {
        code: "unit-shadowed",
        level: Level::Warning,
        title: "the unit hides another unit file of the same name",
        why: "Of several unit files with one name systemd reads only one. An update of a hidden \
               file, for example by a package, has no effect.",
        cure: "Remove the file that is not wanted.",
        fixable: false,
        judge: shadowed,
    },
    Check {
        code: "unit-secret",
        level: Level::Warning,
        title: "the unit contains a secret",
        why: "Every user can read unit files and the output of systemctl show.",
        cure: "Move the secret into an environment file with mode 0600 (EnvironmentFile=), and \
               replace it with a new one.",
        fixable: false,
        judge: secret,
    },
    Check {
        code: "env-file-missing",
        level: Level::Error,
        title: "an environment file is missing",
        why: "systemd does not start a service whose EnvironmentFile= does not exist.",
        cure: "Restore the file, or put `-` before its name if it is optional.",
        fixable: false,
        judge: env_file_missing,
    },
    Check {
        code: "env-file-mode",
        level: Level::Warning,
        title: "every user can read an environment file with a secret",
        why: "Only systemd needs to read the file, and it does so as root before it switches to \
               the service's user.",
        cure: "With --fix: other users lose access to the file.",
        fixable: true,
        judge: env_file_mode,
    },
];

fn install(facts: &DoctorFacts, more: &str) -> String {
    let instance = if facts.instance == crate::config::DEFAULT_INSTANCE {
        String::new()
    } else {
        format!(" --instance {}", facts.instance)
    };
    format!("gatewayctl install{instance}{more}")
}

fn manager_unreachable(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let why = unit.unreachable.as_ref()?;
    let next = match unit.lingers {
        Some(false) => command(format!("sudo loginctl enable-linger {}", facts.user)),
        Some(true) => command("sudo systemctl start user@$(id -u).service"),
        None => command("systemctl is-system-running"),
    };
    let found = Problem::at(
        &unit.installed.unit,
        "its service manager does not answer",
        next,
    )?;
    Some(found.with(why.lines().map(str::to_owned).collect()))
}

fn not_loaded(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let properties = unit
        .properties
        .as_ref()
        .filter(|properties| properties.load != LoadState::Loaded)?;
    let next = match properties.load {
        Word::Known(LoadState::Masked) => {
            unit.systemctl(&format!("unmask {}", unit.installed.unit))
        }
        _ => format!("systemd-analyze verify {}", unit.installed.path.display()),
    };
    let detail = if properties.load_error.is_empty() {
        Vec::new()
    } else {
        vec![properties.load_error.clone()]
    };
    Some(
        Problem::at(
            unit.installed.path.display(),
            format!("its load state is {}", properties.load),
            command(next),
        )?
        .with(detail),
    )
}

fn reload_needed(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref().filter(|unit| {
        unit.properties
            .as_ref()
            .is_some_and(|properties| properties.needs_reload)
    })?;
    let cure = Remedy::Fix(Fix::DaemonReload, unit.systemctl("daemon-reload"));
    Problem::at(
        unit.installed.path.display(),
        "it or one of its drop-ins changed after systemd read it",
        cure,
    )
}

fn edited(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| matches!(unit.written, Written::Edited(_)))?;
    let next = format!(
        "{}   (move the change into a drop-in: {})",
        install(facts, " --diff"),
        unit.systemctl(&format!("edit {}", unit.installed.unit))
    );
    Problem::at(
        unit.installed.path.display(),
        unit.written.why_not(),
        command(next),
    )
}

fn foreign(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| unit.in_our_place && matches!(unit.written, Written::Foreign(_)))?;
    Problem::at(
        unit.installed.path.display(),
        unit.written.why_not(),
        command(install(facts, " --diff")),
    )
}

fn outdated(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let change = unit.outdated.as_ref()?;
    let lines = change.lines().filter(|line| {
        line.starts_with(['+', '-']) && !line.starts_with("---") && !line.starts_with("+++")
    });
    let found = Problem::at(
        unit.installed.path.display(),
        format!(
            "it differs from what gatewayctl {} writes",
            env!("CARGO_PKG_VERSION")
        ),
        command(format!(
            "{}   (then again without --diff)",
            install(facts, " --diff")
        )),
    )?;
    Some(found.with(lines.map(str::to_owned).collect()))
}

fn drop_in(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let made = unit.files.iter().skip(1).flat_map(|file| {
        let relevant = file
            .lines
            .iter()
            .filter(|line| RESTART_SETTINGS.contains(&line.key.as_str()));
        relevant.map(|line| {
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
        Problem::at(
            &unit.installed.unit,
            "drop-ins change what restarts depend on",
            next,
        )?
        .with(made),
    )
}

fn shadowed(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| !unit.shadowed.is_empty())?;
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
        Problem::at(
            unit.installed.path.display(),
            "it hides another unit file of the same name",
            next,
        )?
        .with(hidden),
    )
}

fn secret(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts
        .unit
        .as_ref()
        .filter(|unit| !unit.secrets.is_empty())?;
    let message = format!(
        "every user can read {} in the unit",
        unit.secrets.join(", ")
    );
    Problem::at(
        unit.place("Environment"),
        message,
        command(install(
            facts,
            " --env-file FILE   (with FILE of mode 0600)",
        )),
    )
}

fn env_file_missing(facts: &DoctorFacts) -> Option<Problem> {
    let file = facts
        .unit
        .as_ref()?
        .env_files
        .iter()
        .find(|file| file.mode.is_none() && !file.optional)?;
    let cure = command(format!(
        "install -m 0600 /dev/null {0}   (then fill it)",
        file.path.display()
    ));
    Problem::at(
        file.path.display(),
        "the unit needs it (EnvironmentFile=), but it does not exist",
        cure,
    )
}

fn env_file_mode(facts: &DoctorFacts) -> Option<Problem> {
    let file = facts
        .unit
        .as_ref()?
        .env_files
        .iter()
        .find(|file| file.secret && file.mode.is_some_and(|mode| mode & 0o007 != 0))?;
    let chmod = format!("chmod o-rwx {}", file.path.display());
    let without_others = file.mode.unwrap_or(0) & 0o770;
    // A link, or a file of another user, may have readers that only its owner knows.
    let cure = if file.ours {
        Remedy::Fix(Fix::Mode(file.path.clone(), without_others), chmod)
    } else {
        command(chmod)
    };
    Problem::at(
        file.path.display(),
        format!(
            "every user can read it (mode {:03o})",
            file.mode.unwrap_or(0)
        ),
        cure,
    )
}
