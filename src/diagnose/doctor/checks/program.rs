//! The programs: the gateway's own, and those behind it.

use std::path::Path;

use super::super::facts::{Facts, is_passing};
use super::super::finding::{Check, Level, Seen, advice, command};

/// Folders of version managers: what lies there goes when the version does.
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
        what: "the gateway's program is not there",
        why: "What runs goes on, but no restart, crash or boot can start it again.",
        cure: "Put the program back, or install again with the gatewayctl that lies beside it.",
        mends: false,
        judge: missing,
    },
    Check {
        code: "program-replaced",
        level: Level::Warning,
        what: "the program on disk is not the one that runs",
        why: "An update took place and the gateway has not been restarted into it; a crash would do so at a bad moment.",
        cure: "gatewayctl restart --fresh, which loses no request.",
        mends: false,
        judge: replaced,
    },
    Check {
        code: "program-version",
        level: Level::Warning,
        what: "gateway and gatewayctl are of different versions",
        why: "They speak the same protocol within a version; a newer one may ask for what the older does not know.",
        cure: "gatewayctl update, or restart into the version on disk.",
        mends: false,
        judge: version,
    },
    Check {
        code: "program-temporary",
        level: Level::Warning,
        what: "a program lies where files do not stay",
        why: "What lies in /tmp or in a build folder goes with the next boot, clean-up or build, and the next start fails.",
        cure: "Copy it to a place that stays, such as /usr/local/bin or /opt, and install again.",
        mends: false,
        judge: temporary,
    },
    Check {
        code: "command-missing",
        level: Level::Error,
        what: "the program of a sidecar is not there",
        why: "What runs goes on, but the next restart fails.",
        cure: "Put it back, or change its command in the configuration.",
        mends: false,
        judge: command_missing,
    },
    Check {
        code: "command-version-manager",
        level: Level::Warning,
        what: "a sidecar's program belongs to a version manager",
        why: "Its path names one version or needs a shell's set-up: it goes when that version is removed or the shell's is changed.",
        cure: "Use an interpreter of the system, or a path that stays through upgrades.",
        mends: false,
        judge: version_manager,
    },
    Check {
        code: "cwd-missing",
        level: Level::Error,
        what: "the folder of a sidecar is not there",
        why: "The next restart cannot start it there.",
        cure: "Make the folder, or change cwd in the configuration.",
        mends: false,
        judge: cwd,
    },
    Check {
        code: "path-missing",
        level: Level::Note,
        what: "folders of a configured PATH are not there",
        why: "Programs that the server starts by name are looked for there in vain.",
        cure: "Install again from a shell with the PATH of now, or take them out of env.PATH.",
        mends: false,
        judge: path,
    },
];

fn missing(facts: &Facts) -> Option<Seen> {
    let unit = facts.unit.as_ref()?;
    let program = unit
        .says
        .as_ref()?
        .program
        .as_ref()
        .filter(|program| !program.exists())?;
    Seen::at(
        unit.place("ExecStart"),
        format!("{} is not there", program.display()),
        command(format!("ls -l {}", program.display())),
    )
}

fn replaced(facts: &Facts) -> Option<Seen> {
    let process = facts
        .process
        .as_ref()
        .filter(|process| process.replaced && process.program.exists())?;
    let message = format!("pid {} runs a file that was replaced since", process.pid);
    Seen::at(
        process.program.display(),
        message,
        command(format!("gatewayctl restart --fresh{}", facts.flags)),
    )
}

fn version(facts: &Facts) -> Option<Seen> {
    let live = facts
        .live
        .as_ref()
        .filter(|live| live.version != env!("CARGO_PKG_VERSION"))?;
    let message = format!(
        "the gateway is {}, gatewayctl is {}",
        live.version,
        env!("CARGO_PKG_VERSION")
    );
    let place = live
        .program
        .clone()
        .unwrap_or_else(|| format!("pid {}", live.pid));
    Seen::at(
        place,
        message,
        command(format!(
            "gatewayctl restart --fresh{}   (when both are replaced on disk)",
            facts.flags
        )),
    )
}

fn temporary(facts: &Facts) -> Option<Seen> {
    let own = facts.unit.as_ref().and_then(|unit| {
        Some((
            unit.place("ExecStart"),
            unit.says.as_ref()?.program.clone()?,
        ))
    });
    let config = facts.config.get();
    let sidecars = config.sidecar.iter().filter_map(|(name, spec)| {
        Some((
            format!("[sidecar.{name}] command"),
            spec.command.first()?.into(),
        ))
    });
    // Only of a service is expected that it outlives the day.
    let (place, program) = own
        .into_iter()
        .chain(sidecars)
        .filter(|_| facts.unit.is_some())
        .find(|(_, program)| is_passing(program))?;
    let cure =
        advice("copy it to a place that stays, such as /usr/local/bin or /opt, and install again");
    Seen::at(
        place,
        format!("{} lies where files do not stay", program.display()),
        cure,
    )
}

fn command_missing(facts: &Facts) -> Option<Seen> {
    let (name, program) = facts.config.missing.first()?;
    let place = format!("{}: [sidecar.{name}] command", facts.config.path.display());
    let next = if program.contains('/') {
        format!("ls -l {program}")
    } else {
        format!("command -v {program}")
    };
    Seen::at(
        place,
        format!("`{program}` is not there, or is no program"),
        command(next),
    )
}

fn version_manager(facts: &Facts) -> Option<Seen> {
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
    Seen::at(
        place,
        format!("{word} belongs to {by}"),
        command(format!("type -a {interpreter}   (which others there are)")),
    )
}

/// The version manager that a path belongs to.
fn manager(path: &str) -> Option<&'static str> {
    VERSION_MANAGERS
        .into_iter()
        .find(|(part, _)| path.contains(part))
        .map(|(_, name)| name)
}

fn cwd(facts: &Facts) -> Option<Seen> {
    let (name, folder) = facts.config.no_folder.first()?;
    let place = format!("{}: [sidecar.{name}] cwd", facts.config.path.display());
    Seen::at(
        place,
        format!("{} is not there", folder.display()),
        command(format!("mkdir -p {}", folder.display())),
    )
}

fn path(facts: &Facts) -> Option<Seen> {
    let (name, _) = facts.config.no_path.first()?;
    let place = format!("{}: [sidecar.{name}] env.PATH", facts.config.path.display());
    let gone: Vec<String> = facts
        .config
        .no_path
        .iter()
        .map(|(_, folder)| folder.display().to_string())
        .collect();
    Seen::at(
        place,
        format!("it names folders that are not there: {}", gone.join(", ")),
        advice("take them out of env.PATH"),
    )
}
