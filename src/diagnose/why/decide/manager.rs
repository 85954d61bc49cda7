//! What the service manager saw of an end: its result, and how the main process ended.

use nix::sys::signal::Signal;

use crate::diagnose::why::cause::{Diagnosis, EndCause};
use crate::diagnose::why::evidence::{EndEvidence, UnitSnapshot};
use crate::diagnose::why::journal::{JournalEvent, ProcessEnd};
use crate::diagnose::why::timeline::Timeline;
use crate::systemd::words::{ActiveState, ServiceResult, Word};

/// EX_CONFIG of sysexits.h: a gateway exits with it when its configuration is invalid.
const EX_CONFIG: i32 = 78;

/// A stop through the service manager.
pub fn stopped() -> EndCause {
    EndCause::Stopped {
        by: "a request to the service manager".to_owned(),
    }
}

/// A stop through the service manager, which a new run may have followed.
pub fn stopped_or_restarted(running: bool) -> EndCause {
    if running {
        EndCause::RestartedByManager { reason: None }
    } else {
        stopped()
    }
}

/// The cause from the manager's result, or from the end of the main process.
pub fn cause(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Option<EndCause> {
    let unit = evidence.stopped_unit();
    let failed = timeline.last(JournalEvent::Failed);
    // The manager forgets the result of a run when the next one begins; the journal keeps it.
    let result = failed
        .map(|line| &line.result)
        .or(unit.map(|unit| &unit.result));
    match result {
        Some(Word::Known(ServiceResult::Watchdog)) => Some(EndCause::Watchdog {
            limit: timeline.watchdog_limit(),
        }),
        Some(Word::Known(ServiceResult::Timeout)) => Some(EndCause::Timeout {
            said: timeline.complaint(),
        }),
        Some(
            result @ (Word::Known(ServiceResult::OomKill | ServiceResult::Resources)
            | Word::Other(_)),
        ) => Some(EndCause::Manager {
            result: result.to_string(),
            said: timeline.complaint(),
        }),
        Some(Word::Known(_)) | None => by_exit(timeline, unit),
    }
}

fn by_exit(timeline: &Timeline<'_>, unit: Option<&UnitSnapshot>) -> Option<EndCause> {
    let (end, status) = match (timeline.exit(), unit) {
        (Some(line), _) => (line.exit.unwrap_or(ProcessEnd::Killed), line.status),
        (None, Some(unit)) => (unit.exit?, unit.exit_status),
        (None, None) => return None,
    };
    match (end, status) {
        (ProcessEnd::Exited, 0) => None,
        (ProcessEnd::Exited, EX_CONFIG) => Some(EndCause::InvalidConfiguration {
            said: timeline.last_words(),
        }),
        (ProcessEnd::Exited, code) => Some(EndCause::Exited {
            code,
            said: timeline.last_words(),
        }),
        (ProcessEnd::Killed | ProcessEnd::Dumped, number) => {
            Some(by_signal(number, end == ProcessEnd::Dumped))
        }
    }
}

/// A signal ended it.
pub fn by_signal(number: i32, dumped: bool) -> EndCause {
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
        EndCause::Crashed { signal }
    } else {
        EndCause::Killed { signal }
    }
}

/// Adds that the manager has given up starting the unit, if it has.
pub fn start_limit(evidence: &EndEvidence, diagnosis: Diagnosis) -> Diagnosis {
    let Some(unit) = evidence.stopped_unit() else {
        return diagnosis;
    };
    let gave_up = evidence
        .journal
        .iter()
        .map(|line| line.event)
        .rfind(|event| matches!(event, JournalEvent::TooOften | JournalEvent::Ready))
        == Some(JournalEvent::TooOften);
    if unit.result != ServiceResult::StartLimitHit
        && !(unit.active == ActiveState::Failed && gave_up)
    {
        return diagnosis;
    }
    Diagnosis {
        cause: EndCause::StartLimit {
            starts: unit.limit_starts,
            within_seconds: unit.limit_seconds,
            because: Box::new(diagnosis.cause),
        },
        ..diagnosis
    }
}
