//! What a running gateway reports: recovery, and sidecars that ended.

use crate::control::protocol::{RecoveryRung, RecoveryStatus, SidecarStateName, Status};
use crate::diagnose::why::cause::{Diagnosis, EndCause};
use crate::diagnose::why::journal::JournalLine;

/// The step of recovery that keeps the gateway from serving as usual.
pub fn recovering(recovery: &RecoveryStatus, because: EndCause) -> EndCause {
    let (reason, retry_ms) = (recovery.reason.clone(), recovery.retry_ms);
    let because = Box::new(because);
    match recovery.rung {
        RecoveryRung::Throttled => EndCause::Throttled {
            reason,
            retry_ms,
            because,
        },
        RecoveryRung::LastGood => EndCause::LastGood { reason },
        RecoveryRung::SafeMode => EndCause::SafeMode {
            reason,
            retry_ms,
            because,
        },
    }
}

/// Whether the diagnosis is a sidecar that is ready again.
pub fn is_back(diagnosis: &Diagnosis) -> bool {
    matches!(diagnosis.cause, EndCause::Sidecar { back: true, .. })
}

/// The sidecar that ended last in this generation; one that is still down comes first.
pub fn ended_sidecar(status: &Status, journal: &[&JournalLine]) -> Option<Diagnosis> {
    let ended = status.sidecars.iter().filter(|one| {
        one.restarts > 0
            || matches!(
                one.state,
                SidecarStateName::Backoff | SidecarStateName::Stopped
            )
    });
    let diagnoses = ended.map(|one| {
        let end = journal.iter().rev().find_map(|line| {
            let end = line.sidecar_end.as_ref()?;
            (end.name == one.name).then_some((line.at, &end.how))
        });
        let back = one.state == SidecarStateName::Ready;
        // Of one that is ready, the cause is what is odd about it now.
        let cause = one.cause.clone().filter(|_| !back);
        let said = cause
            .or(end.map(|(_, how)| how.clone()))
            .or(one.last_death.clone())
            .unwrap_or_else(|| match one.restarts {
                0 | 1 => "ended unplanned".to_owned(),
                times => format!("ended unplanned {times} times"),
            });
        let told = || one.last_death_at.as_ref()?.parse().ok();
        Diagnosis::at(
            EndCause::Sidecar {
                name: one.name.clone(),
                said,
                back,
            },
            end.map(|(at, _)| at).or_else(told),
        )
    });
    diagnoses.max_by_key(|diagnosis| (!is_back(diagnosis), diagnosis.at))
}
