//! The status of an installed gateway that does not answer: what its service manager knows.

use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::services::{self, StageWord, stage};
use crate::cli::styled_line::Tone;
use crate::cli::target;
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::service::{self, Installed, Rights, UnitState};
use crate::state::paths::Scope;
use crate::systemd::words::{ServiceResult, SubState, Word};
use crate::text::absent;

/// siginfo's si_code of a process that ended by itself.
const CLD_EXITED: i32 = 1;

/// The answer with `--json`.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DownAnswer<'a> {
    /// Always false.
    ok: bool,
    /// The exit code.
    exit: u8,
    /// The instance.
    instance: &'a str,
    /// What it is doing.
    stage: StageWord,
    /// Its unit.
    unit: &'a str,
    /// Whose service manager has it.
    scope: Scope,
    /// The main process; absent when none runs.
    #[serde(skip_serializing_if = "absent::zero")]
    pid: u32,
    /// How the last run ended, in systemd's word: success, exit-code, signal, ...
    result: &'a str,
    /// The cause; `why` knows more.
    cause: String,
    /// The last lines of its journal.
    last_words: &'a [String],
    /// The next commands.
    next: &'a [String],
}

/// The status of an installed gateway that does not answer; `error` where none is installed.
///
/// # Errors
/// `error`, or [`Exit::Usage`] when several match.
pub async fn status(ctx: &Context, error: CliError) -> Result<Exit, CliError> {
    let env = Env::real();
    let name = target::wanted_name(&ctx.global, &env);
    let Some(unit) = services::select(ctx, &env, name.as_deref())? else {
        return Err(error);
    };
    let state = service::state(&env, &unit).await.map_err(|unknown| {
        let message = format!(
            "{}, and what {} is doing cannot be asked: {}",
            error.message, unit.unit, unknown.message
        );
        CliError {
            help: unknown.next,
            ..error.exit.error(message)
        }
    })?;
    if error.exit == Exit::Permission && state.is_down() {
        // Somebody runs one of that name by hand.
        return Err(error);
    }
    let down = Down::of(&unit, &state);
    let exit = down.exit;
    let last_words = if exit == Exit::NotRunning {
        Vec::new()
    } else {
        service::last_words(unit.scope, &unit.unit)
    };
    let answer = DownAnswer {
        ok: false,
        exit: exit.code(),
        instance: &unit.instance,
        stage: down.stage,
        unit: &unit.unit,
        scope: unit.scope,
        pid: state.main_pid,
        result: state.result.as_str(),
        cause: down.cause,
        last_words: &last_words,
        next: &down.next,
    };
    ctx.ui.object(&answer);
    show(ctx, &answer, exit);
    Ok(exit)
}

/// What is wrong, and what to do.
struct Down {
    stage: StageWord,
    exit: Exit,
    cause: String,
    next: Vec<String>,
}

impl Down {
    fn of(unit: &Installed, state: &UnitState) -> Self {
        let (stage, exit) = stage(state);
        let next = |command: &str| format!("gatewayctl {command} --instance {}", unit.instance);
        // Root may ask every gateway: then it is the gateway that does not answer.
        if exit == Exit::Permission && nix::unistd::geteuid().is_root() {
            return Self {
                stage: StageWord::Silent,
                exit: Exit::Failed,
                cause: format!(
                    "pid {} does not answer at its control socket",
                    state.main_pid
                ),
                next: vec![next("restart --force"), next("logs")],
            };
        }
        let waits = state.waits_for().map(|waits| service::ways_on(unit, waits));
        let next = waits.unwrap_or_else(|| match exit {
            Exit::NotRunning => vec![next("start"), next("why") + "   (how it ended)"],
            Exit::Permission => vec![Rights::now().as_root(&next("status"))],
            Exit::StillBusy => vec![next("wait --ready")],
            _ => vec![
                next("why") + "   (how it ended)",
                next("start") + "   (when the cause is fixed)",
                next("logs"),
            ],
        });
        Self {
            stage,
            exit,
            cause: cause(state),
            next,
        }
    }
}

fn show(ctx: &Context, answer: &DownAnswer<'_>, exit: Exit) {
    let ui = &ctx.ui;
    let tone = if exit == Exit::StillBusy {
        Tone::Busy
    } else {
        Tone::Bad
    };
    let headline = (ui.paint(answer.instance, Tone::Strong))
        .and(": ")
        .and(ui.paint(&answer.stage.to_string(), tone))
        .and(format!(", {} ({} scope)", answer.unit, answer.scope));
    ui.say(headline);
    for (label, lines) in [
        ("cause", std::slice::from_ref(&answer.cause)),
        ("log", answer.last_words),
        ("next", answer.next),
    ] {
        for line in ui.labelled_list(label, lines) {
            ui.say(line);
        }
    }
}

/// Why it does not answer, with systemd's word for it.
fn cause(state: &UnitState) -> String {
    if state.waits_for().is_some() {
        return format!("pid {} is {}", state.main_pid, state.status_text);
    }
    if state.is_active() {
        let said = match state.status_text.as_str() {
            "" => String::new(),
            text => format!(": {text}"),
        };
        return format!("pid {} does not let this user ask it{said}", state.main_pid);
    }
    let ended = match (state.exit_kind, state.exit_status) {
        // systemd keeps no record of a unit that was stopped in order.
        (0, _) => "it was stopped, or not yet started".to_owned(),
        (CLD_EXITED, code) => format!("the gateway exited with code {code}"),
        (_, number) => match Signal::try_from(number) {
            Ok(signal) => format!("the gateway was ended by {signal}"),
            Err(_) => format!("the gateway was ended by signal {number}"),
        },
    };
    let again = if state.sub == SubState::AutoRestart {
        "; systemd starts it again"
    } else {
        ""
    };
    match &state.result {
        Word::Known(ServiceResult::Success | ServiceResult::NoService) => format!("{ended}{again}"),
        result => format!("{result}: {ended}{again}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: &str, result: &str, (exit_kind, exit_status): (i32, i32)) -> UnitState {
        UnitState {
            active: active.into(),
            result: result.into(),
            exit_kind,
            exit_status,
            ..UnitState::default()
        }
    }

    #[test]
    fn what_systemd_knows_in_words() {
        let waits = UnitState {
            main_pid: 7,
            status_text: "waiting for 127.0.0.1:1: held by nginx".into(),
            ..state("active", "success", (0, 0))
        };
        let again = UnitState {
            sub: "auto-restart".into(),
            ..state("activating", "exit-code", (1, 1))
        };
        for (state, expected) in [
            (
                state("inactive", "success", (0, 0)),
                "stopped (3): it was stopped, or not yet started",
            ),
            (
                state("inactive", "success", (1, 0)),
                "stopped (3): the gateway exited with code 0",
            ),
            (
                state("failed", "exit-code", (1, 78)),
                "failed (1): exit-code: the gateway exited with code 78",
            ),
            (
                state("failed", "watchdog", (3, 6)),
                "failed (1): watchdog: the gateway was ended by SIGABRT",
            ),
            (
                waits,
                "standing by (4): pid 7 is waiting for 127.0.0.1:1: held by nginx",
            ),
            (
                again,
                "starting (4): exit-code: the gateway exited with code 1; systemd starts it again",
            ),
        ] {
            let (stage, exit) = stage(&state);
            let shown = format!("{stage} ({}): {}", exit.code(), cause(&state));
            assert_eq!(shown, expected);
        }
    }
}
