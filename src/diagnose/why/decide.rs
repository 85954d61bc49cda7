//! Finds the cause from the evidence: a pure function.
//!
//! For a gateway that is running, its own status comes first ([`status`]). For an end, the evidence
//! counts in this order: lack of memory, what the service manager saw ([`manager`], [`job`]), what the gateway
//! wrote to its history ([`record`]), and what remains possible without either.

mod job;
mod manager;
mod record;
mod status;

use super::cause::{Diagnosis, EndCause};
use super::evidence::EndEvidence;
use super::journal::{JournalEvent, ProcessEnd};
use super::timeline::Timeline;
use crate::control::protocol::Stage;

/// The cause of the last event; none for a gateway that is not installed and never ran.
pub fn decide(evidence: &EndEvidence) -> Option<Diagnosis> {
    let is_installed = evidence.installed_as().is_some();
    if !is_installed && evidence.status.is_none() && evidence.record.is_empty() {
        return None;
    }
    let timeline = Timeline::of(evidence);
    let diagnosis = if evidence.is_running() {
        of_running(evidence, &timeline)
    } else {
        of_stopped(evidence, &timeline)
    };
    Some(manager::start_limit(evidence, diagnosis))
}

/// What happened last to a running gateway, or what keeps it from serving.
fn of_running(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Diagnosis {
    let previous = Diagnosis {
        restarted_at: timeline.began,
        ..previous_end(evidence, timeline)
    };
    let Some(status) = &evidence.status else {
        return previous;
    };
    if let Some(recovery) = &status.recovery {
        return Diagnosis {
            cause: status::recovering(recovery, previous.cause),
            ..previous
        };
    }
    let sidecar = status::ended_sidecar(status, &timeline.current);
    let request = timeline.request.map(record::requested);
    match (sidecar, request) {
        // Both belong to this run, so the later one counts. A crash without a time belongs to the
        // current generation, which counts its restarts, and so is the later one.
        (Some(sidecar), Some(request))
            if sidecar.at.is_some() && sidecar.at < request.at && status::is_back(&sidecar) =>
        {
            request
        }
        (Some(sidecar), _) => sidecar,
        (None, _) if status.stage == Stage::Failed => Diagnosis::at(
            EndCause::NotReady {
                said: status.detail.clone(),
            },
            timeline.began,
        ),
        (None, Some(request)) => request,
        (None, None) => previous,
    }
}

fn of_stopped(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Diagnosis {
    let never_started = evidence.record.is_empty()
        && evidence.is_unstarted()
        && timeline.exit().is_none()
        && timeline.last(JournalEvent::Failed).is_none();
    if never_started {
        return Diagnosis::at(EndCause::NeverRan, None);
    }
    previous_end(evidence, timeline)
}

/// How the last run that has ended did so.
fn previous_end(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Diagnosis {
    if timeline.out_of_memory(evidence) {
        let at = timeline.ended_at.or(timeline.at(JournalEvent::OutOfMemory));
        return Diagnosis::at(EndCause::OutOfMemory, at);
    }
    if let Some(cause) =
        manager::cause(evidence, timeline).or_else(|| job::cause(evidence, timeline))
    {
        return Diagnosis::at(cause, timeline.ended_at);
    }
    record::cause(evidence, timeline).unwrap_or_else(|| unrecorded(evidence, timeline))
}

/// The cause of an end that neither the service manager nor the history explains.
fn unrecorded(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Diagnosis {
    if timeline.machine_went_down {
        return Diagnosis::at(EndCause::MachineDown, None);
    }
    if let Some(unit) = evidence.stopped_unit()
        && (unit.exit, unit.exit_status) == (Some(ProcessEnd::Exited), 0)
    {
        return Diagnosis::at(manager::stopped(), unit.inactive_since);
    }
    let running = evidence.is_running();
    if running && timeline.is_first() {
        return Diagnosis::at(EndCause::NeverEnded, timeline.began);
    }
    if timeline.stopped_on_request() {
        let cause = manager::stopped_or_restarted(running);
        return Diagnosis::at(cause, timeline.at(JournalEvent::Stopping));
    }
    let said = timeline.said_by_next_run();
    Diagnosis::at(EndCause::Died { said }, timeline.ended_at)
}

#[cfg(test)]
mod tests;
