//! The cause in one sentence.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cause::{Diagnosis, EndCause};
use super::evidence::EndEvidence;
use super::journal::JournalEvent;
use crate::control::protocol::Stage;
use crate::state::terms::RequestKindName;
use crate::systemd::words::SubState;
use crate::text::human::span;
use crate::text::words::Words;

/// The local time of day, with the date unless it is today's.
pub fn clock(at: Timestamp, now: Timestamp) -> String {
    let zone = TimeZone::system();
    let (at, now) = (at.to_zoned(zone.clone()), now.to_zoned(zone));
    let format = if at.date() == now.date() {
        "%H:%M:%S"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    at.strftime(format).to_string()
}

/// Milliseconds from one time to a later one.
pub fn millis_between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.duration_since(from).as_millis()).unwrap_or(0)
}

/// The cause and what happened since, in one sentence.
pub fn sentence(evidence: &EndEvidence, diagnosis: &Diagnosis, now: Timestamp) -> String {
    let at = diagnosis
        .at
        .map_or(String::new(), |at| format!(" at {}", clock(at, now)));
    let cause = cause_text(evidence.subject(), &diagnosis.cause, &at);
    match since(evidence, diagnosis, now) {
        Some(since) => format!("{cause}; {since}"),
        None => cause,
    }
}

/// `at` is empty, or the time with " at " before it.
fn cause_text(name: &str, cause: &EndCause, at: &str) -> String {
    match cause {
        EndCause::NeverRan => format!("{name} has not run yet"),
        EndCause::NeverEnded => format!("nothing has ended {name} since it was started{at}"),
        EndCause::MachineDown => {
            format!("the machine shut down, rebooted or crashed, which ended {name}")
        }
        EndCause::Stopped { .. }
        | EndCause::RestartedByManager { .. }
        | EndCause::Requested { .. } => requested_text(name, cause, at),
        EndCause::OutOfMemory => {
            format!("{name} was killed by the kernel{at} because memory ran out (OOM)")
        }
        EndCause::Watchdog { limit } => {
            let limit = limit
                .as_ref()
                .map_or(String::new(), |limit| format!(" within {limit}"));
            format!("{name} was killed by systemd{at}: no watchdog ping{limit}")
        }
        EndCause::Timeout { said } => {
            format!(
                "{name} was ended by systemd{at} after a timeout{}",
                colon(said)
            )
        }
        EndCause::Signalled { signal } => {
            format!("{name} was ended by {signal}{at}: sent by an unknown user or program")
        }
        EndCause::Killed { signal } => format!(
            "{name} was ended by {signal}{at}: sent by a user or program; no out-of-memory kill recorded"
        ),
        EndCause::Crashed { signal } => {
            format!("{name} crashed{at} with {signal}: a fault in the program")
        }
        EndCause::InvalidConfiguration { said } => format!(
            "{name} did not start{at}: exit code 78 (configuration invalid){}",
            colon(said)
        ),
        EndCause::Exited { code, said } => {
            format!(
                "{name} ended by itself{at} with exit code {code}{}",
                colon(said)
            )
        }
        EndCause::Manager { result, said } => {
            format!(
                "{name} failed{at} with systemd's result {result}{}",
                colon(said)
            )
        }
        EndCause::Died { said: Some(said) } => format!("{name} ended unplanned{at}: {said}"),
        EndCause::Died { said: None } => format!(
            "{name} ended unplanned{at} without a message: it was killed or it crashed, and nothing recorded which"
        ),
        EndCause::StartLimit { .. }
        | EndCause::Throttled { .. }
        | EndCause::SafeMode { .. }
        | EndCause::LastGood { .. }
        | EndCause::NotReady { .. }
        | EndCause::Sidecar { .. } => not_serving_text(name, cause, at),
    }
}

/// Stops and restarts on request.
fn requested_text(name: &str, cause: &EndCause, at: &str) -> String {
    match cause {
        EndCause::Stopped { by } => format!("{name} was stopped{at} by {by}"),
        EndCause::RestartedByManager { reason } => format!(
            "{name} was restarted{at} by a request to the service manager{}",
            colon(reason)
        ),
        EndCause::Requested {
            what,
            by,
            reason,
            strategy,
            took_ms,
            ..
        } => {
            let done = if *what == RequestKindName::Reload {
                "reloaded"
            } else {
                "restarted"
            };
            let took = span(*took_ms);
            format!(
                "{name} was {done}{at} on request: {reason}, by {by}, strategy {strategy}, in {took}"
            )
        }
        _ => String::new(),
    }
}

/// Why it does not run, or runs but does not serve as usual.
fn not_serving_text(name: &str, cause: &EndCause, at: &str) -> String {
    match cause {
        EndCause::StartLimit {
            starts,
            within_seconds,
            because,
        } => format!(
            "{name} was started {starts} times within {within_seconds} s, and systemd has given up (start-limit-hit); the last time, {}",
            cause_text(name, because, at)
        ),
        EndCause::Throttled {
            reason, because, ..
        } => format!(
            "{name} is waiting before it starts its sidecars: {reason}; before that, {}",
            cause_text(name, because, at)
        ),
        EndCause::SafeMode {
            reason, because, ..
        } => format!(
            "{name} is in safe mode: {reason}; before that, {}",
            cause_text(name, because, at)
        ),
        EndCause::LastGood { reason } => format!(
            "{name} uses the last good configuration because the current one is invalid: {reason}"
        ),
        EndCause::NotReady { said } => format!("{name} is running but is not ready: {said}"),
        EndCause::Sidecar {
            name: sidecar,
            said,
            back,
        } => {
            let now = if *back {
                "is ready again"
            } else {
                "is not ready yet"
            };
            format!("{name} is running; its sidecar {sidecar} {said}{at}, and {now}")
        }
        _ => String::new(),
    }
}

/// A detail after a colon, where there is one.
fn colon(detail: &Option<String>) -> String {
    detail
        .as_ref()
        .map_or(String::new(), |detail| format!(": {detail}"))
}

/// What happened since.
fn since(evidence: &EndEvidence, diagnosis: &Diagnosis, now: Timestamp) -> Option<String> {
    match &diagnosis.cause {
        EndCause::NeverRan | EndCause::NotReady { .. } | EndCause::Sidecar { .. } => return None,
        EndCause::Throttled {
            retry_ms: Some(left),
            ..
        }
        | EndCause::SafeMode {
            retry_ms: Some(left),
            ..
        } => return Some(format!("next try in {}", span(*left))),
        _ => {}
    }
    if !evidence.is_running() {
        let restarting = evidence
            .unit
            .as_ref()
            .is_some_and(|unit| unit.sub == SubState::AutoRestart);
        let now = if restarting {
            "systemd is about to start it again"
        } else {
            "it is not running"
        };
        return Some(now.to_owned());
    }
    let mut parts = Vec::new();
    if let (Some(at), Some(again)) = (diagnosis.at, diagnosis.restarted_at)
        && at < again
    {
        let who = if evidence.unit.is_some() {
            "systemd started it again"
        } else {
            "it was started again"
        };
        parts.push(format!("{who} {} later", span(millis_between(at, again))));
    }
    parts.push(now_text(evidence, diagnosis, now));
    Some(parts.join("; "))
}

/// What a running gateway is doing.
fn now_text(evidence: &EndEvidence, diagnosis: &Diagnosis, now: Timestamp) -> String {
    let Some(status) = &evidence.status else {
        return "it is running, but its status cannot be read".to_owned();
    };
    if status.stage != Stage::Ready {
        let stage = status.stage.in_words();
        return format!("it is now {stage}");
    }
    let ready = evidence
        .journal
        .iter()
        .rfind(|line| line.event == JournalEvent::Ready)
        .map(|line| line.at)
        .filter(|ready| diagnosis.at.is_none_or(|at| *ready >= at));
    ready.map_or("it is ready".to_owned(), |ready| {
        format!("it has been ready since {}", clock(ready, now))
    })
}
