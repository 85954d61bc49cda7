//! `gatewayctl demo`: a gateway of its own in front of a small server, under load, and what the clients
//! see of three restarts. Nothing of it is left afterwards.

mod gateway;
mod load;
mod picture;

use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use self::gateway::{DemoGateway, DemoRestart};
use self::load::Load;
use self::picture::{Picture, Seen};
use crate::bench::server::{ServerPace, serve};
use crate::cli::args::DemoArgs;
use crate::cli::interrupt::{Interrupts, interrupted};
use crate::cli::styled_line::{StyledLine, Tone};
use crate::cli::{CliError, Context, Exit};
use crate::text::human::{count, span};

/// How long the requests that are under way at the end may take: longer than a restart holds them here.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// Its server: a second to start, as one that loads its code and opens its database: a client would see
/// that as a gap. And some time for each answer, so that a restart finds requests under way.
const PACE: ServerPace = ServerPace {
    loads: Duration::from_secs(1),
    works: Duration::from_millis(20),
};

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DemoAnswer {
    /// Whether every request was answered, and every restart done.
    ok: bool,
    /// The whole time under load, restarts included.
    #[serde(flatten)]
    seen: Seen,
    /// The restarts, in their order.
    restarts: Vec<ShownRestart>,
}

/// A restart, and what clients saw meanwhile.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct ShownRestart {
    /// What was done.
    what: &'static str,
    /// How long it took, in milliseconds.
    took_ms: u64,
    /// From its beginning to its end.
    #[serde(flatten)]
    seen: Seen,
}

/// Shows three restarts under load.
///
/// # Errors
/// [`Exit::Failed`] when the gateway does not start or does not restart.
pub async fn demo(ctx: &Context, args: &DemoArgs) -> Result<Exit, CliError> {
    if let Some(port) = args.serve {
        let served = serve(port, PACE).await;
        let failed = |error| Exit::Failed.error(format!("127.0.0.1:{port}: {error}"));
        return served.map(|()| Exit::Done).map_err(failed);
    }
    let failed = |error: std::io::Error| Exit::Failed.error(format!("cannot begin: {error}"));
    let mut interrupts = Interrupts::hear()?;
    let mut gateway = DemoGateway::start().map_err(failed)?;
    let shown = tokio::select! {
        shown = show(ctx, args.time.0, &gateway) => shown,
        () = interrupts.heard() => Ok(None),
    };
    let shown =
        shown.map_err(|error| error.quoting(gateway.last_lines().iter().map(String::as_str)));
    gateway.end().await;
    match shown? {
        Some(answer) => {
            ctx.ui.object(&answer);
            Ok(if answer.ok { Exit::Done } else { Exit::Failed })
        }
        None => Err(interrupted("the gateway of the demo")),
    }
}

async fn show(
    ctx: &Context,
    time: Duration,
    gateway: &DemoGateway,
) -> Result<Option<DemoAnswer>, CliError> {
    gateway.until_ready().await?;
    let ui = &ctx.ui;
    ui.say(format!(
        "A gateway on 127.0.0.1:{}, a server behind it that takes a second to start, and {} that ask without a pause.",
        gateway.port,
        count(load::CLIENTS as u64, "client")
    ));
    ui.say(
        StyledLine::from("Each line is half a second, each mark a request: ")
            .and(ui.paint(".", Tone::Good))
            .and(" answered, ")
            .and(ui.paint("o", Tone::Busy))
            .and(" answered after it had waited at the front door, ")
            .and(ui.paint("X", Tone::Bad))
            .and(" failed."),
    );
    ui.say("");
    let begun = Instant::now();
    let mut load = Load::start(gateway.port);
    let mut picture = Picture::new(begun);
    let mut restarts = Vec::new();
    for (index, restart) in DemoRestart::ALL.into_iter().enumerate() {
        // In the middle of a third of the time each.
        let at = begun + time * (2 * index as u32 + 1) / 6;
        picture.until(ui, &mut load, sleep_until(at)).await;
        restarts.push(under_load(ctx, gateway, restart, &mut load, &mut picture).await?);
    }
    picture
        .until(ui, &mut load, sleep_until(begun + time))
        .await;
    load.stop();
    let last = tokio::time::timeout(LAST_ANSWERS, load.ended());
    // Those that have no answer by then have one that says so: a client gives up.
    let _ = picture.until(ui, &mut load, last).await;
    let took = begun.elapsed();
    let seen = picture.finish(ui, &mut load);
    ui.say("");
    ui.say(ui.paint(&sentence(&seen, took), tone(&seen)));
    Ok(Some(DemoAnswer {
        ok: seen.failed == 0,
        seen,
        restarts,
    }))
}

async fn under_load(
    ctx: &Context,
    gateway: &DemoGateway,
    restart: DemoRestart,
    load: &mut Load,
    picture: &mut Picture,
) -> Result<ShownRestart, CliError> {
    let ui = &ctx.ui;
    let begun = Instant::now();
    picture.mark(ui, &format!("==> {}", restart.announcement()));
    picture.begin_part();
    let done = picture.until(ui, load, gateway.restart(restart)).await?;
    let took_ms = begun.elapsed().as_millis() as u64;
    let seen = picture.end_part(load);
    let failed = match seen.failed {
        0 => "none failed".to_owned(),
        failed => format!("{failed} failed"),
    };
    picture.mark(
        ui,
        &format!(
            "<== done in {}: {done}; {} meanwhile, {failed}, longest gap {}",
            span(took_ms),
            count(seen.requests, "request"),
            span(seen.longest_gap_ms),
        ),
    );
    Ok(ShownRestart {
        what: restart.name(),
        took_ms,
        seen,
    })
}

fn sentence(seen: &Seen, took: Duration) -> String {
    let Seen {
        requests,
        failed,
        waited,
        longest_gap_ms,
        slowest_ms,
    } = seen;
    format!(
        "{} in {}: {failed} failed, {waited} waited at the front door; longest gap between two answers {}, slowest answer {}.",
        count(*requests, "request"),
        span(took.as_millis() as u64),
        span(*longest_gap_ms),
        span(*slowest_ms)
    )
}

fn tone(seen: &Seen) -> Tone {
    match seen.failed {
        0 => Tone::Good,
        _ => Tone::Bad,
    }
}
