//! The cause in one sentence.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::cause::{Diagnosis, EndCause};
use super::evidence::EndEvidence;
use super::journal::JournalEvent;
use crate::control::protocol::Stage;
use crate::state::history::HistoryEntry;
use crate::state::terms::RequestKindName;
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
    let mut cause = cause_text(evidence, &diagnosis.cause, &at);
    let cut = evidence
        .record
        .iter()
        .rev()
        .find_map(|line| match &line.entry {
            HistoryEntry::Ended { cut, .. } | HistoryEntry::HandedOver { cut, .. }
                if Some(line.at) == diagnosis.at =>
            {
                Some(cut)
            }
            _ => None,
        });
    if let Some(cut) = cut.filter(|cut| !cut.is_empty()) {
        cause.push_str(&format!(", and cut {}", cut.join(", ")));
    }
    match since(evidence, diagnosis, now) {
        Some(since) => format!("{cause}; {since}"),
        None => cause,
    }
}

/// `at` is empty, or the time with " at " before it.
fn cause_text(evidence: &EndEvidence, cause: &EndCause, at: &str) -> String {
    let name = evidence.subject();
    let said = match cause {
        EndCause::RestartedByManager { reason: said }
        | EndCause::Timeout { said }
        | EndCause::InvalidConfiguration { said }
        | EndCause::Exited { said, .. }
        | EndCause::Manager { said, .. } => said.as_ref().map(|said| format!(": {said}")),
        _ => None,
    };
    let said = said.unwrap_or_default();
    match cause {
        EndCause::Stopped { by } => format!("{name} was stopped{at} by {by}"),
        EndCause::RestartedByManager { .. } => {
            format!("{name} was restarted{at} by a request to the service manager{said}")
        }
        EndCause::OutOfMemory => {
            format!("{name} was killed by the kernel{at} because memory ran out (OOM)")
        }
        EndCause::Watchdog { limit } => {
            let limit = limit.iter().map(|limit| format!(" within {limit}"));
            let limit: String = limit.collect();
            format!("{name} was killed by systemd{at}: no watchdog ping{limit}")
        }
        EndCause::Timeout { .. } => {
            format!("{name} was ended by systemd{at} after a timeout{said}")
        }
        EndCause::Signalled { signal } => {
            format!(
                "{name} was ended by {signal}{at}: {}",
                asker(evidence, signal)
            )
        }
        EndCause::Killed { signal } => {
            format!(
                "{name} was ended by {signal}{at}: {}",
                killer(evidence, signal)
            )
        }
        EndCause::Crashed { signal } => {
            format!("{name} crashed{at} with {signal}: a fault in the program")
        }
        EndCause::InvalidConfiguration { .. } => {
            format!("{name} did not start{at}: exit code 78 (configuration invalid){said}")
        }
        EndCause::Exited { code, .. } => {
            format!("{name} ended by itself{at} with exit code {code}{said}")
        }
        EndCause::NotStarted { said } => {
            format!("{name} did not start{at}: exit code 78: {said}")
        }
        EndCause::ByKernel { said } => format!("{name} {said}{at}"),
        EndCause::Manager { result, .. } => {
            format!("{name} failed{at} with systemd's result {result}{said}")
        }
        EndCause::MachineDown => {
            format!("the machine shut down, rebooted or crashed, which ended {name}")
        }
        EndCause::Died { said: Some(said) } => format!("{name} ended unplanned{at}: {said}"),
        EndCause::Died { said: None } => format!(
            "{name} ended unplanned{at} without a message: it was killed or it crashed, and nothing recorded which"
        ),
        _ => state_text(evidence, cause, at),
    }
}

/// Who may have sent a signal that requests a stop.
fn asker(evidence: &EndEvidence, signal: &str) -> &'static str {
    match signal {
        "SIGINT" => "Ctrl-C at its terminal, or sent by an unknown user or program",
        "SIGHUP" => "its terminal was closed",
        _ if evidence.job.is_some() => {
            "sent by launchd for `launchctl kickstart -k`, or by an unknown user or program"
        }
        _ => "sent by an unknown user or program",
    }
}

/// Who may have sent a signal that ends a process at once.
fn killer(evidence: &EndEvidence, signal: &str) -> &'static str {
    match signal {
        "SIGKILL" if evidence.job.is_some() => {
            "sent by a user or program, or by launchd because its end took longer than ExitTimeOut"
        }
        _ => "sent by a user or program; no out-of-memory kill recorded",
    }
}

/// What it does now: why it does not run, or does not serve as usual, and what was requested.
fn state_text(evidence: &EndEvidence, cause: &EndCause, at: &str) -> String {
    let name = evidence.subject();
    let because = match cause {
        EndCause::StartLimit { because, .. }
        | EndCause::Throttled { because, .. }
        | EndCause::SafeMode { because, .. } => cause_text(evidence, because, at),
        _ => String::new(),
    };
    match cause {
        EndCause::NeverRan => format!("{name} has not run yet"),
        EndCause::Requested {
            what,
            sidecar,
            by,
            reason,
            strategy,
            took_ms,
            ..
        } => {
            let done = match what {
                RequestKindName::Reload => "reloaded",
                _ => "restarted",
            };
            let took = span(*took_ms);
            let name = match sidecar {
                Some(sidecar) => format!("sidecar {sidecar} of {name}"),
                None => name.to_owned(),
            };
            format!(
                "{name} was {done}{at} on request: {reason}, by {by}, strategy {strategy}, in {took}"
            )
        }
        EndCause::RequestFailed {
            what,
            sidecar,
            by,
            reason,
            said,
            ..
        } => {
            let said = said.as_deref().unwrap_or("nothing is known of the cause");
            let said = in_short(said);
            let what = match sidecar {
                Some(sidecar) => format!("restart of sidecar {sidecar}"),
                None => what.to_string(),
            };
            format!("the {what} of {name}{at} failed: {said} (requested: {reason}, by {by})")
        }
        EndCause::StartLimit {
            starts,
            within_seconds,
            ..
        } => format!(
            "{name} was started {starts} times within {within_seconds} s, and systemd has given up (start-limit-hit); the last time, {because}"
        ),
        EndCause::Throttled { reason, .. } => format!(
            "{name} is waiting before it starts its sidecars: {reason}; before that, {because}"
        ),
        EndCause::SafeMode { reason, .. } => {
            format!("{name} is in safe mode: {reason}; before that, {because}")
        }
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
                "ready again"
            } else {
                "not ready yet"
            };
            format!("{name} is running; its sidecar {sidecar} {said}{at}, and is {now}")
        }
        // cause_text speaks of every other end.
        _ => format!("nothing has ended {name} since it was started{at}"),
    }
}

/// A failure of a server without its output, of which the record below has all: the cause, and the
/// line that tells most, which is the last one.
fn in_short(said: &str) -> String {
    let mut parts = said.split(" | ");
    let cause = parts.next().unwrap_or_default();
    match parts.last() {
        Some(line) => format!("{cause}: {}", line.trim()),
        None => cause.to_owned(),
    }
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
        return Some(match &evidence.job {
            _ if !evidence.is_start_due() => "it is not running".to_owned(),
            Some(job) => format!("launchd is about to start it again{}", job.pace()),
            None => "systemd is about to start it again".to_owned(),
        });
    }
    if let (EndCause::RequestFailed { .. }, Some(status)) = (&diagnosis.cause, &evidence.status)
        && status.generation > 0
    {
        return Some(match status.stage {
            Stage::Ready => format!("generation {} serves on", status.generation),
            stage => format!("it is now {}: {}", stage.in_words(), status.detail),
        });
    }
    let now = now_text(evidence, diagnosis, now);
    let (Some(at), Some(again)) = (diagnosis.at, diagnosis.restarted_at) else {
        return Some(now);
    };
    if again <= at {
        return Some(now);
    }
    let who = match (&evidence.unit, &evidence.job) {
        (Some(_), _) => "systemd started it again",
        // The first one after a load was asked for.
        (None, Some(job)) if job.runs() > Some(1) => "launchd started it again",
        (None, _) => "it was started again",
    };
    let later = span(millis_between(at, again));
    Some(format!("{who} {later} later; {now}"))
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
