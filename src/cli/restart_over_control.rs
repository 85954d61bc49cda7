//! A change that a gateway carries out by itself: asked for, watched, and followed into the process
//! that serves afterwards.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::downtime_probe::{Downtime, DowntimeProbe};
use super::query::{STATUS_TIME, status_now};
use super::target::Target;
use super::{CliError, Context, Exit};
use crate::config::Listen;
use crate::control::client::{CallError, Client};
use crate::control::protocol::{FailureCode, GenerationInfo, Method, Outcome, Stage, Status};
use crate::os::process::Process;
use crate::state::terms::RequestOutcome;
use crate::text::words::Words;

/// How long the next process may take to serve, once the old one is gone and its supervisor has to
/// start it: TimeoutStartSec of our units.
const NEXT_LIFE: Duration = Duration::from_secs(90);

/// How often a gateway that is being started is looked for: nothing tells of a socket that begins
/// to be answered.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a gateway that has not answered yet is looked at from beside: one whose loop stands
/// still would be waited for for ever, because what it waits for may rightly take any time.
const BESIDE_EVERY: Duration = Duration::from_secs(5);

/// So often in a row a look has to be in vain: one may fall into a hand-over.
const BESIDE: u32 = 3;

/// How often a request follows the gateway from one process to the next: each hand-over takes
/// longer than asking again.
const MOVES: usize = 3;

/// A change that was carried out.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) outcome: Outcome,
    /// What clients saw; none when the front door did not answer before.
    pub(super) seen: Option<Downtime>,
    /// How things stand now, where it can be known.
    pub(super) now: Option<Status>,
}

/// Why a change is not known to be carried out.
#[derive(Debug)]
pub(super) enum Undone {
    /// The user no longer waits; the gateway goes on with it.
    Interrupted(CliError),
    Failed(CliError),
}

impl From<Undone> for CliError {
    fn from(undone: Undone) -> Self {
        match undone {
            Undone::Interrupted(error) | Undone::Failed(error) => error,
        }
    }
}

/// Asks the gateway of `before` for a change, shows the steps, and returns when it serves all new
/// requests.
pub(super) async fn carry_out(
    ctx: &Context,
    target: &Target,
    client: Client,
    before: &Status,
    method: &Method,
) -> Result<Done, Undone> {
    tokio::select! {
        done = ask(ctx, target, client, before, method) => done.map_err(Undone::Failed),
        () = interrupted() => {
            let message = format!(
                "interrupted: {} goes on with it, and generation {} serves until the next one is ready",
                before.instance, before.generation
            );
            Err(Undone::Interrupted(Exit::StillBusy.error(message).with_help(format!("gatewayctl status{}", target.flags))))
        }
    }
}

async fn ask(
    ctx: &Context,
    target: &Target,
    mut client: Client,
    before: &Status,
    method: &Method,
) -> Result<Done, CliError> {
    let listen = before
        .listeners
        .first()
        .and_then(|address| address.parse::<Listen>().ok());
    let probe = match &listen {
        Some(listen) => timeout(STATUS_TIME, DowntimeProbe::start(listen))
            .await
            .ok()
            .flatten(),
        None => None,
    };
    let begun = Instant::now();
    let step = |text: &str| {
        ctx.ui
            .progress(&format!("{:>7.2}s  {text}", begun.elapsed().as_secs_f64()))
    };
    let mut answer = tokio::select! {
        answer = client.call::<Outcome>(method, |progress| step(&progress.text)) => answer,
        error = stuck(target, before, method) => return Err(error),
    };
    // It came to a process that had just handed over.
    for _ in 0..MOVES {
        if !matches!(&answer, Err(CallError::Refused(failure)) if failure.code == FailureCode::Moved)
        {
            break;
        }
        client = target.connect().await?;
        answer = client
            .call::<Outcome>(method, |progress| step(&progress.text))
            .await;
    }
    let mut followed = Ok(());
    if let Some(outcome) = answer
        .as_mut()
        .ok()
        .filter(|outcome| outcome.outcome == RequestOutcome::Scheduled)
    {
        step(&format!(
            "pid {} finishes its work and ends; its supervisor starts the next",
            before.pid
        ));
        if is_inside(before.pid) {
            // It will not live to see it: what is left of a service ends with its main process.
            return Ok(Done {
                outcome: outcome.clone(),
                seen: None,
                now: None,
            });
        }
        client.closed().await;
        step(&format!("pid {} is gone", before.pid));
        match next_life(target, before).await {
            Ok(next) => {
                outcome.outcome = RequestOutcome::Done;
                outcome.pid = Some(next.pid);
                outcome.after = generation(&next);
                outcome.took_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
                outcome.drained = true;
            }
            Err(error) => followed = Err(error),
        }
    }
    let seen = match probe {
        Some(probe) => Some(probe.finish().await),
        None => None,
    };
    followed?;
    // Over a connection of its own: the one before may lead to a process that only finishes its
    // work.
    let now = status_now(target).await.ok();
    match answer {
        Ok(outcome) => Ok(Done { outcome, seen, now }),
        Err(error) => Err(failed(target, error, seen.as_ref(), now.as_ref())),
    }
}

/// Whether this command runs in the service of process `pid`.
fn is_inside(pid: u32) -> bool {
    let service = |pid| Process::read(pid).and_then(|process| process.service().map(str::to_owned));
    service(pid)
        .is_some_and(|theirs| service(std::process::id()).is_some_and(|ours| ours == theirs))
}

/// Returns when the gateway that was asked seems to stand still.
async fn stuck(target: &Target, before: &Status, method: &Method) -> CliError {
    // One that was asked to answer when its old work is done does so from behind its successor.
    let from_behind = matches!(method, Method::Restart(params) if params.drained);
    let mut in_vain = 0;
    loop {
        sleep(BESIDE_EVERY).await;
        let error = match status_now(target).await {
            Ok(now) if now.pid == before.pid || from_behind => {
                in_vain = 0;
                continue;
            }
            Ok(now) => {
                let message = format!(
                    "pid {}, which was asked, does not answer; pid {} serves generation {}",
                    before.pid, now.pid, now.generation
                );
                Exit::StillBusy
                    .error(message)
                    .with_help(format!("gatewayctl status{}", target.flags))
            }
            Err(error) => error,
        };
        in_vain += 1;
        if in_vain == BESIDE {
            return error;
        }
    }
}

/// Waits for a process that serves, other than that of `before`, which is gone.
async fn next_life(target: &Target, before: &Status) -> Result<Status, CliError> {
    let mut last = "nothing answers".to_owned();
    let looking = async {
        loop {
            if let Ok(status) = status_now(target).await
                && status.pid != before.pid
            {
                match status.stage {
                    stage if stage.serves() => return Ok(status),
                    Stage::Starting | Stage::Stopping | Stage::StandingBy => {}
                    bad => {
                        let message = format!(
                            "the next process (pid {}) is {}: {}",
                            status.pid,
                            bad.in_words(),
                            status.detail
                        );
                        return Err(Exit::Failed
                            .error(message)
                            .with_help(format!("gatewayctl logs{}", target.flags)));
                    }
                }
                last = format!("pid {} is {}", status.pid, status.stage.in_words());
            }
            sleep(LOOK_EVERY).await;
        }
    };
    match timeout(NEXT_LIFE, looking).await {
        Ok(found) => found,
        Err(_) => {
            let waited = NEXT_LIFE.as_secs();
            let message = format!(
                "pid {} has ended, but no other serves {waited} s later: {last}",
                before.pid
            );
            Err(Exit::StillBusy.error(message).with_help(format!(
                "gatewayctl status{0}\ngatewayctl logs{0}",
                target.flags
            )))
        }
    }
}

fn generation(status: &Status) -> GenerationInfo {
    let sidecars = status
        .sidecars
        .iter()
        .map(|sidecar| (sidecar.name.clone(), sidecar.pid))
        .collect();
    GenerationInfo {
        number: status.generation,
        sidecars,
    }
}

/// A restart that did not succeed: why, what serves now, what clients saw, and where to look.
fn failed(
    target: &Target,
    error: CallError,
    seen: Option<&Downtime>,
    now: Option<&Status>,
) -> CliError {
    let mut error = target.call_failed(error);
    if let Some(now) = now.filter(|now| now.generation > 0) {
        let stands = if now.stage == Stage::Degraded {
            format!("is degraded: {}", now.detail)
        } else {
            "serves on".to_owned()
        };
        error
            .message
            .push_str(&format!("\ngeneration {} {stands}", now.generation));
    }
    if let Some(seen) = seen.filter(|seen| seen.sent > 0) {
        error.message.push_str(&format!("\n{}", seen.sentence()));
        error.probe = Some(Box::new(seen.clone()));
    }
    let file = now.and_then(|now| now.config.as_ref());
    let next = match (error.exit, file) {
        (Exit::Config, Some(file)) => format!("gatewayctl config check --config {file}"),
        (Exit::Config, None) => format!("gatewayctl config check{}", target.flags),
        _ => format!("gatewayctl logs{}", target.flags),
    };
    error.help.get_or_insert(next);
    error
}

/// Returns when the user no longer wants to wait.
pub(super) async fn interrupted() {
    let (Ok(mut int), Ok(mut term)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = int.recv() => {}
        _ = term.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::cli::args::Global;
    use crate::cli::query::status_of;
    use crate::config::Env;
    use crate::control::fake_gateway::{self, FakeGateway};
    use crate::control::protocol::RestartParams;
    use crate::state::paths::Paths;

    #[tokio::test]
    async fn a_scheduled_restart_is_followed_into_the_next_process() {
        let scheduled = Outcome {
            outcome: RequestOutcome::Scheduled,
            ..fake_gateway::outcome()
        };
        let double = FakeGateway::start(Ok(scheduled));
        let state = double.state.clone();
        let ctx = Context::quiet(&state);
        let target = Target::find(&ctx.global, &Env::real()).unwrap();
        let mut client = target.connect().await.unwrap();
        let before = status_of(&target, &mut client).await.unwrap();
        let method = Method::Restart(RestartParams::default());
        let (done, _next) =
            tokio::join!(carry_out(&ctx, &target, client, &before, &method), async {
                double.asked_for(2).await;
                // The supervisor ends one life and starts the next in the same place.
                double.end();
                FakeGateway::start_in(&state, Ok(fake_gateway::outcome()), 5678)
            });
        let outcome = done.unwrap().outcome;
        assert_eq!(
            (outcome.pid, outcome.after.number, outcome.drained),
            (Some(5678), 4, true)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_stands_still_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let global = Global {
            state_dir: Some(dir.path().to_owned()),
            ..Global::default()
        };
        let control = Paths::in_state_dir(dir.path()).control;
        std::fs::create_dir_all(control.parent().unwrap()).unwrap();
        let silent = std::os::unix::net::UnixListener::bind(&control).unwrap();
        let target = Target::find(&global, &Env::real()).unwrap();
        let method = Method::Restart(RestartParams::default());
        let error = stuck(&target, &fake_gateway::status(), &method).await;
        assert!(
            error.exit == Exit::Failed && error.message.contains("does not answer"),
            "{error:?}"
        );
        drop((silent, std::fs::remove_file(&control)));

        let _next = FakeGateway::start_in(dir.path(), Ok(fake_gateway::outcome()), 5678);
        let error = stuck(&target, &fake_gateway::status(), &method).await;
        assert!(
            error.exit == Exit::StillBusy && error.message.contains("pid 5678 serves"),
            "{error:?}"
        );
        let patient = Method::Restart(RestartParams {
            drained: true,
            ..RestartParams::default()
        });
        let before = fake_gateway::status();
        let waits = timeout(Duration::from_secs(600), stuck(&target, &before, &patient));
        assert!(waits.await.is_err(), "its old work may take any time");
    }
}
