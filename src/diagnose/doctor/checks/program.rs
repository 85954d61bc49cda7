//! The programs: the gateway's own and those of its sidecars.

use std::path::Path;

use crate::diagnose::doctor::facts::{DoctorFacts, is_temporary};
use crate::diagnose::doctor::finding::{Check, Level, Problem, advice, command};

/// Directories of version managers: their files disappear with the version.
const VERSION_MANAGERS: [(&str, &str); 11] = [
    ("/.nvm/", "nvm"),
    ("/.fnm/", "fnm"),
    ("/fnm_multishells/", "fnm"),
    ("/fnm/node-versions/", "fnm"),
    ("/.asdf/", "asdf"),
    ("/.volta/", "volta"),
    ("/mise/installs/", "mise"),
    ("/mise/shims/", "mise"),
    ("/.pyenv/", "pyenv"),
    ("/.rbenv/", "rbenv"),
    ("/.sdkman/", "sdkman"),
];

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "program-missing",
        level: Level::Error,
        title: "the gateway's program does not exist",
        why: "The running process goes on, but no restart, crash or boot can start the gateway \
               again.",
        cure: "Restore the program, or install again with the gatewayctl that lies next to it.",
        fixable: false,
        judge: program_missing,
    },
    Check {
        code: "program-replaced",
        level: Level::Warning,
        title: "the running program is not the one on disk",
        why: "The program was updated, but the gateway has not been restarted; a crash would \
               change the version at a bad moment.",
        cure: "Run gatewayctl restart --fresh; it loses no request.",
        fixable: false,
        judge: replaced,
    },
    Check {
        code: "program-version",
        level: Level::Warning,
        title: "gateway and gatewayctl have different versions",
        why: "Their protocol is the same within a version; a newer program may ask for what the \
               older one does not know.",
        cure: "Run gatewayctl update, or restart into the version on disk.",
        fixable: false,
        judge: version,
    },
    Check {
        code: "program-temporary",
        level: Level::Warning,
        title: "a program is in a temporary directory",
        why: "Files in /tmp or in a build directory disappear with the next boot, clean-up or \
               build. Then the next start fails.",
        cure: "Copy the program to a permanent directory, such as /usr/local/bin or /opt, and \
               install again.",
        fixable: false,
        judge: temporary,
    },
    Check {
        code: "command-missing",
        level: Level::Error,
        title: "a sidecar's program does not exist",
        why: "The running sidecar goes on, but its next restart fails.",
        cure: "Restore the program, or change command in the configuration.",
        fixable: false,
        judge: command_missing,
    },
    Check {
        code: "command-version-manager",
        level: Level::Warning,
        title: "a sidecar's program belongs to a version manager",
        why: "Its path names one version or depends on a shell's set-up: it disappears when that \
               version is removed or the set-up changes.",
        cure: "Use an interpreter of the system, or a path that survives upgrades.",
        fixable: false,
        judge: version_manager,
    },
    Check {
        code: "cwd-missing",
        level: Level::Error,
        title: "a sidecar's working directory does not exist",
        why: "The next restart of the sidecar fails.",
        cure: "Create the directory, or change cwd in the configuration.",
        fixable: false,
        judge: cwd_missing,
    },
    Check {
        code: "path-missing",
        level: Level::Note,
        title: "a configured PATH names directories that do not exist",
        why: "Programs that the sidecar starts by name are not found there.",
        cure: "Install again from a shell with the current PATH, or remove the directories from \
               env.PATH.",
        fixable: false,
        judge: path_missing,
    },
];

fn program_missing(facts: &DoctorFacts) -> Option<Problem> {
    let unit = facts.unit.as_ref()?;
    let program = unit
        .properties
        .as_ref()?
        .program
        .as_ref()
        .filter(|program| !program.exists())?;
    Problem::at(
        unit.place("ExecStart"),
        format!("{} does not exist", program.display()),
        command(format!("ls -l {}", program.display())),
    )
}

fn replaced(facts: &DoctorFacts) -> Option<Problem> {
    let process = facts
        .process
        .as_ref()
        .filter(|process| process.replaced && process.program.exists())?;
    let message = format!("pid {} runs a file that has been replaced", process.pid);
    Problem::at(
        process.program.display(),
        message,
        command(format!("gatewayctl restart --fresh{}", facts.flags)),
    )
}

fn version(facts: &DoctorFacts) -> Option<Problem> {
    let status = facts
        .status
        .as_ref()
        .filter(|status| status.version != env!("CARGO_PKG_VERSION"))?;
    let message = format!(
        "the gateway is {}, gatewayctl is {}",
        status.version,
        env!("CARGO_PKG_VERSION")
    );
    let place = status
        .program
        .clone()
        .unwrap_or_else(|| format!("pid {}", status.pid));
    Problem::at(
        place,
        message,
        command(format!(
            "gatewayctl restart --fresh{}   (after replacing both on disk)",
            facts.flags
        )),
    )
}

fn temporary(facts: &DoctorFacts) -> Option<Problem> {
    let own = facts.unit.as_ref().and_then(|unit| {
        Some((
            unit.place("ExecStart"),
            unit.properties.as_ref()?.program.clone()?,
        ))
    });
    let config = facts.config.get();
    let sidecars = config.sidecar.iter().filter_map(|(name, spec)| {
        Some((
            format!("[sidecar.{name}] command"),
            spec.command.first()?.into(),
        ))
    });
    // Only a service has to survive a boot.
    let (place, program) = own
        .into_iter()
        .chain(sidecars)
        .filter(|_| facts.unit.is_some())
        .find(|(_, program)| is_temporary(program))?;
    let cure = advice(
        "copy it to a permanent directory, such as /usr/local/bin or /opt, and install again",
    );
    Problem::at(
        place,
        format!("{} is in a temporary directory", program.display()),
        cure,
    )
}

fn command_missing(facts: &DoctorFacts) -> Option<Problem> {
    let (name, program) = facts.config.missing_programs.first()?;
    let place = format!("{}: [sidecar.{name}] command", facts.config.path.display());
    let next = if program.contains('/') {
        format!("ls -l {program}")
    } else {
        format!("command -v {program}")
    };
    Problem::at(
        place,
        format!("`{program}` does not exist or is not executable"),
        command(next),
    )
}

fn version_manager(facts: &DoctorFacts) -> Option<Problem> {
    let config = facts.config.get();
    let found = config.sidecar.iter().find_map(|(name, spec)| {
        let program = spec.command.first()?;
        let real = std::slice::from_ref(program)
            .iter()
            .chain(spec.command.get(1))
            .find_map(|word| manager(word).map(|by| (word, by)));
        real.map(|(word, by)| (name.clone(), word.clone(), by))
    });
    let (name, word, by) = found?;
    let place = format!("{}: [sidecar.{name}] command", facts.config.path.display());
    let interpreter = Path::new(&word)
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    Problem::at(
        place,
        format!("{word} belongs to {by}"),
        command(format!("type -a {interpreter}   (lists the alternatives)")),
    )
}

/// The version manager that a path belongs to.
fn manager(path: &str) -> Option<&'static str> {
    VERSION_MANAGERS
        .into_iter()
        .find(|(part, _)| path.contains(part))
        .map(|(_, name)| name)
}

fn cwd_missing(facts: &DoctorFacts) -> Option<Problem> {
    let (name, folder) = facts.config.missing_cwd.first()?;
    let place = format!("{}: [sidecar.{name}] cwd", facts.config.path.display());
    Problem::at(
        place,
        format!("{} does not exist", folder.display()),
        command(format!("mkdir -p {}", folder.display())),
    )
}

fn path_missing(facts: &DoctorFacts) -> Option<Problem> {
    let (name, _) = facts.config.missing_path.first()?;
    let place = format!("{}: [sidecar.{name}] env.PATH", facts.config.path.display());
    let gone: Vec<String> = facts
        .config
        .missing_path
        .iter()
        .map(|(_, folder)| folder.display().to_string())
        .collect();
    Problem::at(
        place,
        format!(
            "it names directories that do not exist: {}",
            gone.join(", ")
        ),
        advice("remove them from env.PATH"),
    )
}
