//! Looking around, once. What may not be looked at is noted, not guessed.

mod config;
mod machine;
mod process;
mod state;
mod unit;

use std::time::Duration;

use super::facts::{Facts, Neighbour};
use crate::cli::query::status_now;
use crate::cli::target::{self, Target};
use crate::cli::{CliError, Context, Exit};
use crate::config::{DEFAULT_INSTANCE, Env};
use crate::control::protocol::Status;
use crate::service::{self, Installed, Kind};
use crate::state::paths::Scope;

/// The name of who asks.
fn user_name() -> String {
    let uid = nix::unistd::geteuid();
    nix::unistd::User::from_uid(uid)
        .ok()
        .flatten()
        .map_or_else(|| uid.to_string(), |user| user.name)
}

/// Looks at the gateway that is meant.
///
/// # Errors
/// [`Exit::NotRunning`] when it is not installed and does not run; [`Exit::Usage`] when several may
/// be meant.
pub async fn facts(ctx: &Context) -> Result<Facts, CliError> {
    let env = Env::real();
    let mut unseen = Vec::new();
    let unit = meant(ctx, &env)?;
    let live = match answering(ctx, &env, unit.as_ref()).await {
        Ok(live) => Some(live),
        Err(error) if unit.is_none() => return Err(error),
        Err(error) => {
            if error.exit == Exit::Permission {
                unseen.push(format!(
                    "what the gateway says of itself: {}",
                    error.message
                ));
            }
            None
        }
    };
    let name = unit
        .as_ref()
        .map(|unit| unit.instance.clone())
        .or_else(|| live.as_ref().map(|live| live.instance.clone()));
    let instance = name.unwrap_or_else(|| {
        target::wanted_name(&ctx.global, &env).unwrap_or_else(|| DEFAULT_INSTANCE.to_owned())
    });
    let flags = match &ctx.global.state_dir {
        Some(dir) => format!(" --state-dir {}", dir.display()),
        None if instance == DEFAULT_INSTANCE => String::new(),
        None => format!(" --instance {instance}"),
    };
    let mut facts = Facts {
        instance,
        flags,
        user: user_name(),
        ..Facts::default()
    };
    if let Some(installed) = &unit {
        facts.unit = Some(unit::look(&env, installed).await);
    }
    let main = facts
        .unit
        .as_ref()
        .and_then(|unit| unit.says.as_ref())
        .map(|says| says.main_pid)
        .filter(|pid| *pid != 0);
    facts.process = live
        .as_ref()
        .map(|live| live.pid)
        .or(main)
        .and_then(|pid| process::look(pid, &mut unseen));
    facts.config = config::look(ctx, &env, unit.as_ref(), live.as_ref(), &mut unseen);
    facts.state = state::look(
        &env,
        unit.as_ref(),
        live.as_ref(),
        &facts.config,
        &mut unseen,
    );
    if let (Some(state), Some(_)) = (&facts.state, &live) {
        facts.config.unapplied = config::unapplied(&facts.config, &state.dir);
    }
    facts.neighbours = neighbours(&env, &facts.instance, unit.as_ref());
    facts.machine = machine::look();
    facts.ports = process::ports(&facts, live.as_ref());
    facts.live = live;
    facts.unseen = unseen;
    Ok(facts)
}

/// The installed gateway that is meant, where one is.
fn meant(ctx: &Context, env: &Env<'_>) -> Result<Option<Installed>, CliError> {
    if target::is_named_outright(&ctx.global) {
        return Ok(None);
    }
    let (name, scope) = (
        target::wanted_name(&ctx.global, env),
        target::scope(&ctx.global),
    );
    let mut all = service::installed(env, scope);
    all.retain(|unit| name.as_ref().is_none_or(|name| *name == unit.instance));
    // One name in two scopes is a finding, not a question.
    if let Some(first) = all
        .first()
        .filter(|first| all.iter().all(|other| other.instance == first.instance))
    {
        return Ok(Some(first.clone()));
    }
    match service::select(env, name.as_deref(), scope) {
        Ok(unit) => Ok(Some(unit)),
        Err(error) if error.kind == Kind::NotInstalled => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn answering(
    ctx: &Context,
    env: &Env<'_>,
    unit: Option<&Installed>,
) -> Result<Status, CliError> {
    let mut global = ctx.global.clone();
    if let Some(unit) = unit {
        global.instance = Some(unit.instance.clone());
        (global.system, global.user) = (unit.scope == Scope::System, unit.scope == Scope::User);
    }
    status_now(&Target::find(&global, env)?).await
}

/// Other gateways that are installed here; for root those of the users, too.
fn neighbours(env: &Env<'_>, instance: &str, own: Option<&Installed>) -> Vec<Neighbour> {
    let mut all = service::installed(env, None);
    for home in homes() {
        let of_user = |name: &str| match name {
            "HOME" => Some(home.clone().into_os_string()),
            _ => None,
        };
        all.extend(service::installed(&Env(&of_user), Some(Scope::User)));
    }
    let mut found: Vec<Neighbour> = Vec::new();
    for one in all {
        let is_own = own.is_some_and(|own| own.path == one.path);
        let known = found.iter().any(|other| other.path == one.path);
        if is_own || known || (own.is_none() && one.instance == instance) {
            continue;
        }
        let config = service::configuration(env, &one)
            .ok()
            .flatten()
            .map(|(_, config)| config.gateway.listen);
        let listen = config.unwrap_or_default();
        found.push(Neighbour {
            instance: one.instance,
            unit: one.unit,
            path: one.path,
            scope: one.scope,
            listen,
        });
    }
    found
}

/// The homes of people, for root only: nobody else may look.
fn homes() -> Vec<std::path::PathBuf> {
    if !nix::unistd::geteuid().is_root() {
        return Vec::new();
    }
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let home = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        let uid: u32 = fields.get(2)?.parse().ok()?;
        (1000..60_000)
            .contains(&uid)
            .then(|| fields.get(5).map(std::path::PathBuf::from))
            .flatten()
    };
    accounts.lines().filter_map(home).collect()
}

/// Microseconds of systemd; none for its infinity.
fn time(usec: u64) -> Option<Duration> {
    (usec != u64::MAX).then(|| Duration::from_micros(usec))
}
