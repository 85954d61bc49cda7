//! One life of a job and the next, as launchd counts them, for who replaces its program.

use std::time::Duration;

use tokio::time::sleep;

use super::error::ServiceError;
use super::launchd_job::{EX_CONFIG, LaunchdJob};
use super::launchd_record::JobRecord;
use super::layout::Installed;
use super::manager_kind::ServiceManagerKind;
use crate::launchd::job_print::{JobPrint, JobState, KernelReason, LastEnd};

/// Between two questions: launchd tells nobody of an end.
const LOOK: Duration = Duration::from_millis(250);

/// A job at one moment.
#[derive(Clone, Debug)]
pub struct JobLife {
    unit: Installed,
    /// How often launchd had started it.
    runs: u32,
    /// Whether launchd may start no other program than the one that it has noted.
    pub is_pinned: bool,
}

/// The life after it, which did not last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndedLife {
    /// In a sentence.
    pub why: String,
    /// Whether the identity of the program was in its way: a load anew notes the new one.
    pub is_refused: bool,
}

impl JobLife {
    /// None where it is no job, or not loaded.
    ///
    /// # Errors
    /// When launchd cannot be asked.
    pub async fn look(unit: &Installed) -> Result<Option<Self>, ServiceError> {
        if unit.manager != ServiceManagerKind::Launchd {
            return Ok(None);
        }
        let job = LaunchdJob::find(unit).await?;
        Ok(job.loaded.map(|print| Self {
            unit: unit.clone(),
            runs: print.runs.unwrap_or_default(),
            is_pinned: print.is_pinned,
        }))
    }

    /// Whether launchd may refuse to start the program that is there now.
    pub fn refuses_next(&self) -> bool {
        self.is_pinned && JobRecord::of(&self.unit).is_program_replaced()
    }

    /// Returns when the life after this one has ended, too.
    pub async fn next_ended(&self) -> EndedLife {
        self.look_until(|now| self.ended(now)).await
    }

    /// Returns when a life after a load that is about to begin has ended. While this one lasts, the job is not
    /// between two lives.
    pub async fn ended_after_load(&self) -> EndedLife {
        let between = |now: &JobPrint| {
            let end = now.last_end.filter(|_| now.state == JobState::Scheduled)?;
            Some(EndedLife::of(end, now))
        };
        self.look_until(between).await
    }

    async fn look_until(&self, ended: impl Fn(&JobPrint) -> Option<EndedLife>) -> EndedLife {
        loop {
            // What cannot be asked now may be asked later; whoever waits has a limit.
            if let Ok(job) = LaunchdJob::find(&self.unit).await
                && let Some(ended) = job.loaded.as_ref().and_then(&ended)
            {
                return ended;
            }
            sleep(LOOK).await;
        }
    }

    fn ended(&self, now: &JobPrint) -> Option<EndedLife> {
        let further = now.runs?.checked_sub(self.runs)?;
        // While it is being started, the end that is said is that of the life before.
        let is_over = further > 1 || further == 1 && now.state == JobState::Scheduled;
        let end = now.last_end.filter(|_| is_over)?;
        Some(EndedLife::of(end, now))
    }
}

impl EndedLife {
    fn of(end: LastEnd, now: &JobPrint) -> Self {
        Self {
            why: format!("the process that launchd started {end}"),
            is_refused: end == LastEnd::ByKernel(KernelReason::CodeSigning)
                || end == LastEnd::Exited(EX_CONFIG) && now.is_pinned,
        }
    }
}
