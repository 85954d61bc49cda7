//! What is looked at before a restart is asked for: that the configuration is valid, and what the
//! restart will do.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use super::CliError;
use super::args::{GatewayCli, RestartArgs, Wait};
use crate::config::{self, Config, ConfigError, Env, Overrides};
use crate::control::protocol::{PlannedStrategy, Status};
use crate::os::process;
use crate::state::terms::StrategyName;

/// The configuration as a running gateway would read it now: with its own flags and environment.
/// None where those cannot be known here; the gateway checks by itself before it changes anything.
///
/// # Errors
/// Exit code 78 with place and next command when it is not valid.
pub fn check(status: &Status) -> Result<Option<Config>, CliError> {
    let Some((flags, environment)) = as_started(status) else {
        return Ok(None);
    };
    let env = |name: &str| environment.get(OsStr::new(name)).cloned();
    let file = flags.config.clone();
    match config::load(&flags, &Env(&env)) {
        Ok(loaded) => Ok(Some(loaded.config)),
        // It may see other files than we do: a service has a /tmp of its own.
        Err(ConfigError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(refusal(
            error,
            file,
            &format!("generation {} serves on", status.generation),
        )),
    }
}

/// The refusal of a restart whose configuration is not valid.
pub fn refusal(error: ConfigError, file: Option<PathBuf>, unchanged: &str) -> CliError {
    let mut error = CliError::from(error);
    error
        .message
        .push_str(&format!("\nnothing was changed: {unchanged}"));
    match file {
        Some(file) => error.with_help(format!(
            "gatewayctl config check --config {}",
            file.display()
        )),
        None => error,
    }
}

/// How a gateway's process was started.
#[derive(Debug)]
pub(super) struct ProcessStart {
    /// Its arguments, the program's name first.
    pub(super) line: Vec<OsString>,
    pub(super) environment: HashMap<OsString, OsString>,
    pub(super) cwd: PathBuf,
    pub(super) uid: u32,
}

/// How the gateway of this status was started; none where that cannot be known here.
pub(super) fn started(status: &Status) -> Option<ProcessStart> {
    let process = PathBuf::from(format!("/proc/{}", status.pid));
    // Another pid namespace has other processes of this number.
    if !process::program(status.pid)?
        .file_name()?
        .as_bytes()
        .starts_with(b"gateway")
    {
        return None;
    }
    let line = std::fs::read(process.join("cmdline")).ok()?;
    let line = line
        .strip_suffix(b"\0")?
        .split(|byte| *byte == 0)
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect();
    let environment = std::fs::read(process.join("environ")).ok()?;
    let pair = |entry: &[u8]| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        let (name, value) = entry.split_at(at);
        Some((
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value.get(1..)?.to_vec()),
        ))
    };
    let environment = environment
        .split(|byte| *byte == 0)
        .filter_map(pair)
        .collect();
    let cwd = std::fs::read_link(process.join("cwd")).ok()?;
    let uid = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(&process).ok()?);
    Some(ProcessStart {
        line,
        environment,
        cwd,
        uid,
    })
}

/// Flags and environment of a gateway's process.
fn as_started(status: &Status) -> Option<(Overrides, HashMap<OsString, OsString>)> {
    let ProcessStart {
        line,
        environment,
        cwd,
        uid,
    } = started(status)?;
    let mut flags = GatewayCli::read(line).ok()?.overrides();
    flags.instance = Some(status.instance.clone());
    match &status.config {
        Some(file) => flags.config = Some(cwd.join(file)),
        // Without a file, where one would be depends on the user.
        None if uid != nix::unistd::geteuid().as_raw() => return None,
        None => {}
    }
    Some((flags, environment))
}

/// What a restart will do, in one line.
pub fn plan(config: &Config, args: &RestartArgs, strategy: &PlannedStrategy) -> String {
    let beside = names(config, true);
    let alone = names(config, false);
    let rest = match (args.force, args.wait) {
        (true, _) => "what is left of its work is cut".to_owned(),
        (false, Some(Wait::Forever)) => "the old one ends when its requests are done".to_owned(),
        (false, Some(Wait::Limit(limit))) => {
            format!("the old one has {} to finish its work", config::Dur(limit))
        }
        (false, None) => format!(
            "the old one has {} to finish its work",
            config.restart.drain
        ),
    };
    let mut steps = Vec::new();
    match strategy.name {
        _ if args.fresh => steps.push("a fresh process takes the listeners over".to_owned()),
        Some(StrategyName::Respawn) => steps.push("a fresh process takes the listeners over".to_owned()),
        Some(StrategyName::Exit) => steps.push("the gateway ends when its work is done, and its supervisor starts the next; new connections wait".to_owned()),
        _ => {}
    }
    if !beside.is_empty() {
        steps.push(format!(
            "a new {beside} is started beside the old one and takes over when it is ready; {rest}"
        ));
    }
    if !alone.is_empty() {
        steps.push(format!(
            "{alone} must not run twice: new requests wait while it is ended and started again"
        ));
    }
    if steps.is_empty() {
        steps.push(
            "there is no sidecar to restart, only the configuration to read again".to_owned(),
        );
    }
    format!("plan: {}", steps.join("; "))
}

fn names(config: &Config, overlap: bool) -> String {
    let names = config
        .sidecar
        .iter()
        .filter(|(_, spec)| spec.overlaps() == overlap)
        .map(|(name, _)| name.as_str());
    names.collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn plans_in_plain_words() {
        let text =
            "[sidecar.a]\ncommand = [\"a\"]\n[sidecar.b]\ncommand = [\"b\"]\noverlap = false\n";
        let strategy = |text: &str| PlannedStrategy::from(text.to_owned());
        let both = config::parse(text, None).unwrap();
        let args = RestartArgs {
            wait: Some(Wait::Limit(Duration::from_secs(5))),
            ..RestartArgs::default()
        };
        assert_eq!(
            plan(&both, &args, &strategy("in-process: why")),
            "plan: a new a is started beside the old one and takes over when it is ready; the old one has 5s to finish its work; \
             b must not run twice: new requests wait while it is ended and started again"
        );
        assert!(
            plan(&Config::default(), &RestartArgs::default(), &strategy("")).contains("no sidecar")
        );
        let fresh = RestartArgs {
            fresh: true,
            ..RestartArgs::default()
        };
        for (args, planned) in [(&fresh, "in-process: why"), (&args, "respawn: why")] {
            assert!(
                plan(&both, args, &strategy(planned))
                    .starts_with("plan: a fresh process takes the listeners over; a new a is")
            );
        }
    }

    #[test]
    fn a_process_that_is_no_gateway_tells_nothing() {
        let status = Status {
            pid: 1,
            ..crate::control::fake_gateway::status()
        };
        assert!(check(&status).unwrap().is_none());
    }
}
