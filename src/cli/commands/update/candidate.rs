//! A program that is to become the gateway must prove itself first: that it runs here, is a
//! gateway, can take over from the running one and understands its configuration.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cli::preflight::{self, ProcessStart};
use crate::cli::program_run::{PROOF, explain, run};
use crate::cli::{CliError, Exit};
use crate::control::protocol::{HANDOVER_VERSION, PROTOCOL_VERSION, Status};
use crate::os::process;

/// How many lines of a failed check are shown.
const LINES_SHOWN: usize = 8;

/// A program that proved itself.
#[derive(Debug)]
pub struct Candidate {
    pub file: PathBuf,
    pub version: String,
}

/// What `gateway --version` says.
#[derive(Debug, PartialEq, Eq)]
struct Versions {
    program: String,
    handover: u32,
    control: u32,
}

/// Proves a program: nothing of the running gateway is touched.
///
/// # Errors
/// [`Exit::Refused`] and why, [`Exit::Usage`] when there is no such file, [`Exit::Config`] when it
/// refuses the configuration.
pub async fn prove(file: &Path, program: &Path, running: &Status) -> Result<Candidate, CliError> {
    let nothing = "nothing was changed";
    let refuse = |why: String| Exit::Refused.error(format!("{} {why}\n{nothing}", file.display()));
    let found = std::fs::canonicalize(file)
        .map_err(|error| Exit::Usage.error(format!("{}: {error}", file.display())))?;
    let metadata = std::fs::metadata(&found)
        .map_err(|error| refuse(format!("cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(refuse("is not a file".into()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(
            refuse("is not executable".into()).with_help(format!("chmod +x {}", file.display()))
        );
    }
    let exe = PathBuf::from(format!("/proc/{}/exe", running.pid));
    let in_use = if exe.exists() { &exe } else { program };
    if process::same_file(in_use, &found) {
        return Err(refuse(format!(
            "is the program that {} runs already",
            running.instance
        )));
    }
    let answer = run(bare(&found), PROOF)
        .await
        .map_err(|error| refuse(explain(&error)))?;
    let Some(text) = answer.good() else {
        return Err(refuse(format!(
            "does not tell its version: --version {}",
            answer.ended()
        )));
    };
    let first = crate::text::escape::escape(text.lines().next().unwrap_or_default()).into_owned();
    let Some(versions) = parse(text) else {
        let expected =
            format!("gateway VERSION (handover {HANDOVER_VERSION}, control {PROTOCOL_VERSION})");
        return Err(refuse(format!(
            "is no gateway that can take over: --version says `{first}`, not `{expected}`"
        )));
    };
    if versions.handover != running.handover {
        let why = format!(
            "speaks hand-over version {}, the running gateway {}: they cannot hand over",
            versions.handover, running.handover
        );
        return Err(refuse(why).with_help("put it in place by hand and restart through the service manager: queued connections wait there"));
    }
    if versions.control != PROTOCOL_VERSION {
        let why = format!(
            "speaks control version {}, this gatewayctl {PROTOCOL_VERSION}",
            versions.control
        );
        return Err(refuse(why).with_help("use the gatewayctl that came with it"));
    }
    check(&found, running, &refuse).await?;
    Ok(Candidate {
        file: found,
        version: versions.program,
    })
}

/// `FILE check` with the flags and variables of the running gateway.
async fn check(
    file: &Path,
    running: &Status,
    refuse: &dyn Fn(String) -> CliError,
) -> Result<(), CliError> {
    let mut command = Command::new(file);
    match preflight::started(running) {
        Some(ProcessStart {
            line,
            environment,
            cwd,
            ..
        }) => {
            command.args(check_line(&line)).current_dir(cwd);
            command
                .env_clear()
                .envs(environment.into_iter().filter(|(name, _)| is_read(name)));
        }
        None => {
            command.arg("check").args(
                running
                    .config
                    .iter()
                    .flat_map(|config| ["--config", config.as_str()]),
            );
        }
    }
    let answer = run(command, PROOF)
        .await
        .map_err(|error| refuse(explain(&error)))?;
    if answer.good().is_some() {
        return Ok(());
    }
    let lines: Vec<String> = answer
        .output
        .lines()
        .map(|line| crate::text::escape::escape(line).into_owned())
        .collect();
    let last = lines
        .get(lines.len().saturating_sub(LINES_SHOWN)..)
        .unwrap_or_default();
    let shown = last
        .iter()
        .fold(String::new(), |text, line| text + "\n  | " + line);
    if answer.status.and_then(|status| status.code()) == Some(i32::from(Exit::Config.code())) {
        let mut error = refuse(format!(
            "refuses the configuration of {}{shown}",
            running.instance
        ));
        error.exit = Exit::Config;
        return Err(error);
    }
    Err(refuse(format!(
        "does not get through `check`: it {}{shown}",
        answer.ended()
    )))
}

/// The arguments of `gateway check` for what was started with this command line.
fn check_line(line: &[OsString]) -> Vec<OsString> {
    let given = line.get(1..).unwrap_or_default();
    let flags = if given.first().is_some_and(|word| word == "run") {
        given.get(1..).unwrap_or_default()
    } else {
        given
    };
    std::iter::once(OsString::from("check"))
        .chain(flags.iter().cloned())
        .collect()
}

/// Whether the configuration is read from this variable. No others are taken over: the gateway may
/// be another user's, and what LD_PRELOAD names is not to run as us.
fn is_read(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else {
        return false;
    };
    let ours = name.starts_with("GATEWAY_") && name != "GATEWAY_HANDOVER";
    ours || name.starts_with("XDG_")
        || matches!(
            name,
            "HOME" | "STATE_DIRECTORY" | "RUNTIME_DIRECTORY" | "CONFIGURATION_DIRECTORY"
        )
}

fn bare(file: &Path) -> Command {
    let mut command = Command::new(file);
    command.arg("--version");
    command
}

/// Reads `gateway 0.1.0 (handover 1, control 1)`; later versions may say more in the parentheses.
fn parse(text: &str) -> Option<Versions> {
    let (program, rest) = text
        .lines()
        .next()?
        .strip_prefix("gateway ")?
        .split_once(" (")?;
    let mut handover = None;
    let mut control = None;
    for part in rest.strip_suffix(')')?.split(", ") {
        match part.split_once(' ') {
            Some(("handover", number)) => handover = number.parse().ok(),
            Some(("control", number)) => control = number.parse().ok(),
            _ => {}
        }
    }
    let plain = !program.is_empty()
        && program
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+'));
    plain.then_some(Versions {
        program: program.to_owned(),
        handover: handover?,
        control: control?,
    })
}

#[cfg(test)]
mod tests;
