//! Checks before a start or restart, and what a restart will do.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use super::answering_gateway::AnsweringGateway;
use super::args::{RestartArgs, Wait};
use super::process_start::ProcessStart;

use super::{CliError, Exit};
use crate::config::{self, Config, ConfigError, Env, Reload, SidecarSpec};
use crate::control::client::SocketPeer;
use crate::control::protocol::{PlannedStrategy, Status};
use crate::os::program_run::{self, PROOF, ProgramOutput};
use crate::service::{self, Installed, ServiceProcess};
use crate::state::terms::StrategyName;
use crate::text::{escape, shell};

/// The configuration as a running gateway would read it now: that of its service, or, for a gateway
/// that this user started by hand, with its own flags and environment. None where it cannot be known
/// here, as for another user's gateway, which could name any file; the gateway checks by itself
/// before it changes anything.
///
/// # Errors
/// Exit code 78 with place and next command when it is not valid.
pub fn check(
    answering: &AnsweringGateway,
    peer: SocketPeer,
    status: &Status,
) -> Result<Option<Config>, CliError> {
    let serves_on = format!("generation {} serves on", status.generation);
    match answering {
        AnsweringGateway::Service(unit, _) => {
            let read = service::configuration(&Env::real(), unit);
            let read = read.map_err(|error| refused(error, &serves_on))?;
            Ok(read.map(|(_, config)| config))
        }
        AnsweringGateway::OfThisUser => of_process(peer, status, &serves_on),
        AnsweringGateway::OfAnotherUser | AnsweringGateway::BesideService(..) => Ok(None),
    }
}

fn of_process(
    peer: SocketPeer,
    status: &Status,
    serves_on: &str,
) -> Result<Option<Config>, CliError> {
    let Some(start) = ProcessStart::of_gateway(peer, status) else {
        return Ok(None);
    };
    let file = start.flags.config.clone();
    match start.load() {
        Ok(loaded) => Ok(Some(loaded.config)),
        // The gateway may see other files than this command: a service has a /tmp of its own.
        Err(ConfigError::Unreadable { .. }) => Ok(None),
        Err(error) => Err(refusal(error, file, serves_on)),
    }
}

/// The refusal with the file that the error names.
fn refused(error: ConfigError, unchanged: &str) -> CliError {
    let file = match &error {
        ConfigError::Invalid { path, .. } => path.clone(),
        ConfigError::Unreadable { path, .. } => Some(path.clone()),
    };
    refusal(error, file, unchanged)
}

/// The refusal of a restart whose configuration is not valid.
pub fn refusal(error: ConfigError, file: Option<PathBuf>, unchanged: &str) -> CliError {
    let mut error = CliError::from(error);
    error.add_line(format!("nothing was changed: {unchanged}"));
    error.help = file.map(|file| format!("gatewayctl config check --config {}", shell::word(file)));
    error
}

/// Refuses to start a service whose configuration is not valid: it would only fail, and be down
/// after a restart.
///
/// # Errors
/// Exit code 78 with place and next command.
pub fn refuse_invalid(env: &Env<'_>, unit: &Installed) -> Result<(), CliError> {
    let Err(error) = service::configuration(env, unit) else {
        return Ok(());
    };
    Err(refused(error, &format!("{} is as it was", unit.unit)))
}

/// Refuses to restart a service whose program is not there, or does not run: it would be down
/// afterwards.
///
/// # Errors
/// [`Exit::Refused`] with the program and why.
pub(super) async fn refuse_unrunnable(env: &Env<'_>, unit: &Installed) -> Result<(), CliError> {
    let Some(process) = ServiceProcess::of(env, unit).await? else {
        return Ok(());
    };
    let why = match version_of(&process).await {
        Ok(None) => return Ok(()),
        Ok(Some(answer)) if answer.good().is_some() => return Ok(()),
        Ok(Some(answer)) => format!("does not tell its version: --version {}", answer.ended()),
        Err(error) => program_run::explain(&error),
    };
    let Installed { unit, instance, .. } = unit;
    let program = escape::escape(&process.program.to_string_lossy()).into_owned();
    let message = format!("{program}, which {unit} runs, {why}");
    let help =
        format!("gatewayctl install --instance {instance}   (writes where the program is now)");
    let error = Exit::Refused.error(message).and_line("nothing was changed");
    Err(error.with_help(help))
}

/// What the program of a service says with `--version`. It may lie where the service's user can
/// write, so it runs as that user, with the variables of its unit and without a terminal, as it would
/// in the service. None where systemd has no user for it now: then it is only looked at.
async fn version_of(process: &ServiceProcess) -> io::Result<Option<ProgramOutput>> {
    let Some(user) = &process.user else {
        let facts = std::fs::metadata(&process.program)?;
        return match facts.is_file() && facts.mode() & 0o111 != 0 {
            true => Ok(None),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        };
    };
    let mut command = user.command(&process.program)?;
    command
        .arg("--version")
        .env_clear()
        .envs(process.environment.clone())
        .current_dir("/");
    program_run::run(command, PROOF).await.map(Some)
}

/// The step of a restart in a successor.
const FRESH: &str = "a fresh process takes the listeners over";

/// What a restart will do, in one line. The sidecars that are `down` have no work to finish.
pub fn plan(
    config: &Config,
    args: &RestartArgs,
    strategy: &PlannedStrategy,
    down: &[String],
) -> String {
    let keeps = !args.force && !args.fresh && strategy.name == Some(StrategyName::InProcess);
    let anew = |spec: &SidecarSpec| !keeps || spec.reload.is_none();
    let is_down = |name: &str| down.iter().any(|down| down == name);
    let overlapping = names(config, |name, spec| {
        anew(spec) && spec.overlaps() && !is_down(name)
    });
    let exclusive = names(config, |name, spec| {
        anew(spec) && !spec.overlaps() && !is_down(name)
    });
    let down = names(config, |name, _| is_down(name));
    let limit = match args.wait {
        Some(Wait::Limit(limit)) => config::Dur(limit),
        _ => config.restart.drain,
    };
    let old_work = match args.wait {
        _ if args.force => "what is left of its work is cut".to_owned(),
        Some(Wait::Forever) => "the old one ends when its requests are done".to_owned(),
        _ => format!("the old one has {limit} to finish its work"),
    };
    let mut steps = Vec::new();
    match strategy.name {
        Some(StrategyName::Exit) if !args.fresh => steps.push("the gateway ends when its work is done, and its supervisor starts the next; new connections wait".to_owned()),
        Some(StrategyName::Respawn) => steps.push(FRESH.to_owned()),
        _ if args.fresh => steps.push(FRESH.to_owned()),
        _ => {}
    }
    for (name, spec) in &config.sidecar {
        if let Some(Reload { means, .. }) = &spec.reload
            && keeps
            && !is_down(name)
        {
            steps.push(format!(
                "{name} restarts by its own means ({means}), if its specification is the same; new requests wait"
            ));
        }
    }
    if !down.is_empty() {
        steps.push(format!(
            "{down} does not serve now: it is started anew, and gets requests when it is ready"
        ));
    }
    if !overlapping.is_empty() {
        steps.push(format!(
            "a new {overlapping} is started beside the old one and takes over when it is ready; {old_work}"
        ));
    }
    if !exclusive.is_empty() {
        steps.push(format!(
            "{exclusive} must not run twice: new requests wait while it is ended and started again"
        ));
    }
    if steps.is_empty() {
        steps.push("there is no sidecar to restart, only the configuration to read again".into());
    }
    format!("plan: {}", steps.join("; "))
}

fn names(config: &Config, wanted: impl Fn(&str, &SidecarSpec) -> bool) -> String {
    let sidecars = config.sidecar.iter();
    let wanted = sidecars.filter(|(name, spec)| wanted(name.as_str(), spec));
    let names = wanted.map(|(name, _)| name.as_str());
    names.collect::<Vec<_>>().join(" and ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::os::process::ProcessKey;

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
            plan(&both, &args, &strategy("in-process: why"), &[]),
            "plan: a new a is started beside the old one and takes over when it is ready; the old one has 5s to finish its work; \
             b must not run twice: new requests wait while it is ended and started again"
        );
        let down = ["a".to_owned()];
        assert_eq!(
            plan(&both, &args, &strategy("in-process: why"), &down),
            "plan: a does not serve now: it is started anew, and gets requests when it is ready; \
             b must not run twice: new requests wait while it is ended and started again"
        );
        let text = text.replace("overlap = false", "reload = { signal = \"HUP\" }");
        let own = config::parse(&text, None).unwrap();
        let own = |args: &RestartArgs| plan(&own, args, &strategy("in-process: why"), &[]);
        let text = own(&RestartArgs::default());
        assert!(
            text.starts_with("plan: b restarts by its own means (SIGHUP), "),
            "{text}"
        );
        let force = RestartArgs {
            force: true,
            ..RestartArgs::default()
        };
        assert!(!own(&force).contains("own means"));
        assert!(
            plan(
                &Config::default(),
                &RestartArgs::default(),
                &strategy(""),
                &[]
            )
            .contains("no sidecar")
        );
        let fresh = RestartArgs {
            fresh: true,
            ..RestartArgs::default()
        };
        for (args, planned) in [(&fresh, "in-process: why"), (&args, "respawn: why")] {
            let text = plan(&both, args, &strategy(planned), &[]);
            let expected = "plan: a fresh process takes the listeners over; a new a is";
            assert!(text.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn the_configuration_of_a_process_that_is_no_gateway_is_not_known() {
        let status = crate::control::fake_gateway::status();
        let peer = SocketPeer {
            uid: 0,
            process: ProcessKey::read(1),
        };
        let checked = |answering| check(&answering, peer, &status).unwrap();
        assert!(checked(AnsweringGateway::OfThisUser).is_none());
        assert!(checked(AnsweringGateway::OfAnotherUser).is_none());
    }
}
