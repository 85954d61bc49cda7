//! What there is to know of a job of launchd, for `doctor`: its property list, and launchd's word on it in every
//! domain.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use plist::{Dictionary, Value};

use super::error::ServiceError;
use super::launchd_job::LaunchdJob;
use super::launchd_record::JobRecord;
use super::launchd_written;
use super::layout::Installed;
use crate::config::Listen;
use crate::launchd::domain::LaunchdDomain;
use crate::launchd::keys::{self, KeyProblem};
use crate::os::quarantine::is_quarantined;

/// A job as it is written and as launchd has it.
#[derive(Clone, Debug, Default)]
pub struct JobSurvey {
    /// Why its property list says nothing.
    pub unreadable: Option<String>,
    /// Keys that launchd ignores, or should not have.
    pub keys: Vec<(String, KeyProblem)>,
    /// The addresses that launchd holds; none where it holds none at all.
    pub sockets: BTreeSet<String>,
    pub program: Option<PathBuf>,
    pub directory: Option<PathBuf>,
    pub log: Option<PathBuf>,
    /// Where it is loaded.
    pub loaded: Vec<LaunchdDomain>,
    /// Whether a domain holds its start back.
    pub is_held: bool,
    pub is_disabled: bool,
    /// Whether its property list is another one than launchd has read; false where that is not known.
    pub is_changed: bool,
    /// Whether launchd may refuse the program that is there now, because it noted another one at the load.
    pub is_refused: bool,
    /// Whether the program has the mark of macOS for what came from elsewhere.
    pub is_quarantined: bool,
}

/// Looks at a job.
///
/// # Errors
/// When launchd cannot be asked.
pub async fn survey_job(unit: &Installed) -> Result<JobSurvey, ServiceError> {
    let mut survey = JobSurvey::default();
    match read(&unit.path) {
        Ok(job) => survey.read(&job, unit),
        Err(why) => survey.unreadable = Some(why),
    }
    for job in LaunchdJob::everywhere(unit).await? {
        if let Some(print) = &job.loaded {
            survey.loaded.push(job.domain);
            survey.is_held |= print.is_held;
            survey.is_refused |= print.is_pinned && JobRecord::of(unit).is_program_replaced();
        }
        survey.is_disabled |= job.is_disabled().await?;
    }
    survey.is_changed = !survey.loaded.is_empty() && JobRecord::of(unit).is_changed();
    Ok(survey)
}

fn read(path: &Path) -> Result<Dictionary, String> {
    let text = launchd_written::text(path).map_err(|error| error.to_string())?;
    launchd_written::keys(&text)
}

impl JobSurvey {
    fn read(&mut self, job: &Dictionary, unit: &Installed) {
        let text = |key: &str| job.get(key).and_then(Value::as_string).map(PathBuf::from);
        self.program = launchd_written::program(job).map(PathBuf::from);
        self.is_quarantined = self.program.as_deref().is_some_and(is_quarantined);
        self.directory = text("WorkingDirectory");
        self.log = text("StandardErrorPath");
        self.keys = keys::problems(job, unit.scope);
        let sockets = job.get("Sockets").and_then(Value::as_dictionary);
        let entries = sockets.into_iter().flat_map(Dictionary::values);
        let each = entries.flat_map(|entry| match entry {
            Value::Array(several) => several.iter().collect(),
            one => vec![one],
        });
        self.sockets = each.filter_map(address).collect();
    }
}

fn address(socket: &Value) -> Option<String> {
    let text = |key: &str| socket.as_dictionary()?.get(key)?.as_string();
    let (node, port) = (text("SockNodeName")?, text("SockServiceName")?);
    let node = match node.contains(':') {
        true => format!("[{node}]"),
        false => node.to_owned(),
    };
    let listen: Listen = format!("{node}:{port}").parse().ok()?;
    Some(listen.to_string())
}
