//! What a running gateway reports: recovery, and sidecars that ended.

use crate::control::protocol::{RecoveryRung, RecoveryStatus, SidecarStateName, Status};
use crate::diagnose::why::cause::{Diagnosis, EndCause};
use crate::diagnose::why::journal::JournalLine;

/// A stable log line: the gateway says it of a sidecar that ended unplanned.
const RESTARTING: &str = "starting it again";

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
        let line = journal.iter().rev().find(|line| {
            line.sidecar.as_deref() == Some(&one.name) && line.text.contains(RESTARTING)
        });
        let said = one
            .cause
            .clone()
            .or_else(|| line.map(|line| how_it_ended(&line.text, &one.name)))
            .unwrap_or_else(|| format!("ended unplanned {} times", one.restarts));
        Diagnosis::at(
            EndCause::Sidecar {
                name: one.name.clone(),
                said,
                back: one.state == SidecarStateName::Ready,
            },
            line.map(|line| line.at),
        )
    });
    diagnoses.max_by_key(|diagnosis| (!is_back(diagnosis), diagnosis.at))
}

/// "(pid 5) was ended by SIGKILL" of
/// "\[gateway\] sidecar main (pid 5) was ended by SIGKILL; starting it again at once".
fn how_it_ended(text: &str, sidecar: &str) -> String {
    let text = text.strip_prefix("[gateway] ").unwrap_or(text);
    let text = text
        .strip_prefix(&format!("sidecar {sidecar} "))
        .unwrap_or(text);
    text.split_once(&format!("; {RESTARTING}"))
        .map_or(text, |(how, _)| how)
        .to_owned()
}
