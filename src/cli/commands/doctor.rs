//! `gatewayctl doctor`: gathers the facts, judges them, fixes what is safe, and shows the findings.

use crate::cli::args::DoctorArgs;
use crate::cli::findings_view;
use crate::cli::process_start::ProcessStart;
use crate::cli::services;
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::{DEFAULT_INSTANCE, Env};
use crate::control::client::SocketPeer;
use crate::control::protocol::Status;
use crate::diagnose::doctor::{
    self, DoctorFacts, DoctorTarget, Finding, FixState, ReadByHand, Remedy, SilentGateway,
};
use crate::service::{self, Installed};

/// How often to fix and look again: one fix can reveal the next finding, as when systemd reads a
/// unit again.
const ROUNDS: usize = 3;

/// Looks, fixes with `--fix`, and shows.
///
/// # Errors
/// [`Exit::NotRunning`] when the gateway is neither installed nor running; [`Exit::Usage`] when
/// several match.
pub async fn doctor(ctx: &Context, args: &DoctorArgs) -> Result<Exit, CliError> {
    let mut facts = doctor::gather(find(ctx).await?).await;
    let mut findings = doctor::judge(&facts);
    if args.fix {
        for _ in 0..ROUNDS {
            if !fix_all(ctx, &facts, &mut findings).await {
                break;
            }
            facts = doctor::gather(find(ctx).await?).await;
            doctor::update(&mut findings, doctor::judge(&facts));
        }
    }
    findings_view::show(ctx, &facts, &findings, args.fix);
    Ok(match doctor::is_healthy(&findings) {
        true => Exit::Done,
        false => Exit::Failed,
    })
}

/// Fixes what can be fixed and was not tried yet. Whether anything was tried.
async fn fix_all(ctx: &Context, facts: &DoctorFacts, findings: &mut [Finding]) -> bool {
    let mut tried = false;
    for finding in findings
        .iter_mut()
        .filter(|finding| finding.fix == FixState::Open)
    {
        let Remedy::Fix(fix, command) = &finding.problem.remedy else {
            continue;
        };
        ctx.ui
            .progress(&format!("{}: {command}", finding.check.code));
        tried = true;
        let step = |text: &str| ctx.ui.progress(text);
        if let Err(why) = doctor::fix::apply(facts, fix, step).await {
            finding.fix = FixState::Failed(why);
        }
    }
    tried
}

/// Finds the gateway that the command line selects, and asks it for its status.
async fn find(ctx: &Context) -> Result<DoctorTarget, CliError> {
    let env = Env::real();
    let mut unseen = Vec::new();
    let unit = installed_unit(ctx, &env)?;
    let running = match running(ctx, &env, unit.as_ref()).await {
        Ok(running) => Some(running),
        Err(error) if unit.is_none() => return Err(error),
        Err(error) => {
            if error.exit == Exit::Permission {
                unseen.push(format!("the gateway's status: {}", error.message));
            }
            None
        }
    };
    let (target, peer, answer) = match running {
        Some((target, peer, answer)) => (Some(target), Some(peer), Some(answer)),
        None => (None, None, None),
    };
    let (status, silent) = match answer {
        Some(Ok(status)) => (Some(status), None),
        Some(Err(silent)) => (None, Some(silent)),
        None => (None, None),
    };
    let instance = unit
        .as_ref()
        .map(|unit| unit.instance.clone())
        .or_else(|| status.as_ref().map(|status| status.instance.clone()))
        .or_else(|| target::wanted_name(&ctx.global, &env))
        .unwrap_or_else(|| DEFAULT_INSTANCE.to_owned());
    let flags = match &ctx.global.state_dir {
        Some(dir) => format!(" --state-dir {}", dir.display()),
        None if instance == DEFAULT_INSTANCE => String::new(),
        None => format!(" --instance {instance}"),
    };
    let started = match (&status, peer) {
        (Some(status), Some(peer)) if unit.is_none() && peer.is_this_user() => {
            ProcessStart::of_gateway(peer, status)
        }
        _ => None,
    };
    Ok(DoctorTarget {
        by_hand: started.map(|start| ReadByHand {
            loaded: start.load(),
            path: start.in_its_environment(|env| env.text("PATH")),
            cwd: start.cwd,
        }),
        instance,
        flags,
        unit,
        status,
        peer,
        silent,
        control: target.map(|target: Target| target.control),
        state_dir: target::named_state_dir(&ctx.global, &env),
        config: target::config_path(&ctx.global, &env),
        unseen,
    })
}

/// The installed gateway that the command line selects, if there is one.
fn installed_unit(ctx: &Context, env: &Env<'_>) -> Result<Option<Installed>, CliError> {
    if target::named_by_path(&ctx.global, env).is_some() {
        return Ok(None);
    }
    let name = target::wanted_name(&ctx.global, env);
    let mut all = service::installed(env, target::scope(&ctx.global));
    all.retain(|unit| name.as_ref().is_none_or(|name| *name == unit.instance));
    // One name in two scopes is a finding, not an ambiguous command line.
    if let [first, others @ ..] = &all[..]
        && others.iter().all(|other| other.instance == first.instance)
    {
        return Ok(Some(first.clone()));
    }
    services::select(ctx, env, name.as_deref())
}

/// What a gateway says to the question for its status.
type Answer = Result<Status, SilentGateway>;

/// The running gateway that the command line selects.
async fn running(
    ctx: &Context,
    env: &Env<'_>,
    unit: Option<&Installed>,
) -> Result<(Target, SocketPeer, Answer), CliError> {
    let target = match unit {
        Some(unit) => Target::find(&target::of_service(&ctx.global, unit), env)?,
        None => Target::find(&ctx.global, env)?,
    };
    let mut client = target.connect().await?;
    let peer = client.peer();
    let answer = match (target.status_over(&mut client).await, peer.pid()) {
        (Ok(status), _) => Ok(status),
        (Err(error), Some(pid)) if error.exit == Exit::Failed => Err(SilentGateway {
            pid,
            message: error.message,
            next: error.help.unwrap_or_default(),
        }),
        (Err(error), _) => return Err(error),
    };
    Ok((target, peer, answer))
}
