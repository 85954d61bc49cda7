//! The programs: the gateway's own and those of its sidecars.

use std::path::Path;

use crate::diagnose::doctor::facts::{DoctorFacts, is_temporary};
use crate::diagnose::doctor::finding::{Check, Problem, advice, command};
use crate::os::process;
use crate::service::version_manager;
use crate::state::paths::Scope;
use crate::text::shell;

pub(super) const CHECKS: &[Check] = &[
    Check {
        code: "program-missing",
        title: "the gateway's program does not exist",
        why: "The running process goes on, but no restart, crash or boot can start the gateway \
               again.",
        cure: "Restore the program, or install again with the gatewayctl that lies next to it.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            let program = unit.properties.program.as_ref()?;
            if program.exists() {
                return None;
            }
            let program = shell::word(program);
            let next = command(format!("ls -l {program}"));
            let message = format!("{program} does not exist");
            Problem::at(unit.place("ExecStart"), message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "program-replaced",
        title: "the running program is not the one on disk",
        why: "The program was updated, but the gateway has not been restarted; a crash would \
               change the version at a bad moment.",
        cure: "Run gatewayctl restart --fresh; it loses no request.",
        judge: |facts| {
            let process = facts.process.as_ref()?;
            if !process.replaced || !process.program.exists() {
                return None;
            }
            let message = format!("pid {} runs a file that has been replaced", process.pid);
            let next = command(format!("gatewayctl restart --fresh{}", facts.flags));
            Problem::at(process.program.display(), message, next)
        },
        ..Check::WARNING
    },
    Check {
        code: "program-version",
        title: "gateway and gatewayctl have different versions",
        why: "Their protocol is the same within a version; a newer program may ask for what the \
               older one does not know.",
        cure: "Run gatewayctl update, or restart into the version on disk.",
        judge: |facts| {
            let (status, ours) = (facts.status.as_ref()?, env!("CARGO_PKG_VERSION"));
            if status.version == ours {
                return None;
            }
            let place = status.program.clone();
            Problem::at(
                place.unwrap_or_else(|| format!("pid {}", status.pid)),
                format!("the gateway is {}, gatewayctl is {ours}", status.version),
                command(format!(
                    "gatewayctl restart --fresh{}   (after replacing both on disk)",
                    facts.flags
                )),
            )
        },
        ..Check::WARNING
    },
    Check {
        code: "program-temporary",
        title: "a program is in a temporary directory",
        why: "Files in /tmp or in a build directory disappear with the next boot, clean-up or \
               build. Then the next start fails.",
        cure: "Copy the program to a permanent directory, such as /usr/local/bin or /opt, and \
               install again.",
        judge: temporary,
        ..Check::WARNING
    },
    Check {
        code: "program-writable",
        title: "the service's user can replace the gateway's program",
        why: "The program, or a directory above it, belongs to the user that the service runs as: \
               whoever gets hold of a sidecar can put another program in its place, which then \
               runs with the next restart, and as root where root runs gatewayctl from there.",
        cure: "Copy gateway and gatewayctl to a directory of root, such as /usr/local/bin, and \
               install again with that gatewayctl.",
        judge: |facts| {
            let unit = facts.unit.as_ref()?;
            if unit.installed.scope == Scope::User {
                return None;
            }
            let program = unit.properties.program.as_ref()?;
            let uid = unit.uid.filter(|uid| process::can_replace(*uid, program))?;
            let message = format!("uid {uid} can replace {}", program.display());
            let cure = "copy both programs to /usr/local/bin, and install again from there";
            Problem::at(unit.place("ExecStart"), message, advice(cure))
        },
        ..Check::NOTE
    },
    Check {
        code: "command-missing",
        title: "a sidecar's program does not exist",
        why: "The running sidecar goes on, but its next restart fails.",
        cure: "Restore the program, or change command in the configuration.",
        judge: |facts| {
            let (name, program) = facts.config.missing_programs.first()?;
            let next = if program.contains('/') {
                format!("ls -l {}", shell::word(program))
            } else {
                format!("command -v {}", shell::word(program))
            };
            let message = format!("`{program}` does not exist or is not executable");
            Problem::at(sidecar_key(facts, name, "command"), message, command(next))
        },
        ..Check::ERROR
    },
    Check {
        code: "command-version-manager",
        title: "a sidecar's program belongs to one version of a version manager",
        why: "Its path names one version, or one session of a shell: it disappears when that is \
               removed or ends.",
        cure: "Use an interpreter of the system, or a path that survives upgrades, as the version \
               manager's shim.",
        judge: |facts| {
            let config = facts.config.get();
            let (name, word, by) = config.sidecar.iter().find_map(|(name, spec)| {
                // The program, or the script that it runs.
                let mut words = spec.command.iter().take(2);
                words.find_map(|word| Some((name, word, version_manager(word)?)))
            })?;
            let interpreter = Path::new(word)
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            Problem::at(
                sidecar_key(facts, name, "command"),
                format!("{word} belongs to {by}"),
                command(format!(
                    "type -a {}   (lists the alternatives)",
                    shell::word(&*interpreter)
                )),
            )
        },
        ..Check::WARNING
    },
    Check {
        code: "cwd-missing",
        title: "a sidecar's working directory does not exist",
        why: "The next restart of the sidecar fails.",
        cure: "Create the directory, or change cwd in the configuration.",
        judge: |facts| {
            let (name, dir) = facts.config.missing_cwd.first()?;
            let dir = shell::word(dir);
            let next = command(format!("mkdir -p {dir}"));
            let message = format!("{dir} does not exist");
            Problem::at(sidecar_key(facts, name, "cwd"), message, next)
        },
        ..Check::ERROR
    },
    Check {
        code: "cwd-read-only",
        title: "a sidecar cannot write to its working directory",
        why: "A server that keeps a database or uploads there fails with \"unable to open database \
               file\" or the like. A temporary user (DynamicUser=) writes nowhere, and the sandbox \
               shows parts of the system read-only.",
        cure: "Do nothing if the server writes nothing. Else install again with --run-as and the owner \
               of the directory, and name what the server writes with --writable.",
        judge: |facts| {
            let unit = facts
                .unit
                .as_ref()
                .filter(|unit| unit.writable.is_empty())?;
            let (name, dir) = facts.server_files.read_only_cwds.first()?;
            let dir = shell::word(dir);
            let user = if unit.dynamic { " --run-as USER" } else { "" };
            let install = format!("gatewayctl install{}{user} --writable {dir}", facts.flags);
            let message = format!("it cannot write to {dir}");
            let place = sidecar_key(facts, name, "cwd");
            Problem::at(place, message, command(unit.rights.as_root(&install)))
        },
        ..Check::NOTE
    },
    Check {
        code: "env-file-unusable",
        title: "a sidecar's file of variables cannot be used",
        why: "The next restart is refused, and the next start leaves the sidecar out until the file \
               can be used.",
        cure: "Correct the line that is named, or let the gateway's user read the file.",
        judge: |facts| {
            let (name, why) = facts.server_files.bad_env_files.first()?;
            let next = advice("correct the file, then: gatewayctl reload");
            Problem::at(sidecar_key(facts, name, "env_file"), why.clone(), next)
        },
        ..Check::ERROR
    },
    Check {
        code: "path-missing",
        title: "a configured PATH names directories that do not exist",
        why: "Programs that the sidecar starts by name are not found there.",
        cure: "Install again from a shell with the current PATH, or remove the directories from \
               env.PATH.",
        judge: |facts| {
            let missing = &facts.config.missing_path;
            let (name, _) = missing.first()?;
            let gone: Vec<String> = missing
                .iter()
                .map(|(_, dir)| dir.display().to_string())
                .collect();
            Problem::at(
                sidecar_key(facts, name, "env.PATH"),
                format!(
                    "it names directories that do not exist: {}",
                    gone.join(", ")
                ),
                advice("remove them from env.PATH"),
            )
        },
        ..Check::NOTE
    },
];

fn temporary(facts: &DoctorFacts) -> Option<Problem> {
    // Only a service has to survive a boot.
    let unit = facts.unit.as_ref()?;
    let own = unit.properties.program.clone();
    let own = own.map(|program| (unit.place("ExecStart"), program));
    let config = facts.config.get();
    let sidecars = config.sidecar.iter().filter_map(|(name, spec)| {
        let program = spec.command.first()?.into();
        Some((format!("[sidecar.{name}] command"), program))
    });
    let mut programs = own.into_iter().chain(sidecars);
    let (place, program) = programs.find(|(_, program)| is_temporary(program))?;
    let message = format!("{} is in a temporary directory", program.display());
    let cure =
        "copy it to a permanent directory, such as /usr/local/bin or /opt, and install again";
    Problem::at(place, message, advice(cure))
}

/// A key of a sidecar in the configuration, as a place.
fn sidecar_key(facts: &DoctorFacts, sidecar: &str, key: &str) -> String {
    let key = format!("[sidecar.{sidecar}] {key}");
    match facts.config.access {
        Some(_) => format!("{}: {key}", facts.config.path.display()),
        // It comes from flags.
        None => key,
    }
}
