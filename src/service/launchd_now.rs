//! A job as launchd has it now, and in words, for `why`.

use std::fmt;

use super::error::ServiceError;
use super::launchd_job::LaunchdJob;
use super::layout::Installed;
use crate::launchd::domain::LaunchdDomain;
use crate::launchd::job_print::{JobPrint, JobState};
use crate::text::human::count;

/// A job of launchd at this moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobNow {
    pub label: String,
    /// Where it is loaded, or would be.
    pub domain: LaunchdDomain,
    /// None where it is not loaded.
    pub print: Option<JobPrint>,
}

/// Asks launchd about a job.
///
/// # Errors
/// When launchd cannot be asked.
pub async fn job_now(unit: &Installed) -> Result<JobNow, ServiceError> {
    let job = LaunchdJob::find(unit).await?;
    Ok(JobNow {
        label: unit.unit.clone(),
        domain: job.domain,
        print: job.loaded,
    })
}

impl JobNow {
    /// How often launchd has started it since it was loaded; 0 where it is not loaded. None where launchd
    /// does not say it.
    pub fn runs(&self) -> Option<u32> {
        let print = self.print.as_ref();
        print.map_or(Some(0), |print| print.runs)
    }

    /// How often launchd may start it, in words that end a sentence.
    pub fn pace(&self) -> String {
        let throttle = self.print.as_ref().and_then(|print| print.throttle);
        throttle.map_or(String::new(), |throttle| {
            format!(", which it does at most every {} s", throttle.as_secs())
        })
    }
}

impl fmt::Display for JobNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(print) = &self.print else {
            return write!(f, "not loaded into {}", self.domain);
        };
        let state = match (print.state, print.is_held) {
            (_, true) => "the domain holds its start back",
            (JobState::Running, _) => "running",
            (JobState::Scheduled, _) => "to be started when its throttle is over",
            (JobState::Ending, _) => "told to end",
            (JobState::Other, _) => "not running",
        };
        write!(f, "loaded into {}, {state}", self.domain)?;
        if let Some(pid) = print.pid {
            write!(f, ", pid {pid}")?;
        }
        if let Some(runs) = print.runs {
            write!(f, ", {}", count(runs.into(), "start"))?;
        }
        match print.last_end {
            Some(end) => write!(f, ", the process before {end}"),
            None => Ok(()),
        }
    }
}
