//! What the gateway itself wrote to its history about an end or a request.

use nix::sys::signal::Signal;

use super::{job, manager};
use crate::diagnose::why::cause::{Diagnosis, EndCause};
use crate::diagnose::why::evidence::EndEvidence;
use crate::diagnose::why::timeline::Timeline;
use crate::state::history::{HistoryEntry, Recorded, Requester};
use crate::state::terms::{EndReason, RequestOutcome};

/// The cause from the entry that the gateway wrote at its end.
pub fn cause(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Option<Diagnosis> {
    let end = timeline.end?;
    let HistoryEntry::Ended {
        planned,
        code,
        reason,
        ..
    } = &end.entry
    else {
        return None;
    };
    let exited = |said: String| EndCause::Exited {
        code: i32::from(*code),
        said: Some(said),
    };
    let cause = match reason {
        EndReason::CannotStart(why) if !planned => exited(why.clone()),
        // Written by the process in front, which saw the end.
        EndReason::Signal(signal) if !planned => manager::by_signal(*signal as i32, false),
        reason if !planned => exited(reason.to_string()),
        reason => {
            if let Some(request) = timeline.scheduled {
                return Some(requested(request));
            }
            match reason {
                EndReason::Signal(Signal::SIGTERM) => sigterm(evidence, timeline),
                EndReason::Signal(signal) => EndCause::Signalled {
                    signal: signal.as_str().to_owned(),
                },
                EndReason::ManagerRestart(reason) => EndCause::RestartedByManager {
                    reason: reason.clone(),
                },
                EndReason::CannotStart(_) => exited(reason.to_string()),
                EndReason::Other(by) => EndCause::Stopped { by: by.clone() },
            }
        }
    };
    Some(Diagnosis::at(cause, Some(end.at)))
}

/// What a SIGTERM meant: the service manager sends it to stop and to restart, the machine when it
/// shuts down, and any user or program may send it.
fn sigterm(evidence: &EndEvidence, timeline: &Timeline<'_>) -> EndCause {
    if timeline.machine_went_down {
        return EndCause::MachineDown;
    }
    if let Some(of_job) = &evidence.job {
        return job::sigterm(of_job, evidence.is_running());
    }
    // Without the journal, the manager's SIGTERM looks like any other one.
    let manager_is_likely = evidence.unit.is_some() && evidence.journal.is_empty();
    if timeline.stopped_on_request() || manager_is_likely {
        return manager::stopped_or_restarted(evidence.is_running());
    }
    EndCause::Signalled {
        signal: "SIGTERM".to_owned(),
    }
}

/// A restart or reload that the history records: one that was done, or that failed.
pub fn requested(line: &Recorded) -> Diagnosis {
    let HistoryEntry::Request {
        id,
        kind,
        sidecar,
        who,
        reason,
        strategy,
        took_ms,
        outcome,
        ..
    } = &line.entry
    else {
        return Diagnosis::at(EndCause::Died { said: None }, Some(line.at));
    };
    let (request, what, sidecar) = (id.clone(), *kind, sidecar.clone());
    let (by, reason) = (requester(who, reason), reason.clone());
    let cause = match outcome.outcome {
        RequestOutcome::Failed => EndCause::RequestFailed {
            request,
            what,
            sidecar,
            by,
            reason,
            said: outcome.cause.clone(),
        },
        _ => EndCause::Requested {
            request,
            what,
            sidecar,
            by,
            reason,
            strategy: *strategy,
            took_ms: *took_ms,
        },
    };
    // The entry is written at the end of the request.
    let took = jiff::SignedDuration::from_millis(i64::try_from(*took_ms).unwrap_or(0));
    Diagnosis::at(cause, Some(line.at.checked_sub(took).unwrap_or(line.at)))
}

fn requester(who: &Requester, reason: &str) -> String {
    let program = who
        .program
        .as_ref()
        .map_or(String::new(), |program| format!("{program}, "));
    match who.uid {
        Some(uid) => format!("uid {uid} ({program}pid {})", who.pid),
        None if reason.parse::<Signal>().is_ok() => "the sender of the signal".to_owned(),
        None => (who.token.clone()).unwrap_or_else(|| "an unknown user".to_owned()),
    }
}
