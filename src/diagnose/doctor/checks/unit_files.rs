//! The unit's files: who wrote them, and whether systemd uses them as they are.

use crate::config::DEFAULT_INSTANCE;
use crate::diagnose::doctor::facts::DoctorFacts;
use crate::diagnose::doctor::finding::{Check, Fix, Problem, Remedy, command, lines, root_command};
use crate::diagnose::doctor::unit_facts::{UnitLine, UnitProperties};
use crate::service::FileRole;
use crate::service::provenance::Written;
use crate::state::paths::Scope;
use crate::systemd::words::{LoadState, Word};
use crate::text::shell;

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
        title: "the service manager does not answer",
        why: "Without its manager the service neither runs nor starts. A user's manager runs only \
               while the user is logged in or lingering is on, and its bus lies in \
               $XDG_RUNTIME_DIR.",
        cure: "Turn lingering on for the user, or log in directly instead of with su.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let why = unit.unreachable.as_ref()?;
            let next = match unit.lingers {
                Some(false) => {
                    root_command(facts, &format!("loginctl enable-linger {}", facts.user))
                }
                Some(true) => root_command(facts, "systemctl start user@$(id -u).service"),
                None => command("systemctl is-system-running"),
            };
            let message = "its service manager does not answer";
            Problem::with(lines(why), unit.name(), message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-not-loaded",
        title: "systemd rejects the unit",
        why: "A unit that is masked, or has a line that systemd rejects, does not start.",
        cure: "Unmask the unit, or correct the line that systemd-analyze names.",
        judge: |facts| {
            let unit = facts
                .unit
                .as_ref()
                .filter(|unit| unit.unreachable.is_none())?;
            let UnitProperties {
                load, load_error, ..
            } = &unit.properties;
            let next = match load {
                Word::Known(LoadState::Loaded) => return None,
                Word::Known(LoadState::Masked) => {
                    unit.systemctl(&format!("unmask {}", unit.name()))
                }
                Word::Other(_) => format!("systemd-analyze verify {}", unit.file()),
            };
            let detail = Some(load_error.clone()).filter(|error| !error.is_empty());
            let message = format!("its load state is {load}");
            Problem::with(Vec::from_iter(detail), unit.file(), message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "unit-reload-needed",
        title: "the unit files changed after systemd read them",
        why: "systemd keeps using what it read before, until a later daemon-reload applies the \
               change unexpectedly.",
        cure: "With --fix: systemd reads the unit files again. The running process is not affected.",
        fixable: true,
        judge: |facts| {
            let unit = facts
                .unit
                .as_ref()
                .filter(|unit| unit.properties.needs_reload)?;
            let cure = Remedy::Fix(Fix::DaemonReload, unit.systemctl("daemon-reload"));
            let message = "it or one of its drop-ins changed after systemd read it";
            Problem::at(unit.file(), message, cure)
        },
        ..Check::WARNING
    },
    Check {
        code: "change-not-applied",
        title: "a file of the service changed and is not applied",
        why: "What runs is as before. The gateway reads files of variables for each generation, and \
               systemd reads units, drop-ins and what only root may read when it starts the service.",
        cure: "gatewayctl reload applies what the gateway reads; for the rest gatewayctl restart has \
               systemd start the service anew, without losing a request.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            // A changed configuration has a finding of its own.
            let changed = (unit.unapplied.iter())
                .filter(|file| file.role != FileRole::Configuration)
                .collect::<Vec<_>>();
            let first = changed.first()?;
            let next = match changed.iter().any(|file| file.needs_start()) {
                true if unit.installed.scope == Scope::System => unit
                    .rights
                    .as_root(&format!("gatewayctl restart{}", instance(facts))),
                true => format!("gatewayctl restart{}", instance(facts)),
                false => format!("gatewayctl reload{}", instance(facts)),
            };
            let all = changed.iter().map(ToString::to_string).collect();
            let message = "it changed after it was read for what runs";
            Problem::with(all, first.file.display(), message, command(next))
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-edited",
        title: "the unit was edited after gatewayctl wrote it",
        why: "The next gatewayctl install refuses to replace it, so the unit misses what newer \
               versions add.",
        cure: "Move the change into a drop-in, which install keeps, and install again.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let Written::Edited(_) = unit.written else {
                return None;
            };
            let edit = unit.systemctl(&format!("edit {}", unit.name()));
            let more = format!(" --diff   (move the change into a drop-in: {edit})");
            Problem::at(unit.file(), unit.written.why_not(), install(facts, &more))
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-foreign",
        title: "the unit was not written by gatewayctl",
        why: "gatewayctl install and uninstall leave it alone, so gatewayctl does not keep it up \
               to date.",
        cure: "Replace it deliberately with gatewayctl install, or leave it to its author.",
        judge: |facts| {
            let unit = facts.unit.as_ref().filter(|unit| unit.in_our_place)?;
            let Written::Foreign(_) = unit.written else {
                return None;
            };
            let next = install(facts, " --diff");
            Problem::at(unit.file(), unit.written.why_not(), next)
        },
        ..Check::NOTE
    },
    Check {
        code: "unit-outdated",
        title: "the unit differs from what this version writes",
        why: "It was written by another version of gatewayctl or for another version of systemd, \
               and lacks later improvements.",
        cure: "Review the difference and install again. The configuration and your drop-ins are \
               kept.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let mut changed = lines(unit.outdated.as_ref()?);
            changed.retain(|line| {
                line.starts_with(['+', '-']) && !line.starts_with("---") && !line.starts_with("+++")
            });
            let version = env!("CARGO_PKG_VERSION");
            let message = format!("it differs from what gatewayctl {version} writes");
            let next = install(facts, " --diff   (then again without --diff)");
            Problem::with(changed, unit.file(), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-drop-in",
        title: "drop-ins change settings that restarts depend on",
        why: "Your drop-ins are kept. Look at them first when a restart does not go as expected.",
        cure: "Do nothing if the changes are intended.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let mut made = Vec::new();
            for file in unit.files.iter().skip(1) {
                let path = file.path.display();
                for UnitLine { number, key, value } in &file.lines {
                    if RESTART_SETTINGS.contains(&key.as_str()) {
                        made.push(format!("{path}:{number}: {key}={value}"));
                    }
                }
            }
            made.first()?;
            let next = command(unit.systemctl(&format!("cat {}", unit.name())));
            let message = "drop-ins change what restarts depend on";
            Problem::with(made, unit.name(), message, next)
        },
        ..Check::NOTE
    },
    Check {
        code: "unit-shadowed",
        title: "the unit hides another unit file of the same name",
        why: "Of several unit files with one name systemd reads only one. An update of a hidden \
               file, for example by a package, has no effect.",
        cure: "Remove the file that is not wanted.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let hidden: Vec<_> = unit.shadowed.iter().map(|path| path.display()).collect();
            let next = command(format!("diff {} {}", unit.file(), hidden.first()?));
            let detail = hidden.iter().map(|path| format!("hidden: {path}"));
            let message = "it hides another unit file of the same name";
            Problem::with(detail.collect(), unit.file(), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "unit-secret",
        title: "the unit contains a secret",
        why: "Every user can read unit files and the output of systemctl show.",
        cure: "Move the secret into an environment file with mode 0600 (EnvironmentFile=), and \
               replace it with a new one.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            unit.secrets.first()?;
            let secrets = unit.secrets.join(", ");
            let message = format!("every user can read {secrets} in the unit");
            let next = install(facts, " --env-file FILE   (with FILE of mode 0600)");
            Problem::at(unit.place("Environment"), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "env-file-missing",
        title: "an environment file is missing",
        why: "systemd does not start a service whose EnvironmentFile= does not exist.",
        cure: "Restore the file, or put `-` before its name if it is optional.",
        judge: |facts| {
            let mut files = facts.unit.as_ref()?.env_files.iter();
            let file = files.find(|file| file.mode.is_none() && !file.optional)?;
            let file = shell::word(&file.path);
            let message = "the unit needs it (EnvironmentFile=), but it does not exist";
            let next = command(format!("install -m 0600 /dev/null {file}   (then fill it)"));
            Problem::at(file, message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "env-file-misread",
        title: "systemd reads an environment file otherwise than it is meant",
        why: "EnvironmentFile= is not the dotenv format: systemd ignores lines that begin with \
               `export`, and takes a comment after a value for a part of the value.",
        cure: "Let the gateway read the file: gatewayctl install --env-file FILE. Then reload and \
               restart apply an edit, too.",
        judge: |facts| {
            let mut files = facts.unit.as_ref()?.env_files.iter();
            let file = files.find(|file| !file.misread.is_empty())?;
            let path = shell::word(&file.path);
            let message = format!("systemd reads {} otherwise", file.misread.join(", "));
            let next = install(facts, &format!(" --env-file {path}"));
            Problem::at(path, message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "env-file-mode",
        title: "every user can read an environment file with a secret",
        why: "Only systemd needs to read the file, and it does so as root before it switches to \
               the service's user.",
        cure: "With --fix: other users lose access to the file.",
        fixable: true,
        judge: env_file_mode,
        ..Check::WARNING
    },
];

fn install(facts: &DoctorFacts, more: &str) -> Remedy {
    command(format!("gatewayctl install{}{more}", instance(facts)))
}

/// The flag that names it, with a blank before it, where one is needed.
fn instance(facts: &DoctorFacts) -> String {
    match facts.instance.as_str() {
        DEFAULT_INSTANCE => String::new(),
        other => format!(" --instance {other}"),
    }
}

fn env_file_mode(facts: &DoctorFacts) -> Option<Problem> {
    let files = facts.unit.as_ref()?.env_files.iter();
    let (file, mode) = files
        .filter_map(|file| Some((file, file.mode.filter(|_| file.secret)?)))
        .find(|(_, mode)| mode & 0o007 != 0)?;
    let path = shell::word(&file.path);
    let chmod = format!("chmod o-rwx {path}");
    // A link, or a file of another user, may have readers that only its owner knows.
    let cure = if file.ours {
        Remedy::Fix(Fix::Mode(file.path.clone(), mode & 0o770), chmod)
    } else {
        command(chmod)
    };
    let message = format!("every user can read it (mode {mode:03o})");
    Problem::at(path, message, cure)
}
