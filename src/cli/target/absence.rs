//! What is said of a gateway that does not run: how it ended, how it is started, and what else was meant.

use std::io::ErrorKind;
use std::path::Path;

use super::ended;
use super::selection::{named_state_dir, scope};
use crate::cli::args::Global;
use crate::cli::error::{CliError, Exit};
use crate::config::{self, DEFAULT_INSTANCE, Env};
use crate::service::{self, Rights};
use crate::state::history;
use crate::state::paths::{Paths, Scope};
use crate::text::shell;

/// The error when no gateway of this name runs, or none at all; `running` has the names of those that do.
pub fn not_running(
    name: Option<&str>,
    global: &Global,
    env: &Env<'_>,
    running: impl FnOnce() -> Vec<String>,
) -> CliError {
    let (message, flag) = match name {
        Some(name) => (
            format!("{name} is not running"),
            format!(" --instance {name}"),
        ),
        None => ("no gateway is running".to_owned(), String::new()),
    };
    let installed = service::installed(env, scope(global));
    let is_installed = (installed.iter()).any(|unit| name.is_none_or(|name| unit.instance == name));
    let states = Paths::usual_states(env, name.unwrap_or(DEFAULT_INSTANCE));
    let ran = states.iter().any(|state| has_run(state));
    let mut help = match is_installed {
        true => format!("gatewayctl start{flag}"),
        false => format!(
            "gateway run{flag} -- COMMAND   (in this terminal)\ngatewayctl install --now{flag} -- COMMAND   (as a service)"
        ),
    };
    let ended = match name {
        None if !is_installed && ended::is_unnamed(global, env) => ended::all(env),
        _ => Vec::new(),
    };
    if let [last, others @ ..] = &ended[..] {
        let (name, flag) = (&last.instance, format!(" --instance {}", last.instance));
        let flag = if others.is_empty() { "" } else { &flag };
        help = format!("gatewayctl why{flag}   (how {name} ended)\n{help}");
    } else if is_installed || ran {
        help = format!("gatewayctl why{flag}   (how it ended)\n{help}");
    } else if let Some(name) = name {
        let names = installed.iter().map(|unit| unit.instance.clone());
        let known: Vec<String> = names.chain(running()).collect();
        if let Some(meant) = config::nearest(name, known.iter().map(String::as_str)) {
            help = format!("did you mean --instance {}?\n{help}", shell::word(meant));
        }
    }
    if named_state_dir(global, env).is_none() {
        help.push_str("\nadd --state-dir DIR   (for one that was started with it)");
    }
    if hides_gateways(global) {
        let list = Rights::now().as_root("gatewayctl list");
        help.push_str(&format!(
            "\n{list}   (some directories in /run/gateway are open to root only)"
        ));
    }
    Exit::NotRunning.error(message).with_help(help)
}

/// Whether a gateway has left its record there: then `why` knows how it ended.
pub fn has_run(state: &Path) -> bool {
    state.join(history::FILE).exists()
}

/// Whether there are system gateways that this user is not allowed to see.
fn hides_gateways(global: &Global) -> bool {
    if scope(global) == Some(Scope::User) {
        return false;
    }
    let entries = std::fs::read_dir("/run/gateway").into_iter().flatten();
    entries.flatten().any(|entry| {
        std::fs::read_dir(entry.path())
            .is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    })
}
