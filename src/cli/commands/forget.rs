//! `gatewayctl forget`: the records of gateways that were started by hand and have ended.

use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::args::ForgetArgs;
use crate::cli::target::{self, named_state_dir};
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::service;
use crate::state::forget::{NotForgotten, forget as remove};
use crate::state::paths::{Paths, Scope};

/// A state directory that stays.
#[derive(Serialize, JsonSchema)]
struct KeptState {
    /// The directory.
    state: PathBuf,
    /// Why it stays.
    why: String,
}

/// The answer of `forget`.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ForgetAnswer {
    /// Always true; an error has its own object.
    ok: bool,
    /// Whether nothing was removed, as asked.
    dry_run: bool,
    /// The state directories that were removed, or would be.
    forgotten: Vec<PathBuf>,
    /// Those that stay.
    kept: Vec<KeptState>,
}

/// Removes the state directories of gateways that have ended and are no services.
///
/// # Errors
/// [`Exit::Refused`] when the one that is named runs or is a service, [`Exit::Failed`] when something cannot
/// be removed.
pub fn forget(ctx: &Context, args: &ForgetArgs) -> Result<Exit, CliError> {
    let env = Env::real();
    if target::scope(&ctx.global) == Some(Scope::System) {
        let error = Exit::Usage.error("services of the machine have no state to forget");
        return Err(error.with_help("gatewayctl uninstall   (removes one with its record)"));
    }
    let mut answer = ForgetAnswer {
        ok: true,
        dry_run: args.dry_run,
        forgotten: Vec::new(),
        kept: Vec::new(),
    };
    let (all, is_named) = wanted(ctx, &env);
    let installed = service::installed(&env, Some(Scope::User));
    for (name, paths) in all {
        let is_service = name.is_some_and(|name| installed.iter().any(|one| one.instance == name));
        let removed = match is_service {
            true => Err("it is installed: gatewayctl uninstall removes it".to_owned()),
            false => outcome(remove(&paths, args.dry_run), is_named)?,
        };
        match removed {
            Ok(()) => answer.forgotten.push(paths.state),
            Err(why) if is_named => {
                let error = format!("{} stays: {why}", paths.state.display());
                return Err(Exit::Refused.error(error).with_help("gatewayctl list"));
            }
            Err(why) => answer.kept.push(KeptState {
                state: paths.state,
                why,
            }),
        }
    }
    show(ctx, &answer);
    ctx.ui.object(&answer);
    Ok(Exit::Done)
}

/// The state directories that are meant, each with its name where that is known, and whether one was named.
fn wanted(ctx: &Context, env: &Env<'_>) -> (Vec<(Option<String>, Paths)>, bool) {
    if let Some(dir) = named_state_dir(&ctx.global, env) {
        return (vec![(None, Paths::in_state_dir(&dir))], true);
    }
    let of = |name: String| {
        let paths = Paths::by_hand(env, &name);
        (Some(name), paths)
    };
    match target::wanted_name(&ctx.global, env) {
        Some(name) => (vec![of(name)], true),
        None => (
            Paths::names_by_hand(env).into_iter().map(of).collect(),
            false,
        ),
    }
}

/// Whether it is gone, or why it stays. One that is not there needs nothing.
fn outcome(
    removed: Result<(), NotForgotten>,
    is_named: bool,
) -> Result<Result<(), String>, CliError> {
    match removed {
        Ok(()) => Ok(Ok(())),
        Err(NotForgotten::Io(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            Ok(Err("there is none".to_owned()))
        }
        Err(NotForgotten::Io(error)) if is_named => {
            Err(Exit::Failed.error(format!("cannot remove it: {error}")))
        }
        Err(kept) => Ok(Err(kept.to_string())),
    }
}

fn show(ctx: &Context, answer: &ForgetAnswer) {
    let line = |verb: &str, path: &Path| ctx.ui.say(format!("{verb} {}", path.display()));
    let verb = if answer.dry_run {
        "would forget"
    } else {
        "forgot"
    };
    answer.forgotten.iter().for_each(|path| line(verb, path));
    for kept in &answer.kept {
        ctx.ui
            .say(format!("kept {}: {}", kept.state.display(), kept.why));
    }
    if answer.forgotten.is_empty() {
        ctx.ui.say("nothing to forget");
    }
}
