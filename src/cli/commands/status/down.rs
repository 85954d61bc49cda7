//! The status of an installed gateway that does not answer: what its service manager knows.

use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cli::services::stage;
use crate::cli::stage_word::StageWord;
use crate::cli::target::{self, is_named_outright};
use crate::cli::ui::{LABEL, Tone};
use crate::cli::{CliError, Context, Exit};
use crate::config::Env;
use crate::service::{self, Installed, ServiceErrorKind, UnitState};
use crate::state::paths::Scope;
use crate::systemd::words::{ServiceResult, SubState, Word};

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
    /// The main process, 0 when none runs.
    pid: u32,
    /// How the last life ended, in systemd's word: success, exit-code, signal, ...
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
/// `error`, or the question which of several is meant.
pub async fn status(ctx: &Context, error: CliError) -> Result<Exit, CliError> {
    let env = Env::real();
    if is_named_outright(&ctx.global) {
        return Err(error);
    }
    let name = target::wanted_name(&ctx.global, &env);
    let unit = match service::select(&env, name.as_deref(), target::scope(&ctx.global)) {
        Ok(unit) => unit,
        Err(none) if none.kind == ServiceErrorKind::NotInstalled => return Err(error),
        Err(several) => return Err(several.into()),
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
    let (mut word, mut exit) = stage(&state);
    // Root may ask everybody: it is the gateway that says nothing.
    let silent = exit == Exit::Permission && nix::unistd::geteuid().is_root();
    if silent {
        (word, exit) = (StageWord::Silent, Exit::Failed);
    }
    let words = if exit == Exit::NotRunning {
        Vec::new()
    } else {
        service::last_words(&unit)
    };
    let next = if silent {
        vec![
            format!("gatewayctl restart --force --instance {}", unit.instance),
            format!("gatewayctl logs --instance {}", unit.instance),
        ]
    } else if state.stands_by() {
        vec![format!("gatewayctl clean --instance {}", unit.instance)]
    } else {
        next(&unit, exit)
    };
    let cause = if silent {
        format!(
            "pid {} does not answer at its control socket",
            state.main_pid
        )
    } else {
        cause(&state)
    };
    ctx.ui.object(&DownAnswer {
        ok: false,
        exit: exit.code(),
        instance: &unit.instance,
        stage: word,
        unit: &unit.unit,
        scope: unit.scope,
        pid: state.main_pid,
        result: state.result.as_str(),
        cause: cause.clone(),
        last_words: &words,
        next: &next,
    });
    let tone = if exit == Exit::StillBusy {
        Tone::Busy
    } else {
        Tone::Bad
    };
    let (name, word) = (
        ctx.ui
            .paint(&crate::text::log::escape(&unit.instance), Tone::Strong),
        ctx.ui.paint(&word.to_string(), tone),
    );
    ctx.ui.say(&format!(
        "{name}: {word}, {} ({} scope)",
        unit.unit, unit.scope
    ));
    for (label, lines) in [
        ("cause", std::slice::from_ref(&cause)),
        ("log", &words[..]),
        ("next", &next[..]),
    ] {
        for (index, line) in lines.iter().enumerate() {
            let label = if index == 0 { label } else { "" };
            ctx.ui.say(&format!(
                "  {} {}",
                ctx.ui.paint(&format!("{label:<LABEL$}"), Tone::Dim),
                crate::text::log::escape(line)
            ));
        }
    }
    Ok(exit)
}

/// Why it is there, in systemd's word and in ours.
fn cause(state: &UnitState) -> String {
    if state.stands_by() {
        return format!("pid {} is {}", state.main_pid, state.status_text);
    }
    if state.is_active() {
        let said = if state.status_text.is_empty() {
            String::new()
        } else {
            format!(": {}", state.status_text)
        };
        return format!("pid {} does not let this user ask it{said}", state.main_pid);
    }
    let ended = match (state.exit_kind, state.exit_status) {
        // systemd forgets how a unit ended that it need not remember.
        (0, _) => "it was stopped, or not yet started".to_owned(),
        (CLD_EXITED, code) => format!("the gateway exited with code {code}"),
        (_, signal) => {
            let name = Signal::try_from(signal).map_or_else(
                |_| format!("signal {signal}"),
                |signal| signal.as_str().to_owned(),
            );
            format!("the gateway was ended by {name}")
        }
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

fn next(unit: &Installed, exit: Exit) -> Vec<String> {
    let flags = format!(" --instance {}", unit.instance);
    match exit {
        Exit::NotRunning => vec![format!("gatewayctl start{flags}")],
        Exit::Permission => vec![format!("sudo gatewayctl status{flags}")],
        Exit::StillBusy => vec![format!("gatewayctl wait --ready{flags}")],
        _ => vec![
            format!("gatewayctl start{flags}   (when the cause is mended)"),
            format!("gatewayctl logs{flags}"),
        ],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(active: &str, result: &str, exit: (i32, i32)) -> UnitState {
        let (exit_kind, exit_status) = exit;
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
        let shown = |state: &UnitState| (stage(state).0, stage(state).1.code(), cause(state));
        assert_eq!(
            shown(&state("inactive", "success", (0, 0))),
            (
                StageWord::Stopped,
                3,
                "it was stopped, or not yet started".into()
            )
        );
        assert_eq!(
            shown(&state("inactive", "success", (1, 0))),
            (
                StageWord::Stopped,
                3,
                "the gateway exited with code 0".into()
            )
        );
        assert_eq!(
            shown(&state("failed", "exit-code", (1, 78))),
            (
                StageWord::Failed,
                1,
                "exit-code: the gateway exited with code 78".into()
            )
        );
        assert_eq!(
            shown(&state("failed", "watchdog", (3, 6))),
            (
                StageWord::Failed,
                1,
                "watchdog: the gateway was ended by SIGABRT".into()
            )
        );
        let waits = UnitState {
            main_pid: 7,
            status_text: "waiting for 127.0.0.1:1: held by nginx".into(),
            ..state("active", "success", (0, 0))
        };
        assert_eq!(
            shown(&waits),
            (
                StageWord::StandingBy,
                4,
                "pid 7 is waiting for 127.0.0.1:1: held by nginx".into()
            )
        );
        let again = UnitState {
            sub: "auto-restart".into(),
            ..state("activating", "exit-code", (1, 1))
        };
        assert_eq!(
            shown(&again),
            (
                StageWord::Starting,
                4,
                "exit-code: the gateway exited with code 1; systemd starts it again".into()
            )
        );
    }
}
