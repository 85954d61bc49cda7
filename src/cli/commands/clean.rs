//! `gatewayctl clean`: gateways left behind on the port.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use crate::cli::args::CleanArgs;
use crate::cli::commands::restart::status_now;
use crate::cli::installed::is_named_outright;
use crate::cli::target::{self, Target};
use crate::cli::ui::Tone;
use crate::cli::{CliError, Context, Exit};
use crate::config::{self, Env, Listen, Overrides};
use crate::service::{self, Kind};
use crate::stale::{self, AddressClaim, AddressState, CleanMode, CleanReport};
use crate::state::owner::Owner;
use crate::state::paths::Paths;

/// The answer with `--json`.
#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    #[serde(flatten)]
    report: &'a CleanReport,
}

/// Ends what is proven stale.
///
/// # Errors
/// [`Exit::Refused`] when somebody who was kept has the port; [`Exit::Usage`] when several gateways
/// can be meant.
pub async fn clean(ctx: &Context, args: &CleanArgs) -> Result<Exit, CliError> {
    let mut scene = scene(ctx).await?;
    if let Some(port) = args.port {
        // The widest addresses: whoever has the port anywhere is in their way.
        scene.listen = vec![
            Listen::Tcp((Ipv4Addr::UNSPECIFIED, port).into()),
            Listen::Tcp((Ipv6Addr::UNSPECIFIED, port).into()),
        ];
    }
    scene.protected.extend(&args.protect);
    scene.named = args.pid.filter(|_| args.force);
    let mut report = run(
        &scene,
        if args.dry_run {
            CleanMode::DryRun
        } else {
            CleanMode::Stale
        },
    )
    .await?;
    if let Some(port) = args.port {
        report.addresses = vec![format!("port {port}")];
    }
    for line in report.lines() {
        ctx.ui.say(&line);
    }
    if let (AddressState::Held(_) | AddressState::Busy(_), false) = (&report.state, args.dry_run) {
        return Err(held(&report));
    }
    let tone = if matches!(report.state, AddressState::Held(_) | AddressState::Busy(_)) {
        Tone::Busy
    } else {
        Tone::Good
    };
    ctx.ui.say(&ctx.ui.paint(&report.stands(), tone));
    ctx.ui.object(&Answer {
        ok: true,
        report: &report,
    });
    Ok(Exit::Done)
}

/// Cleans.
///
/// # Errors
/// Where the kernel tells of no sockets.
pub async fn run(scene: &AddressClaim, mode: CleanMode) -> Result<CleanReport, CliError> {
    stale::end_stale(scene, mode).await.map_err(|error| {
        CliError::new(
            Exit::Failed,
            format!("cannot see who listens here: {error}"),
        )
    })
}

/// The refusal when somebody who was kept has the port.
pub fn held(report: &CleanReport) -> CliError {
    // Who only stands above this command may yet be the gateway itself.
    let strangers = || report.kept.iter().filter(|kept| !kept.ours);
    let stranger = strangers()
        .find(|kept| kept.reason != "ancestor")
        .or_else(|| strangers().next());
    let error = CliError::new(Exit::Refused, report.stands()).with_detail("clean", report);
    match stranger {
        Some(stranger) if stranger.reason == "foreign" => error.with_help(format!(
            "stop {}, or give the gateway another address (`listen`)\ngatewayctl clean --force --pid {}   (ends it, whatever it is)",
            crate::text::escape::escape(&stranger.name),
            stranger.pid
        )),
        Some(stranger) if stranger.reason == "answers" => error.with_help(format!(
            "gatewayctl stop, or, when it is of this name, gatewayctl restart --force   (asks pid {} to stop, and starts the service)",
            stranger.pid
        )),
        Some(stranger) if stranger.reason == "other-user" => error.with_help("the same command as that user, or with sudo"),
        _ => error.with_help("stop it, or give the gateway another address (`listen`)"),
    }
}

/// The addresses of the gateway that is meant, and what is known around them.
///
/// # Errors
/// [`Exit::Usage`] when several can be meant, [`Exit::Config`] when its configuration is not valid.
pub async fn scene(ctx: &Context) -> Result<AddressClaim, CliError> {
    let env = Env::real();
    match installed(ctx, &env).await? {
        Some(scene) => Ok(scene),
        None => by_hand(ctx, &env).await,
    }
}

/// Of the only one that runs, or of the one that is named.
async fn by_hand(ctx: &Context, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let mut flags = target::overrides(&ctx.global, env);
    match Target::find(&ctx.global, env) {
        Ok(target) => {
            if let Ok(status) = status_now(&target).await {
                let listen = status
                    .listeners
                    .iter()
                    .filter_map(|address| address.parse().ok())
                    .collect();
                return Ok(AddressClaim {
                    instance: Some(status.instance),
                    listen,
                    state: vec![status.state_dir.into()],
                    ..AddressClaim::default()
                });
            }
            flags.instance.get_or_insert(target.instance);
        }
        Err(several) if several.exit == Exit::Usage => return Err(several),
        Err(_) => {}
    }
    by_configuration(&flags, env)
}

async fn installed(ctx: &Context, env: &Env<'_>) -> Result<Option<AddressClaim>, CliError> {
    if is_named_outright(ctx) {
        return Ok(None);
    }
    let name = target::wanted_name(&ctx.global, env);
    match service::select(env, name.as_deref(), target::scope(&ctx.global)) {
        Ok(unit) => Ok(Some(service::scene(env, &unit).await?)),
        Err(none) if none.kind == Kind::NotInstalled => Ok(None),
        Err(several) => Err(several.into()),
    }
}

fn by_configuration(flags: &Overrides, env: &Env<'_>) -> Result<AddressClaim, CliError> {
    let loaded = config::load(flags, env).map_err(crate::cli::commands::config::invalid)?;
    let paths = Paths::of_process(
        env,
        &loaded.instance,
        loaded.config.gateway.state_dir.as_deref(),
    );
    // One that runs, or hangs, knows better: flags may have said otherwise.
    let owner = Owner::read(&paths.state).filter(|owner| owner.lives() != Some(false));
    let recorded = owner.map(|owner| {
        owner
            .listeners
            .iter()
            .filter_map(|address| address.parse().ok())
            .collect::<Vec<Listen>>()
    });
    let listen = recorded
        .filter(|listen| !listen.is_empty())
        .unwrap_or(loaded.config.gateway.listen);
    Ok(AddressClaim {
        instance: Some(loaded.instance),
        listen,
        state: vec![paths.state],
        ..AddressClaim::default()
    })
}
