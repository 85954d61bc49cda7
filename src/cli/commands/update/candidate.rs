//! Checks of a new gateway program before it is put in place: that it runs here, is a gateway, can
//! take over from the running one, and accepts its configuration.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::running::RunningProgram;
use crate::cli::{CliError, Exit};
use crate::config::regular_file::same_content;
use crate::control::protocol::{HANDOVER_VERSION, PROTOCOL_VERSION};
use crate::os::process;
use crate::os::program_run::{PROOF, explain, run};
use crate::text::escape::escape;
use crate::text::shell;

/// How many lines of a failed check are shown.
const LINES_SHOWN: usize = 8;

/// A program that passed the checks.
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

/// Checks a program that is to take over from a gateway with this hand-over version; nothing of the
/// running gateway is touched.
///
/// # Errors
/// [`Exit::Refused`] and why, [`Exit::Usage`] when there is no such file, [`Exit::Config`] when it
/// refuses the configuration.
pub async fn prove(
    file: &Path,
    running: &RunningProgram,
    handover: u32,
) -> Result<Candidate, CliError> {
    let refuse = |why: String| {
        let message = format!("{} {why}", file.display());
        Exit::Refused.error(message)
    };
    let unchanged = |error: CliError| error.and_line("nothing was changed");
    let found = executable(file, &refuse).map_err(unchanged)?;
    let exe = running.pid.map(|pid| format!("/proc/{pid}/exe").into());
    let exe: Option<PathBuf> = exe.filter(|exe: &PathBuf| exe.exists());
    // A copy of it, too, as after an update with the same file: it would take the place of the previous
    // program, and there would be no way back.
    let runs = exe.as_ref().unwrap_or(&running.program);
    if process::same_file(runs, &found) || same_content(runs, &found).unwrap_or(false) {
        let why = format!("is the program that {} runs already", running.instance);
        return Err(unchanged(refuse(why)));
    }
    let version = version(&found, running, handover, &refuse)
        .await
        .map_err(unchanged)?;
    check(&found, running, &refuse).await.map_err(unchanged)?;
    Ok(Candidate {
        file: found,
        version,
    })
}

/// The path of the file without symbolic links, if it is an executable file.
fn executable(file: &Path, refuse: &dyn Fn(String) -> CliError) -> Result<PathBuf, CliError> {
    let found = std::fs::canonicalize(file)
        .map_err(|error| Exit::Usage.error(format!("{}: {error}", file.display())))?;
    let metadata = std::fs::metadata(&found)
        .map_err(|error| refuse(format!("cannot be looked at: {error}")))?;
    if !metadata.is_file() {
        return Err(refuse("is not a file".into()));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        let help = format!("chmod +x {}", shell::word(file));
        return Err(refuse("is not executable".into()).with_help(help));
    }
    Ok(found)
}

/// The version of the program, if it can take over from the running gateway.
async fn version(
    found: &Path,
    running: &RunningProgram,
    handover: u32,
    refuse: &dyn Fn(String) -> CliError,
) -> Result<String, CliError> {
    let answer = async {
        let mut command = running.trial.command(found)?;
        command.arg("--version");
        run(command, PROOF).await
    };
    let answer = answer.await.map_err(|error| refuse(explain(&error)))?;
    let Some(text) = answer.good() else {
        let ended = answer.ended();
        return Err(refuse(format!(
            "does not tell its version: --version {ended}"
        )));
    };
    let Some(versions) = parse(text) else {
        let first = escape(text.lines().next().unwrap_or_default());
        return Err(refuse(format!(
            "is no gateway that can take over: --version says `{first}`, not \
             `gateway VERSION (handover {HANDOVER_VERSION}, control {PROTOCOL_VERSION})`"
        )));
    };
    if versions.handover != handover {
        let why = format!(
            "speaks hand-over version {}, the running gateway {handover}: they cannot hand over",
            versions.handover
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
    Ok(versions.program)
}

/// `FILE check` with the flags, the variables and the user of the running gateway.
async fn check(
    file: &Path,
    running: &RunningProgram,
    refuse: &dyn Fn(String) -> CliError,
) -> Result<(), CliError> {
    let trial = &running.trial;
    let command = trial.command(file).map(|mut command| {
        command.args(&trial.arguments);
        command
    });
    let command = command.map_err(|error| refuse(explain(&error)))?;
    let answer = run(command, PROOF)
        .await
        .map_err(|error| refuse(explain(&error)))?;
    if answer.good().is_some() {
        return Ok(());
    }
    let lines: Vec<&str> = answer.output.lines().collect();
    let last = &lines[lines.len().saturating_sub(LINES_SHOWN)..];
    if answer.code() == Some(i32::from(Exit::Config.code())) {
        let instance = &running.instance;
        let mut error = refuse(format!("refuses the configuration of {instance}"));
        error.exit = Exit::Config;
        return Err(error.quoting(last.iter().copied()));
    }
    let ended = answer.ended();
    let error = refuse(format!("does not get through `check`: it {ended}"));
    Err(error.quoting(last.iter().copied()))
}

/// Reads `gateway 0.1.0 (handover 1, control 1)`; later versions may say more in the parentheses.
fn parse(text: &str) -> Option<Versions> {
    let line = text.lines().next()?.strip_prefix("gateway ")?;
    let (program, rest) = line.split_once(" (")?;
    let mut handover = None;
    let mut control = None;
    for part in rest.strip_suffix(')')?.split(", ") {
        match part.split_once(' ') {
            Some(("handover", number)) => handover = number.parse().ok(),
            Some(("control", number)) => control = number.parse().ok(),
            _ => {}
        }
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+');
    let plain = !program.is_empty() && program.chars().all(plain);
    plain.then_some(Versions {
        program: program.to_owned(),
        handover: handover?,
        control: control?,
    })
}

#[cfg(test)]
mod tests;
