//! `gatewayctl clean`: gateways left behind on the port.

use std::net::{Ipv4Addr, Ipv6Addr};

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::addresses::address_claim;
use crate::cli::args::CleanArgs;
use crate::cli::stale_gateways::{end_stale, held};
use crate::cli::styled_line::Tone;
use crate::cli::{CliError, Context, Exit};
use crate::config::Listen;
use crate::stale::{AddressState, CleanMode, CleanReport};

/// The answer with `--json`.
#[derive(Serialize, JsonSchema)]
pub struct CleanAnswer<'a> {
    /// Always true; an error has its own object.
    ok: bool,
    #[serde(flatten)]
    report: &'a CleanReport,
}

/// Ends what is proven stale.
///
/// # Errors
/// [`Exit::Refused`] when a process that was kept has the port; [`Exit::Usage`] when several
/// gateways match.
pub async fn clean(ctx: &Context, args: &CleanArgs) -> Result<Exit, CliError> {
    let mut claim = address_claim(ctx).await?;
    if let Some(port) = args.port {
        // The wildcard addresses: a holder of the port at any address conflicts with them.
        claim.listen = vec![
            Listen::Tcp((Ipv4Addr::UNSPECIFIED, port).into()),
            Listen::Tcp((Ipv6Addr::UNSPECIFIED, port).into()),
        ];
        // That is the caller's word.
        claim.told_by = None;
    }
    claim.protected.extend(&args.protect);
    claim.named = args.pid.filter(|_| args.force);
    let mode = if args.dry_run {
        CleanMode::DryRun
    } else {
        CleanMode::Stale
    };
    let mut report = end_stale(&claim, mode, "gatewayctl clean").await?;
    if let Some(port) = args.port {
        report.addresses = vec![format!("port {port}")];
    }
    for line in report.lines() {
        ctx.ui.say(line);
    }
    let tone = match report.state {
        AddressState::Held(_) | AddressState::Busy(_) if !args.dry_run => {
            return Err(held(&report));
        }
        AddressState::Held(_) | AddressState::Busy(_) => Tone::Busy,
        _ => Tone::Good,
    };
    ctx.ui.say(ctx.ui.paint(&report.stands(), tone));
    ctx.ui.object(&CleanAnswer {
        ok: true,
        report: &report,
    });
    Ok(Exit::Done)
}
