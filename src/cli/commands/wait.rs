//! `gatewayctl wait`: for scripts that go on when a gateway is ready, gone, or off its port.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::addresses;
use crate::cli::args::WaitArgs;
use crate::cli::stale_gateways::cannot_see_holders;
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::{Env, Listen};
use crate::control::protocol::{SidecarStateName, Stage, Status};
use crate::os::platform::Watcher;
use crate::os::port;
use crate::service::more_rights;
use crate::stale::{self, AddressState};
use crate::text::human::span;
use crate::text::words::{Words, words};

/// How often a gateway is asked whether it is ready, and a port is tried: neither reports a change.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// How often the processes that hold the port are looked up, for the message at the time limit: that
/// walks through all processes.
const WHO_EVERY: Duration = Duration::from_secs(1);

words! {
    /// What was waited for.
    pub enum WaitedState {
        /// --ready: the gateway is ready.
        Ready = "ready",
        /// --stopped: nothing runs.
        Stopped = "stopped",
        /// --port-free: no gateway has the port.
        OffItsPort = "off its port",
    }
}

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitAnswer {
    /// Always true; an error has its own object.
    ok: bool,
    /// What was waited for.
    state: WaitedState,
    /// How long that took.
    took_ms: u64,
}

/// Waits.
///
/// # Errors
/// [`Exit::StillBusy`] when the time is over, or [`Exit::NotRunning`] when nothing runs by then that
/// could become ready; [`Exit::Usage`] and [`Exit::Permission`] when no
/// gateway can be selected.
pub async fn wait(ctx: &Context, args: &WaitArgs) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let seen = Cell::new(None);
    let what = match args {
        WaitArgs { stopped: true, .. } => WaitedState::Stopped,
        WaitArgs {
            port_free: true, ..
        } => WaitedState::OffItsPort,
        _ => WaitedState::Ready,
    };
    let reached = async {
        match what {
            WaitedState::Stopped => stopped(ctx, &seen).await,
            WaitedState::OffItsPort => port_free(ctx, &seen).await,
            WaitedState::Ready => ready(ctx, &seen).await,
        }
    };
    let Ok(result) = timeout(args.timeout.0, reached).await else {
        let stands = seen
            .take()
            .map_or(String::new(), |seen: String| format!(": {seen}"));
        let text = format!("not {what} within {}", args.timeout);
        // One that does not run is neither starting nor draining.
        if what == WaitedState::Ready
            && let Err(none) = Target::find(&ctx.global, &Env::real())
            && none.exit == Exit::NotRunning
        {
            let error = Exit::NotRunning.error(format!("{text}: {}", none.message));
            return Err(error.with_help(none.help.unwrap_or_default()));
        }
        let error = Exit::StillBusy.error(text + &stands);
        let flags = target::naming_flags(&ctx.global);
        return Err(error.with_help(format!("gatewayctl status{flags}")));
    };
    result?;
    let took_ms = begun.elapsed().as_millis() as u64;
    ctx.ui.say(format!("{what} after {}", span(took_ms)));
    ctx.ui.object(&WaitAnswer {
        ok: true,
        state: what,
        took_ms,
    });
    Ok(Exit::Done)
}

/// `seen` keeps what a gateway that is not ready says of itself.
async fn ready(ctx: &Context, seen: &Cell<Option<String>>) -> Result<(), CliError> {
    let env = Env::real();
    loop {
        let places = target::expected(&ctx.global, &env);
        let paths = &places.sockets;
        let watch = watching(paths, &places.roots).map_err(|error| {
            cannot_watch(error).with_help("sysctl fs.inotify.max_user_instances")
        })?;
        match Target::find(&ctx.global, &env) {
            Ok(target) => {
                if becomes_ready(&target, seen).await {
                    return Ok(());
                }
            }
            Err(error) if error.exit == Exit::NotRunning => {
                changed(&watch, paths).await.map_err(cannot_watch)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Asks until it is ready; false when it went away.
async fn becomes_ready(target: &Target, seen: &Cell<Option<String>>) -> bool {
    let Ok(mut client) = target.connect().await else {
        return false;
    };
    loop {
        let status = match target.status_over(&mut client).await {
            Ok(status) => status,
            Err(_) => {
                let suspended = target.suspended(client.peer());
                seen.set(suspended.map(|error| error.message));
                return false;
            }
        };
        if status.stage.serves() || only_failed_before(&status) {
            return true;
        }
        // Some details begin with the stage.
        let detail = status
            .detail
            .strip_prefix(&format!("{}: ", status.stage.in_words()))
            .unwrap_or(&status.detail);
        seen.set(Some(format!(
            "{}: {}, {detail}",
            status.instance,
            status.stage.in_words()
        )));
        sleep(ASK_EVERY).await;
    }
}

/// Whether all of it is ready, and it is degraded for what was before: a sidecar that died again and again
/// is watched for a while.
fn only_failed_before(status: &Status) -> bool {
    let sidecars = &status.sidecars;
    status.stage == Stage::Degraded
        && status.recovery.is_none()
        && sidecars.iter().any(|sidecar| sidecar.failing)
        && (sidecars.iter()).all(|sidecar| sidecar.state == SidecarStateName::Ready)
}

async fn stopped(ctx: &Context, seen: &Cell<Option<String>>) -> Result<(), CliError> {
    loop {
        let target = match ctx.target() {
            Ok(target) => target,
            Err(error) if error.exit == Exit::NotRunning => return Ok(()),
            Err(error) => return Err(error),
        };
        // The gateway closes the connection when it ends; another gateway afterwards means a
        // restart.
        if let Ok(mut client) = target.connect().await {
            let note = |error: CliError| {
                seen.set(Some(error.message));
                Ok(())
            };
            target.until_gone(&mut client, note).await?;
        }
    }
}

async fn port_free(ctx: &Context, seen: &Cell<Option<String>>) -> Result<(), CliError> {
    let claim = addresses::address_claim(ctx).await?;
    let mut look = Instant::now();
    loop {
        let mut free = true;
        for listen in &claim.listen {
            free &= is_free(listen)?;
        }
        if free {
            return Ok(());
        }
        if look <= Instant::now() {
            look = Instant::now() + WHO_EVERY;
            let state = stale::address_state(&claim).map_err(cannot_see_holders)?;
            if matches!(state, AddressState::Kept(_)) {
                return Ok(());
            }
            seen.set(Some(state.describe(&claim.listen)));
        }
        sleep(ASK_EVERY).await;
    }
}

/// Whether another program could bind an address.
fn is_free(listen: &Listen) -> Result<bool, CliError> {
    port::can_be_had(listen).map_err(|error| {
        let message = format!("{listen} cannot be tried: {error}");
        match error.kind() {
            ErrorKind::PermissionDenied => Exit::Permission.error(message).with_help(more_rights()),
            _ => Exit::Failed.error(message),
        }
    })
}

/// Watches the directories of `paths`, and `dirs`; if one does not exist, the nearest one above it that
/// does.
///
/// # Errors
/// When the system has no watches left (on Linux: fs.inotify.max_user_instances).
pub(super) fn watching(paths: &[PathBuf], dirs: &[PathBuf]) -> io::Result<Watcher> {
    let above = paths.iter().filter_map(|path| path.parent());
    let dirs = above.chain(dirs.iter().map(PathBuf::as_path));
    let there = dirs.filter_map(|dir| dir.ancestors().find(|dir| dir.is_dir()));
    Watcher::new(there.collect::<BTreeSet<_>>().into_iter())
}

/// Returns when something changed in the watched directories.
pub(super) async fn changed(watch: &Watcher, paths: &[PathBuf]) -> io::Result<()> {
    // Between bind and listen a socket is there and refuses; no event follows.
    if paths.iter().any(|path| path.exists()) {
        let _ = timeout(ASK_EVERY, watch.changed()).await;
        return Ok(());
    }
    watch.changed().await
}

/// The error for that.
pub(super) fn cannot_watch(error: io::Error) -> CliError {
    Exit::Failed.error(format!("cannot watch for the control socket: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::Dur;
    use crate::control::fake_gateway::{self, FakeGateway};

    fn args(ready: bool, stopped: bool) -> WaitArgs {
        WaitArgs {
            ready,
            port_free: false,
            stopped,
            timeout: Dur::secs(10),
        }
    }

    #[tokio::test]
    async fn ready_and_then_stopped() {
        let double = FakeGateway::start(Ok(fake_gateway::outcome()));
        let ctx = Context::quiet(&double.state);
        assert_eq!(wait(&ctx, &args(true, false)).await, Ok(Exit::Done));
        let soon = WaitArgs {
            timeout: Dur::millis(50),
            ..args(false, true)
        };
        assert_eq!(wait(&ctx, &soon).await.unwrap_err().exit, Exit::StillBusy);
        let until = args(false, true);
        let (waited, ()) = tokio::join!(wait(&ctx, &until), async {
            let target = ctx.target().unwrap();
            crate::cli::commands::stop::over_control(&ctx, &target)
                .await
                .unwrap();
        });
        assert_eq!(waited, Ok(Exit::Done));
    }

    #[tokio::test]
    async fn a_path_whose_directory_is_not_there_yet_is_seen_step_by_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/socket");
        let maker = path.clone();
        let making = tokio::task::spawn_blocking(move || {
            std::fs::create_dir_all(maker.parent().unwrap()).unwrap();
            std::fs::write(maker, "").unwrap();
        });
        loop {
            let watch = watching(std::slice::from_ref(&path), &[]).unwrap();
            if path.exists() {
                break;
            }
            watch.changed().await.unwrap();
        }
        making.await.unwrap();
    }

    #[tokio::test]
    async fn a_gateway_that_starts_later_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::quiet(dir.path());
        let starting = async {
            let path = crate::state::paths::Paths::in_state_dir(dir.path()).control;
            tokio::task::yield_now().await;
            let listener = crate::control::server::bind(&path).unwrap();
            let (sender, mut calls) = tokio::sync::mpsc::channel(8);
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            tokio::spawn(crate::control::server::serve(
                listener,
                sender,
                Default::default(),
                Default::default(),
            ));
            let mut status = fake_gateway::status();
            for stage in [Stage::Starting, Stage::Starting, Stage::Ready] {
                status.stage = stage;
                calls.recv().await.unwrap().reply.done(&status);
            }
        };
        let until = args(true, false);
        let (waited, ()) = tokio::join!(wait(&ctx, &until), starting);
        assert_eq!(waited, Ok(Exit::Done));
    }
}
