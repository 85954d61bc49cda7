//! A restart or reload that the gateway carries out itself: asks for it over the control socket, and
//! follows it to the process that serves afterwards.

use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

use super::downtime_probe::{Downtime, DowntimeProbe, not_serving};
use super::patience::Patience;
use super::target::Target;
use super::{CliError, Context, Exit};
use crate::control::client::{CallError, Client};
use crate::control::protocol::{GenerationInfo, Method, Outcome, Progress, Stage, Status};
use crate::os::process::Process;
use crate::state::clients_seen::ClientsSeen;
use crate::state::terms::{ProgressStage, RequestOutcome};
use crate::text::shell;
use crate::text::words::Words;

/// How long the next process may take to serve, once the old one is gone and its supervisor has to
/// start it: TimeoutStartSec of our units.
const NEXT_LIFE: Duration = Duration::from_secs(90);

/// How often a gateway that is being started is asked for its status: it cannot be seen when a
/// socket begins to be answered.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How often a gateway that has not answered yet is asked for its status over another connection:
/// a restart may take any time, so a time limit would not show that the run loop hangs.
const CHECK_EVERY: Duration = Duration::from_secs(5);

/// So many checks in a row must fail: a single one may fail during a hand-over.
const FAILED_CHECKS: u32 = 3;

/// How long a command that the gateway ends with its servers waits for the answer to its request:
/// the gateway writes the answer to disk before it sends it. Servers are killed later than that
/// (`stop_timeout`, 10 s by default).
const LAST_ANSWER: Duration = Duration::from_secs(2);

/// A change that was carried out.
#[derive(Debug)]
pub(super) struct CompletedChange {
    pub(super) outcome: Outcome,
    /// What clients saw; none when the front door did not answer before.
    pub(super) seen: Option<Downtime>,
    /// The status afterwards, where it is known.
    pub(super) now: Option<Status>,
}

/// Why a change is not known to be carried out.
#[derive(Debug)]
pub(super) enum ChangeError {
    /// The user no longer waits; the gateway goes on with it.
    Interrupted(CliError),
    Failed(CliError),
}

impl From<ChangeError> for CliError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Interrupted(error) | ChangeError::Failed(error) => error,
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
) -> Result<CompletedChange, ChangeError> {
    let patience = match method {
        Method::Restart(params) => Patience::with(client.peer()).after(params.wait_ms),
        Method::RestartSidecar(params) => Patience::with(client.peer()).after(params.wait_ms),
        _ => Patience::with(client.peer()),
    };
    let interrupted = interrupted_for_good(is_inside(before.pid));
    tokio::select! {
        // What the gateway has said already counts, whoever ends this command in the same moment.
        biased;
        done = ask_and_follow(ctx, target, client, before, method) => done.map_err(ChangeError::Failed),
        error = patience.is_over(target) => Err(ChangeError::Interrupted(error)),
        () = interrupted => {
            let message = format!(
                "interrupted: {} goes on with it, and generation {} serves until the next one is ready",
                before.instance, before.generation
            );
            let error = Exit::StillBusy.error(message);
            Err(ChangeError::Interrupted(error.with_help(target.next("status"))))
        }
    }
}

async fn ask_and_follow(
    ctx: &Context,
    target: &Target,
    mut client: Client,
    before: &Status,
    method: &Method,
) -> Result<CompletedChange, CliError> {
    let probe = DowntimeProbe::start(before).await;
    let begun = Instant::now();
    let step = |text: &str| ctx.ui.step(begun, text);
    let mut hold = HoldTime::default();
    let heard = |progress: Progress| {
        hold.hear(progress.stage, Instant::now());
        step(&progress.text);
    };
    let mut answer: Result<Outcome, CallError> = tokio::select! {
        answer = target.call(&mut client, method, heard) => answer,
        error = hangs(target, before, method) => return Err(error),
    };
    let mut followed = Ok(());
    if let Ok(outcome) = &mut answer
        && outcome.outcome == RequestOutcome::Scheduled
    {
        step(&format!(
            "pid {} finishes its work and ends; its supervisor starts the next",
            before.pid
        ));
        if is_inside(before.pid) {
            // This command ends with the service's main process, so it cannot follow.
            return Ok(CompletedChange {
                outcome: outcome.clone(),
                seen: None,
                now: None,
            });
        }
        let closed = client.closed().await;
        closed.map_err(|error| target.call_failed(error))?;
        step(&format!("pid {} is gone", before.pid));
        followed = next_life(target, before).await.map(|next| {
            outcome.outcome = RequestOutcome::Done;
            outcome.pid = Some(next.pid);
            outcome.after = generation(&next);
            outcome.took_ms = begun.elapsed().as_millis() as u64;
            outcome.drained = true;
        });
    }
    let seen = match probe {
        Some(probe) => Some(Downtime {
            held_ms: hold.longest().as_millis() as u64,
            ..probe.finish().await
        }),
        None => None,
    };
    followed?;
    // Over a new connection: the old one may lead to a process that only finishes its work.
    let now = target.status().await.ok();
    match answer {
        Ok(outcome) => Ok(CompletedChange { outcome, seen, now }),
        Err(error) => {
            let clients = now.as_ref().and_then(|now| clients_of(before, now));
            Err(failed(target, error, seen.as_ref(), now.as_ref(), clients))
        }
    }
}

/// How long requests of clients were held, as far as the steps of a restart tell.
#[derive(Debug, Default)]
struct HoldTime {
    since: Option<Instant>,
    until: Option<Instant>,
}

impl HoldTime {
    fn hear(&mut self, stage: ProgressStage, now: Instant) {
        match stage {
            ProgressStage::Holding | ProgressStage::Reloading => {
                self.since.get_or_insert(now);
            }
            ProgressStage::Ready | ProgressStage::Switched if self.since.is_some() => {
                self.until = Some(now);
            }
            _ => {}
        }
    }

    /// From the first one that was held to when the last server was ready.
    fn longest(&self) -> Duration {
        let times = self.since.zip(self.until);
        times.map_or(Duration::ZERO, |(since, until)| until - since)
    }
}

/// Whether this command runs in the service of process `pid`.
pub(super) fn is_inside(pid: u32) -> bool {
    let service = |pid| Process::read(pid).and_then(|process| process.service().map(str::to_owned));
    service(pid)
        .is_some_and(|theirs| service(std::process::id()).is_some_and(|ours| ours == theirs))
}

/// Returns when the gateway that was asked seems to hang.
async fn hangs(target: &Target, before: &Status, method: &Method) -> CliError {
    // With --drained the old process answers, while its successor serves.
    let successor_serves = matches!(method, Method::Restart(params) if params.drained);
    let mut failed_checks = 0;
    loop {
        sleep(CHECK_EVERY).await;
        let error = match target.status().await {
            Ok(now) if now.pid == before.pid || successor_serves => {
                failed_checks = 0;
                continue;
            }
            Ok(now) => {
                let message = format!(
                    "pid {}, which was asked, does not answer; pid {} serves generation {}",
                    before.pid, now.pid, now.generation
                );
                Exit::StillBusy
                    .error(message)
                    .with_help(target.next("status"))
            }
            Err(error) => error,
        };
        failed_checks += 1;
        if failed_checks == FAILED_CHECKS {
            return error;
        }
    }
}

/// Waits for a process that serves, other than that of `before`, which is gone.
async fn next_life(target: &Target, before: &Status) -> Result<Status, CliError> {
    let mut last = "nothing answers".to_owned();
    let looking = async {
        loop {
            if let Ok(status) = target.status().await
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
                        return Err(Exit::Failed.error(message).with_help(target.next("logs")));
                    }
                }
                last = format!("pid {} is {}", status.pid, status.stage.in_words());
            }
            sleep(ASK_EVERY).await;
        }
    };
    timeout(NEXT_LIFE, looking).await.unwrap_or_else(|_| {
        let (waited, help) = (
            NEXT_LIFE.as_secs(),
            [target.next("status"), target.next("logs")],
        );
        let message = format!(
            "pid {} has ended, but no other serves {waited} s later: {last}",
            before.pid
        );
        Err(Exit::StillBusy.error(message).with_help(help.join("\n")))
    })
}

pub(super) fn generation(status: &Status) -> GenerationInfo {
    let sidecars = status
        .sidecars
        .iter()
        .map(|sidecar| (sidecar.name.clone(), sidecar.pid))
        .collect();
    GenerationInfo {
        number: status.generation,
        sidecars,
        down: not_serving(status),
    }
}

/// What clients saw during a restart that failed, where the gateway that was asked `before` remembers it.
fn clients_of<'a>(before: &Status, now: &'a Status) -> Option<&'a ClientsSeen> {
    let last = now.last_restart.as_ref()?;
    let before = before.last_restart.as_ref();
    let is_new = before.is_none_or(|before| before.request != last.request);
    let failed = last.outcome.outcome == RequestOutcome::Failed;
    last.clients.as_ref().filter(|_| is_new && failed)
}

/// A restart that did not succeed: why, what serves now, what clients saw, and where to look.
fn failed(
    target: &Target,
    error: CallError,
    seen: Option<&Downtime>,
    now: Option<&Status>,
    clients: Option<&ClientsSeen>,
) -> CliError {
    let mut error = target.call_failed(error);
    if let Some(now) = now.filter(|now| now.generation > 0) {
        error.add_line(match now.stage {
            Stage::Degraded => format!("generation {} is degraded: {}", now.generation, now.detail),
            _ => generation(now).stays(),
        });
        let down = not_serving(now);
        if !down.is_empty() {
            error.add_line(format!(
                "until {} serves, requests for it wait ([restart] hold, 30s by default), then get 503",
                down.join(" and ")
            ));
        }
    }
    if let Some(clients) = clients {
        if *clients != ClientsSeen::default() {
            error.add_line(clients.sentence());
        }
        error.clients = Some(Box::new(clients.clone()));
    }
    if let Some(seen) = seen.filter(|seen| seen.sent > 0) {
        error.add_line(seen.sentence());
        error.probe = Some(Box::new(seen.clone()));
    }
    let file = now.and_then(|now| now.config.as_ref());
    let next = match (error.exit, file) {
        // Of a service the file says everything, of others flags may, too.
        (Exit::Config, Some(file)) if now.is_some_and(|now| now.supervisor.is_systemd()) => {
            format!("gatewayctl config check --config {}", shell::word(file))
        }
        (Exit::Config, _) => target.next("config check"),
        _ => target.next("logs"),
    };
    error.help.get_or_insert(next);
    error
}

/// Returns when this command is to end. If it runs `inside` of the gateway that it asks, the signal
/// may come from that gateway, which ends its servers because of this request: then its answer is
/// on its way and is waited for.
async fn interrupted_for_good(inside: bool) {
    interrupted().await;
    if inside {
        sleep(LAST_ANSWER).await;
    }
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
        let target = ctx.target().unwrap();
        let (client, before) = target.connect_and_ask().await.unwrap();
        let method = Method::Restart(RestartParams::default());
        let (done, _next) =
            tokio::join!(carry_out(&ctx, &target, client, &before, &method), async {
                double.asked_for(2).await;
                // The supervisor ends one process and starts the next with the same state.
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
    async fn a_gateway_that_hangs_is_not_waited_for_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let control = Paths::in_state_dir(dir.path()).control;
        std::fs::create_dir_all(control.parent().unwrap()).unwrap();
        let silent = std::os::unix::net::UnixListener::bind(&control).unwrap();
        let target = Context::quiet(dir.path()).target().unwrap();
        let method = Method::Restart(RestartParams::default());
        let error = hangs(&target, &fake_gateway::status(), &method).await;
        assert!(
            error.exit == Exit::Failed && error.message.contains("does not answer"),
            "{error:?}"
        );
        drop((silent, std::fs::remove_file(&control)));

        let _next = FakeGateway::start_in(dir.path(), Ok(fake_gateway::outcome()), 5678);
        let error = hangs(&target, &fake_gateway::status(), &method).await;
        assert!(
            error.exit == Exit::StillBusy && error.message.contains("pid 5678 serves"),
            "{error:?}"
        );
        let patient = Method::Restart(RestartParams {
            drained: true,
            ..RestartParams::default()
        });
        let before = fake_gateway::status();
        let waits = timeout(Duration::from_secs(600), hangs(&target, &before, &patient));
        assert!(waits.await.is_err(), "its old work may take any time");
    }
}
