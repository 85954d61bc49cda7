//! `gatewayctl wait`: for scripts that go on when a gateway is ready, gone, or off its port.

use std::cell::Cell;
use std::path::Path;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use crate::cli::addresses;
use crate::cli::args::WaitArgs;
use crate::cli::error::WITH_SUDO;
use crate::cli::path_watch::Watch;
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::{Env, Listen};
use crate::os::port;
use crate::stale::{self, AddressState};
use crate::text::human::span;
use crate::text::words::{Words, words};

/// How often a gateway that runs is asked whether it is ready by now: it tells nobody by itself.
const READY_EVERY: Duration = Duration::from_millis(50);

/// How often a port is tried: the kernel tells nobody when one becomes free.
const PORT_EVERY: Duration = Duration::from_millis(50);

/// How often it is looked who has the port, for the one who waits: that walks through all
/// processes.
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
/// [`Exit::StillBusy`] when the time is over; [`Exit::Usage`] and [`Exit::Permission`] when no
/// gateway can be meant.
pub async fn wait(ctx: &Context, args: &WaitArgs) -> Result<Exit, CliError> {
    let begun = Instant::now();
    let seen = Cell::new(None);
    let (what, waited) = if args.stopped {
        (
            WaitedState::Stopped,
            timeout(args.timeout.0, stopped(ctx)).await,
        )
    } else if args.port_free {
        (
            WaitedState::OffItsPort,
            timeout(args.timeout.0, port_free(ctx, &seen)).await,
        )
    } else {
        (
            WaitedState::Ready,
            timeout(args.timeout.0, ready(ctx, &seen)).await,
        )
    };
    let Ok(result) = waited else {
        let stands = seen
            .take()
            .map_or(String::new(), |seen: String| format!(": {seen}"));
        let error = Exit::StillBusy.error(format!("not {what} within {}{stands}", args.timeout));
        return Err(error.with_help("gatewayctl status"));
    };
    result?;
    let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    ctx.ui.say(&format!("{what} after {}", span(took)));
    ctx.ui.object(&WaitAnswer {
        ok: true,
        state: what,
        took_ms: took,
    });
    Ok(Exit::Done)
}

/// `seen` keeps what a gateway that is not ready says of itself.
async fn ready(ctx: &Context, seen: &Cell<Option<String>>) -> Result<(), CliError> {
    let env = Env::real();
    loop {
        let paths = target::expected(&ctx.global, &env);
        let watch = watching(&paths)?;
        match Target::find(&ctx.global, &env) {
            Ok(target) => {
                if becomes_ready(&target, seen).await {
                    return Ok(());
                }
            }
            Err(error) if error.exit == Exit::NotRunning => changed(&watch, &paths).await?,
            Err(error) => return Err(error),
        }
    }
}

/// Asks until it is ready; false when it went away.
async fn becomes_ready(target: &Target, seen: &Cell<Option<String>>) -> bool {
    let Ok(mut client) = target.connect().await else {
        return false;
    };
    while let Ok(status) = target.status_over(&mut client).await {
        if status.stage.serves() {
            return true;
        }
        // Some tell their stage themselves.
        let detail = status
            .detail
            .strip_prefix(&format!("{}: ", status.stage.in_words()))
            .unwrap_or(&status.detail);
        seen.set(Some(format!(
            "{}: {}, {detail}",
            status.instance,
            status.stage.in_words()
        )));
        sleep(READY_EVERY).await;
    }
    seen.set(None);
    false
}

async fn stopped(ctx: &Context) -> Result<(), CliError> {
    loop {
        let target = match ctx.target() {
            Ok(target) => target,
            Err(error) if error.exit == Exit::NotRunning => return Ok(()),
            Err(error) => return Err(error),
        };
        // The gateway closes the connection when it ends; a second look tells a restart from a
        // stop.
        if let Ok(mut client) = target.connect().await {
            client.closed().await;
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
            let state = stale::address_state(&claim).map_err(|error| {
                Exit::Failed.error(format!("cannot see who listens here: {error}"))
            })?;
            if matches!(state, AddressState::Kept(_)) {
                return Ok(());
            }
            seen.set(Some(state.describe(&claim.listen)));
        }
        sleep(PORT_EVERY).await;
    }
}

/// Whether another program could bind an address.
fn is_free(listen: &Listen) -> Result<bool, CliError> {
    port::can_be_had(listen).map_err(|error| match error.kind() {
        std::io::ErrorKind::PermissionDenied => Exit::Permission
            .error(format!("{listen} cannot be tried: {error}"))
            .with_help(WITH_SUDO),
        _ => Exit::Failed.error(format!("{listen} cannot be tried: {error}")),
    })
}

fn watching(paths: &[std::path::PathBuf]) -> Result<Watch, CliError> {
    Watch::new(paths).map_err(|error| {
        Exit::Failed
            .error(format!("cannot watch for the control socket: {error}"))
            .with_help("sysctl fs.inotify.max_user_instances")
    })
}

async fn changed(watch: &Watch, paths: &[std::path::PathBuf]) -> Result<(), CliError> {
    // Between bind and listen a socket is there and refuses; no event follows.
    if paths.iter().any(|path| Path::exists(path)) {
        let _ = timeout(READY_EVERY, watch.changed()).await;
        return Ok(());
    }
    watch.changed().await.map_err(|error| {
        Exit::Failed.error(format!("cannot watch for the control socket: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::config::Dur;
    use crate::control::fake_gateway::{self, FakeGateway};
    use crate::control::protocol::Stage;

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
            ));
            let mut status = fake_gateway::status();
            status.stage = Stage::Starting;
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
