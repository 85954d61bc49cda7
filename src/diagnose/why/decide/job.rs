//! What launchd saw of an end. It keeps the last one of a job until it is loaded anew, and no reason of a stop.

use super::manager;
use crate::diagnose::why::cause::EndCause;
use crate::diagnose::why::evidence::EndEvidence;
use crate::diagnose::why::timeline::Timeline;
use crate::launchd::job_print::{KernelReason, LastEnd};
use crate::service::JobNow;
use crate::state::history::HistoryEntry;

/// What launchd says of a start that failed before the program ran, and a gateway of its configuration.
const EX_CONFIG: i32 = 78;

/// The cause from the last end of the job; none where the history tells more of it.
pub fn cause(evidence: &EndEvidence, timeline: &Timeline<'_>) -> Option<EndCause> {
    let job = evidence.job.as_ref()?.print.as_ref()?;
    match job.last_end? {
        LastEnd::ByKernel(KernelReason::Jetsam) => Some(EndCause::OutOfMemory),
        end @ LastEnd::ByKernel(_) => Some(EndCause::ByKernel {
            said: end.to_string(),
        }),
        LastEnd::Signalled(number) => Some(manager::by_signal(number, false)),
        LastEnd::Exited(0) | LastEnd::Unseen => None,
        LastEnd::Exited(code) if is_recorded(timeline, code) => None,
        LastEnd::Exited(EX_CONFIG) => Some(EndCause::NotStarted {
            said: match job.is_pinned {
                true => "launchd refuses another program than the one that it has noted, or cannot open the log, or the configuration is invalid",
                false => "launchd cannot execute the program or open the log, or the configuration is invalid",
            }
            .to_owned(),
        }),
        LastEnd::Exited(code) => Some(EndCause::Exited { code, said: None }),
    }
}

/// Whether the gateway wrote of this end, too.
fn is_recorded(timeline: &Timeline<'_>, exit: i32) -> bool {
    let entry = timeline.end.map(|end| &end.entry);
    matches!(entry, Some(HistoryEntry::Ended { code, .. }) if i32::from(*code) == exit)
}

/// What a SIGTERM meant. An unload forgets the job, and so does a load anew: its starts are counted from one.
pub fn sigterm(job: &JobNow, running: bool) -> EndCause {
    match job.print {
        None => manager::stopped_or_restarted(running),
        Some(_) if running && job.runs() == Some(1) => manager::stopped_or_restarted(running),
        Some(_) => EndCause::Signalled {
            signal: "SIGTERM".to_owned(),
        },
    }
}
