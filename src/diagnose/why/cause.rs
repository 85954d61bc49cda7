//! From what is known to the cause: a pure function.

use jiff::Timestamp;
use nix::sys::signal::Signal;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::evidence::{Evidence, Unit};
use super::journal::{Kind, Line};
use super::life::Lives;
use crate::control::protocol::{Stage, Status};
use crate::state::history::{Entry, Recorded, Who};

/// What sysexits.h calls EX_CONFIG, and a gateway ends with when its configuration is not valid.
const EX_CONFIG: i32 = 78;

/// siginfo's si_code of a process that exited by itself, and of one that a signal ended and left a
/// core.
const CLD_EXITED: u64 = 1;
const CLD_DUMPED: u64 = 3;

/// Why it ended, was restarted, or does not serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(
    rename_all = "kebab-case",
    rename_all_fields = "camelCase",
    tag = "kind",
    deny_unknown_fields
)]
pub enum Cause {
    /// It is installed and has not run yet.
    NeverRan,
    /// It runs since its first start.
    NeverEnded,
    /// Somebody stopped it.
    Stopped {
        /// Who, in words.
        by: String,
    },
    /// Somebody who is not on record sent a signal that asks to stop.
    Signalled {
        /// Its name.
        signal: String,
    },
    /// Somebody had the service manager restart it.
    RestartedByManager {
        /// Why, where it was announced.
        reason: Option<String>,
    },
    /// Somebody asked the gateway for it.
    Requested {
        /// Its id in the record.
        request: String,
        /// restart or reload.
        what: String,
        /// Who asked, in words.
        by: String,
        /// Why.
        reason: String,
        /// Where the next generation lives.
        strategy: String,
        /// How long it took, in milliseconds.
        took_ms: u64,
    },
    /// The kernel ended it because memory ran out.
    OutOfMemory,
    /// The service manager ended it because it gave no sign of life.
    Watchdog {
        /// Within how long, in systemd's words.
        limit: Option<String>,
    },
    /// The service manager ended it because a start or stop took too long.
    Timeout {
        /// systemd's words.
        said: Option<String>,
    },
    /// A signal that cannot be handled ended it.
    Killed {
        /// Its name.
        signal: String,
    },
    /// A fault in the program ended it.
    Crashed {
        /// The signal's name.
        signal: String,
    },
    /// It refused to start: its configuration is not valid.
    InvalidConfiguration {
        /// The place and what is wrong there.
        said: Option<String>,
    },
    /// It ended by itself.
    Exited {
        /// The exit code.
        code: i32,
        /// What it said.
        said: Option<String>,
    },
    /// Another result of the service manager.
    Manager {
        /// In systemd's word.
        result: String,
        /// What it said.
        said: Option<String>,
    },
    /// The machine went down.
    MachineDown,
    /// It ended without a word, and nobody saw how.
    Died {
        /// What the next life could tell.
        said: Option<String>,
    },
    /// The service manager starts it no more.
    StartLimit {
        /// This many starts…
        starts: u64,
        /// …within so many seconds were too many.
        within_seconds: u64,
        /// Why each ended.
        because: Box<Cause>,
    },
    /// It waits before it starts the sidecars, since earlier lives ended too soon.
    Throttled {
        /// In words.
        reason: String,
        /// Milliseconds until it goes on.
        retry_ms: Option<u64>,
        /// Why the life before ended.
        because: Box<Cause>,
    },
    /// Front door and control only.
    SafeMode {
        /// In words.
        reason: String,
        /// Milliseconds until it tries again.
        retry_ms: Option<u64>,
        /// Why the life before ended.
        because: Box<Cause>,
    },
    /// It serves the last configuration that worked.
    LastGood {
        /// What is wrong with the one of now.
        reason: String,
    },
    /// It runs, but is not ready.
    NotReady {
        /// Why, in its own words.
        said: String,
    },
    /// A program behind it ended, not the gateway.
    Sidecar {
        /// Its name.
        name: String,
        /// How it ended.
        said: String,
        /// Whether it is back.
        back: bool,
    },
}

/// The cause, and when things happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Why.
    pub cause: Cause,
    /// When it ended or was asked.
    pub at: Option<Timestamp>,
    /// When the next life began, where there was one.
    pub again: Option<Timestamp>,
}

impl Answer {
    fn at(cause: Cause, at: Option<Timestamp>) -> Self {
        Self {
            cause,
            at,
            again: None,
        }
    }
}

/// The cause of what happened last; none of something that is not installed and never ran.
pub fn decide(evidence: &Evidence) -> Option<Answer> {
    if evidence.unit.is_none() && evidence.status.is_none() && evidence.record.is_empty() {
        return None;
    }
    let lives = Lives::of(evidence);
    let answer = if evidence.is_up() {
        of_the_living(evidence, &lives)
    } else {
        of_the_dead(evidence, &lives)
    };
    Some(start_limit(evidence, answer))
}

/// It runs: what happened last, and what keeps it from serving.
fn of_the_living(evidence: &Evidence, lives: &Lives<'_>) -> Answer {
    let begun = lives.current_began();
    let mut death = death(evidence, lives);
    death.again = begun;
    let Some(status) = &evidence.status else {
        return death;
    };
    if let Some(recovery) = &status.recovery {
        let (reason, retry_ms, because) = (
            recovery.reason.clone(),
            recovery.retry_ms,
            Box::new(death.cause),
        );
        let cause = match recovery.rung.as_str() {
            "throttled" => Cause::Throttled {
                reason,
                retry_ms,
                because,
            },
            "last_good" => Cause::LastGood { reason },
            _ => Cause::SafeMode {
                reason,
                retry_ms,
                because,
            },
        };
        return Answer {
            cause,
            at: death.at,
            again: death.again,
        };
    }
    let sidecar = sidecar(status, &lives.since);
    let request = lives.request.map(requested);
    match (sidecar, request) {
        // Both are of this life: the later one counts, and of a crash without a time the
        // generation's own count says that it is.
        (Some(sidecar), Some(request))
            if sidecar.at.is_some() && sidecar.at < request.at && was_mended(&sidecar) =>
        {
            request
        }
        (Some(sidecar), _) => sidecar,
        (None, _) if status.stage == Stage::Failed => Answer::at(
            Cause::NotReady {
                said: status.detail.clone(),
            },
            begun,
        ),
        (None, Some(request)) => request,
        (None, None) => death,
    }
}

fn was_mended(sidecar: &Answer) -> bool {
    matches!(sidecar.cause, Cause::Sidecar { back: true, .. })
}

/// The sidecar that ended last in this generation.
fn sidecar(status: &Status, since: &[&Line]) -> Option<Answer> {
    let told = |name: &str| {
        since.iter().rev().find(|line| {
            line.sidecar.as_deref() == Some(name) && line.text.contains("starting it again")
        })
    };
    let ended = status
        .sidecars
        .iter()
        .filter(|one| one.restarts > 0 || matches!(one.state.as_str(), "backoff" | "stopped"));
    let answers = ended.map(|one| {
        let line = told(&one.name);
        let words = line.map(|line| {
            let text = line.text.strip_prefix("[gateway] ").unwrap_or(&line.text);
            let text = text
                .strip_prefix(&format!("sidecar {} ", one.name))
                .unwrap_or(text);
            text.split("; starting it again")
                .next()
                .unwrap_or(text)
                .to_owned()
        });
        let said = one
            .cause
            .clone()
            .or(words)
            .unwrap_or_else(|| format!("ended unplanned {} times", one.restarts));
        Answer::at(
            Cause::Sidecar {
                name: one.name.clone(),
                said,
                back: one.state == "ready",
            },
            line.map(|line| line.at),
        )
    });
    answers.max_by_key(|answer| (!was_mended(answer), answer.at))
}

fn requested(line: &Recorded) -> Answer {
    let Entry::Request {
        id,
        kind,
        who,
        reason,
        strategy,
        took_ms,
        ..
    } = &line.entry
    else {
        return Answer::at(Cause::Died { said: None }, Some(line.at));
    };
    let cause = Cause::Requested {
        request: id.clone(),
        what: kind.clone(),
        by: by(who, reason),
        reason: reason.clone(),
        strategy: strategy.clone(),
        took_ms: *took_ms,
    };
    // The record is written at the end of the request.
    let asked = line
        .at
        .checked_sub(jiff::SignedDuration::from_millis(
            i64::try_from(*took_ms).unwrap_or(0),
        ))
        .unwrap_or(line.at);
    Answer::at(cause, Some(asked))
}

fn by(who: &Who, reason: &str) -> String {
    let program = who
        .program
        .as_ref()
        .map_or(String::new(), |program| format!("{program}, "));
    match who.uid {
        Some(uid) => format!("uid {uid} ({program}pid {})", who.pid),
        None if reason.starts_with("SIG") => "whoever sent the signal".to_owned(),
        None => "somebody who is not on record".to_owned(),
    }
}

/// It does not run.
fn of_the_dead(evidence: &Evidence, lives: &Lives<'_>) -> Answer {
    let never = evidence.record.is_empty()
        && evidence
            .unit
            .as_ref()
            .is_some_and(|unit| unit.started.is_none() && unit.exit_kind == 0);
    if never
        && lives
            .lines
            .iter()
            .all(|line| !matches!(line.kind, Kind::Exit | Kind::Failed))
    {
        return Answer::at(Cause::NeverRan, None);
    }
    death(evidence, lives)
}

/// How the last life that has ended did so.
fn death(evidence: &Evidence, lives: &Lives<'_>) -> Answer {
    let up = evidence.is_up();
    let told = lives.ended.or(lives.exit().map(|line| line.at));
    if lives.out_of_memory(evidence) {
        return Answer::at(Cause::OutOfMemory, told.or(lives.at(Kind::OutOfMemory)));
    }
    if let Some(cause) = by_result(evidence, lives) {
        return Answer::at(cause, told);
    }
    if let Some(answer) = by_record(evidence, lives, up) {
        return answer;
    }
    match &evidence.unit {
        _ if lives.machine_went_down => Answer::at(Cause::MachineDown, None),
        Some(unit) if !up && unit.exit_kind == CLD_EXITED && unit.exit_status == 0 => Answer::at(
            Cause::Stopped {
                by: "somebody, through the service manager".to_owned(),
            },
            unit.inactive_since,
        ),
        _ if up && lives.is_first() => Answer::at(Cause::NeverEnded, lives.current_began()),
        _ if lives.stopped_on_request() && !up => Answer::at(
            Cause::Stopped {
                by: "somebody, through the service manager".to_owned(),
            },
            lives.at(Kind::Stopping),
        ),
        _ if lives.stopped_on_request() => Answer::at(
            Cause::RestartedByManager { reason: None },
            lives.at(Kind::Stopping),
        ),
        _ => Answer::at(
            Cause::Died {
                said: lives.said_before(),
            },
            told,
        ),
    }
}

/// What the manager's result, or the end of the main process as it saw it, makes of it.
fn by_result(evidence: &Evidence, lives: &Lives<'_>) -> Option<Cause> {
    let unit = evidence.unit.as_ref().filter(|_| !evidence.is_up());
    let failed = lives.last(Kind::Failed).map(|line| line.result.clone());
    // The manager forgets the result of a life when the next one begins; its line in the journal
    // stays.
    let result = failed
        .or_else(|| unit.map(|unit| unit.result.clone()))
        .unwrap_or_default();
    match result.as_str() {
        "watchdog" => Some(Cause::Watchdog {
            limit: lives.watchdog_limit(),
        }),
        "timeout" => Some(Cause::Timeout {
            said: lives.complaint(),
        }),
        "" | "success" | "signal" | "core-dump" | "exit-code" | "start-limit-hit" => {
            by_exit(lives, unit)
        }
        other => Some(Cause::Manager {
            result: other.to_owned(),
            said: lives.complaint(),
        }),
    }
}

fn by_exit(lives: &Lives<'_>, unit: Option<&Unit>) -> Option<Cause> {
    let (exited, dumped, status) = match (lives.exit(), unit) {
        (Some(line), _) => (line.code == "exited", line.code == "dumped", line.status),
        (None, Some(unit)) if unit.exit_kind != 0 => (
            unit.exit_kind == CLD_EXITED,
            unit.exit_kind == CLD_DUMPED,
            unit.exit_status,
        ),
        _ => return None,
    };
    if exited {
        return match status {
            0 => None,
            EX_CONFIG => Some(Cause::InvalidConfiguration {
                said: lives.last_words(),
            }),
            code => Some(Cause::Exited {
                code,
                said: lives.last_words(),
            }),
        };
    }
    Some(by_signal(status, dumped))
}

fn by_signal(number: i32, dumped: bool) -> Cause {
    let known = Signal::try_from(number);
    let signal = known.map_or_else(
        |_| format!("signal {number}"),
        |signal| signal.as_str().to_owned(),
    );
    let fault = matches!(
        known,
        Ok(Signal::SIGSEGV
            | Signal::SIGABRT
            | Signal::SIGBUS
            | Signal::SIGILL
            | Signal::SIGFPE
            | Signal::SIGSYS)
    );
    if fault || dumped {
        Cause::Crashed { signal }
    } else {
        Cause::Killed { signal }
    }
}

/// What the gateway itself wrote at its end.
fn by_record(evidence: &Evidence, lives: &Lives<'_>, up: bool) -> Option<Answer> {
    let end = lives.end?;
    let Entry::Ended {
        planned,
        code,
        reason,
        ..
    } = &end.entry
    else {
        return None;
    };
    let at = Some(end.at);
    if !planned {
        let said = reason
            .strip_prefix("cannot start: ")
            .unwrap_or(reason)
            .to_owned();
        return Some(Answer::at(
            Cause::Exited {
                code: i32::from(*code),
                said: Some(said),
            },
            at,
        ));
    }
    if let Some(request) = lives.scheduled {
        return Some(requested(request));
    }
    let through_manager = || "somebody, through the service manager".to_owned();
    let cause = match reason.as_str() {
        // The machine's own way down stops everything in order.
        "SIGTERM" if lives.machine_went_down => Cause::MachineDown,
        "SIGTERM" if lives.stopped_on_request() && up => Cause::RestartedByManager { reason: None },
        "SIGTERM" if lives.stopped_on_request() => Cause::Stopped {
            by: through_manager(),
        },
        // Without the journal nobody can tell a manager's SIGTERM from another; a stopped unit was
        // stopped.
        "SIGTERM" if evidence.unit.is_some() && evidence.journal.is_empty() => match up {
            true => Cause::RestartedByManager { reason: None },
            false => Cause::Stopped {
                by: through_manager(),
            },
        },
        "a restart by the service manager" => Cause::RestartedByManager { reason: None },
        reason => match (
            reason.strip_prefix("SIGTERM to restart: "),
            reason.starts_with("SIG"),
        ) {
            (Some(why), _) => Cause::RestartedByManager {
                reason: Some(why.to_owned()),
            },
            (None, true) => Cause::Signalled {
                signal: reason.to_owned(),
            },
            (None, false) if reason.starts_with("cannot start") => Cause::Exited {
                code: i32::from(*code),
                said: Some(reason.to_owned()),
            },
            (None, false) => Cause::Stopped {
                by: reason.to_owned(),
            },
        },
    };
    Some(Answer::at(cause, at))
}

/// Whether it is down because it was started too often.
fn start_limit(evidence: &Evidence, answer: Answer) -> Answer {
    let Some(unit) = evidence.unit.as_ref().filter(|_| !evidence.is_up()) else {
        return answer;
    };
    let last = evidence
        .journal
        .iter()
        .rev()
        .find(|line| matches!(line.kind, Kind::TooOften | Kind::Ready));
    let too_often = last.is_some_and(|line| line.kind == Kind::TooOften);
    if unit.result != "start-limit-hit" && !(unit.active == "failed" && too_often) {
        return answer;
    }
    let (starts, within_seconds) = (unit.limit_starts, unit.limit_seconds);
    Answer {
        cause: Cause::StartLimit {
            starts,
            within_seconds,
            because: Box::new(answer.cause),
        },
        ..answer
    }
}

#[cfg(test)]
mod tests;
