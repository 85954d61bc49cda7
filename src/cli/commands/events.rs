//! `gatewayctl events`: what happens, as it happens, over restarts as well.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::timeout;

use super::event_text::sentence;
use super::wait::{cannot_watch, changed, watching};
use crate::cli::args::EventsArgs;
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::control::client::{Client, NumberedEvent};
use crate::control::protocol::{GatewayEvent, Method, ShutdownReason, SubscribeParams, Subscribed};
use crate::text::words::words;

/// How often a gateway is tried again that has its socket and does not answer: nothing tells that it
/// does again.
const TRY_EVERY: Duration = Duration::from_secs(1);

words! {
    /// What happened to the connection of `gatewayctl events` itself.
    pub enum ConnectionChange {
        /// It follows this process from now on.
        Connected = "connected",
        /// The gateway ended the connection: the next process is waited for.
        Closed = "closed",
    }
}

/// A line of `events` with `--json`: of the connection, or an event.
#[derive(Serialize, JsonSchema)]
pub struct EventLine {
    /// When it was read, RFC 3339.
    at: String,
    /// What happened to the connection; absent of an event.
    #[serde(skip_serializing_if = "Option::is_none")]
    connection: Option<ConnectionChange>,
    /// The gateway's process, where the connection is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
    /// Counts the events of one connection from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    /// The event: its name and what it tells.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    what: Option<GatewayEvent>,
}

/// Follows a gateway until it is interrupted, or standard output is closed.
///
/// # Errors
/// When no gateway runs at first, or the flags cannot mean one; when it refuses.
pub async fn events(ctx: &Context, args: &EventsArgs) -> Result<Exit, CliError> {
    let topics = (!args.topic.is_empty()).then(|| args.topic.iter().copied().collect());
    let method = Method::Subscribe(SubscribeParams { topics });
    let (mut target, mut client, mut pid) = begin(ctx, &method).await?;
    loop {
        told(ctx, ConnectionChange::Connected, Some(pid));
        ctx.ui
            .progress(&format!("following {} (pid {pid})", target.instance));
        let restarts = follow(ctx, &mut client).await;
        if ctx.ui.is_closed() {
            return Ok(Exit::Done);
        }
        told(ctx, ConnectionChange::Closed, None);
        let name = &target.instance;
        ctx.ui.progress(&match restarts {
            Some(ShutdownReason::Restart) => {
                format!("{name} restarts into another process: connecting to that one")
            }
            Some(ShutdownReason::Stop) => format!("{name} stopped: waiting until it runs again"),
            None => format!("{name} closed the connection: connecting again"),
        });
        (target, client, pid) = begin_again(ctx, &method).await?;
    }
}

fn told(ctx: &Context, change: ConnectionChange, pid: Option<u32>) {
    ctx.ui.line(&EventLine {
        at: now(),
        connection: Some(change),
        pid,
        seq: None,
        what: None,
    });
}

fn now() -> String {
    Timestamp::now().strftime("%FT%T%.3fZ").to_string()
}

async fn begin(ctx: &Context, method: &Method) -> Result<(Target, Client, u32), CliError> {
    let target = ctx.target()?;
    let mut client = target.connect().await?;
    let answer: Subscribed = target.ask(&mut client, method, |_| ()).await?;
    Ok((target, client, answer.pid))
}

/// The same, when a gateway runs again.
async fn begin_again(ctx: &Context, method: &Method) -> Result<(Target, Client, u32), CliError> {
    let env = Env::real();
    let mut said = String::new();
    loop {
        let places = target::expected(&ctx.global, &env);
        // Before the attempt: what comes after it is seen.
        let watch = watching(&places.sockets, &places.roots).map_err(cannot_watch)?;
        let error = match begin(ctx, method).await {
            Ok(begun) => return Ok(begun),
            Err(error) if matches!(error.exit, Exit::Usage | Exit::Permission) => {
                return Err(error);
            }
            Err(error) => error,
        };
        if error.exit != Exit::NotRunning {
            // A process that is about to end, or one that is stuck: the latter is worth a word.
            if std::mem::replace(&mut said, error.message.clone()) == error.message {
                ctx.ui.progress(&error.message);
            }
            let _ = timeout(TRY_EVERY, watch.changed()).await;
            continue;
        }
        changed(&watch, &places.sockets)
            .await
            .map_err(cannot_watch)?;
    }
}

/// Prints every event until the gateway closes the connection. Why it does comes back, if it said so.
async fn follow(ctx: &Context, client: &mut Client) -> Option<ShutdownReason> {
    let mut shutdown = None;
    // An error is an end, too: a gateway that is killed does not close the connection in order.
    while let Ok(Some(event)) = client.next_event().await {
        let NumberedEvent { seq, event } = event;
        let at = now();
        if let Some(text) = sentence(&event) {
            ctx.ui.say(format!("{at}  {text}"));
        }
        if let GatewayEvent::Shutdown(announced) = &event {
            shutdown = Some(announced.reason);
        }
        ctx.ui.line(&EventLine {
            at,
            connection: None,
            pid: None,
            seq: Some(seq),
            what: Some(event),
        });
        if ctx.ui.is_closed() {
            break;
        }
    }
    shutdown
}
