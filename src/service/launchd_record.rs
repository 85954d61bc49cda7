//! What gatewayctl notes of a job of launchd, beside its property list: what launchd has read, and what a
//! command is about to do.
//!
//! A command may be killed between an unload and the load that follows, and launchd would remember nothing of
//! the job. So the aim is written down before the first step, and the next command, whichever it is, reaches
//! it. launchd says neither which text it has read nor which program it has seen at the load, so that is noted,
//! too: a job that has not changed since is started anew without an unload.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::ServiceError;
use super::launchd_written;
use super::layout::Installed;
use crate::state::owner::{boot_id, start_time};
use crate::state::{atomic_file, untrusted_file};
use crate::text::words::words;

/// A longer record is not ours.
const RECORD_MAX: u64 = 16 * 1024;

words! {
    /// What a command wants to be so at its end.
    pub(super) enum JobAim {
        /// Loaded, whatever launchd has read of it before.
        Loaded = "loaded",
        /// Loaded with what its property list says now.
        Reloaded = "loaded anew",
        Unloaded = "unloaded",
    }
}

/// What is noted of one job.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobNotes {
    /// Another boot's record says nothing: launchd has read the property lists anew.
    boot_id: String,
    loaded: Option<LoadedJob>,
    unfinished: Option<UnfinishedStep>,
}

/// What launchd read when it loaded the job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LoadedJob {
    plist_sha256: String,
    /// Device, inode and time of the program: launchd may accept no other one until the next load.
    program: (u64, u64, i64),
}

/// What a command began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct UnfinishedStep {
    aim: JobAim,
    /// The process of the command.
    pid: u32,
    start_time: u64,
}

impl UnfinishedStep {
    fn lives(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

/// The record of one job.
pub(super) struct JobRecord<'a> {
    unit: &'a Installed,
}

impl<'a> JobRecord<'a> {
    pub fn of(unit: &'a Installed) -> Self {
        Self { unit }
    }

    /// launchd reads only what ends in `.plist`.
    pub fn path(&self) -> PathBuf {
        self.unit.path.with_extension("json")
    }

    /// Notes what is to be reached, before the first step.
    ///
    /// # Errors
    /// When it cannot be written: then nothing must be unloaded.
    pub fn begin(&self, aim: JobAim) -> Result<(), ServiceError> {
        let pid = std::process::id();
        let mut notes = self.read();
        notes.unfinished = Some(UnfinishedStep {
            aim,
            pid,
            start_time: start_time(pid).unwrap_or_default(),
        });
        self.write(&notes)
    }

    /// What a command left undone that does not live any more.
    pub fn undone(&self) -> Option<JobAim> {
        let step = self.read().unfinished?;
        (!step.lives()).then_some(step.aim)
    }

    /// The aim is reached, or given up with an error that says what to do.
    pub fn end(&self) -> Result<(), ServiceError> {
        let mut notes = self.read();
        if notes.unfinished.take().is_none() {
            return Ok(());
        }
        if notes.loaded.is_some() {
            return self.write(&notes);
        }
        let path = self.path();
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(ServiceError::file("remove", &path, &error))
            }
            _ => Ok(()),
        }
    }

    /// Notes what launchd has read: call [`end`](Self::end) afterwards.
    pub fn loaded(&self) -> Result<(), ServiceError> {
        let mut notes = self.read();
        notes.loaded = self.now();
        self.write(&notes)
    }

    /// Notes that launchd knows nothing of it.
    pub fn unloaded(&self) -> Result<(), ServiceError> {
        let mut notes = self.read();
        match notes.loaded.take() {
            Some(_) => self.write(&notes),
            None => Ok(()),
        }
    }

    /// Whether launchd has read another property list than the one that is there; false where that is not
    /// known.
    pub fn is_changed(&self) -> bool {
        let loaded = self.read().loaded.map(|job| job.plist_sha256);
        loaded.is_some_and(|loaded| Some(loaded) != self.now().map(|job| job.plist_sha256))
    }

    /// Whether the program is another one than launchd has seen; false where that is not known.
    pub fn is_program_replaced(&self) -> bool {
        let loaded = self.read().loaded.map(|job| job.program);
        loaded.is_some_and(|loaded| Some(loaded) != self.now().map(|job| job.program))
    }

    /// Whether launchd has read what there is now, for all that is known.
    pub fn is_current(&self) -> bool {
        let loaded = self.read().loaded;
        loaded.is_some() && loaded == self.now()
    }

    fn now(&self) -> Option<LoadedJob> {
        let text = launchd_written::text(&self.unit.path).ok()?;
        let keys = launchd_written::keys(&text).ok()?;
        let program = std::fs::metadata(launchd_written::first_word(&keys)?).ok()?;
        let digest = Sha256::digest(&text);
        Some(LoadedJob {
            plist_sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            program: (program.dev(), program.ino(), program.mtime()),
        })
    }

    fn read(&self) -> JobNotes {
        let notes: Option<JobNotes> = untrusted_file::read_json(&self.path(), RECORD_MAX);
        let boot_id = boot_id();
        let notes = notes.filter(|notes| notes.boot_id == boot_id);
        notes.unwrap_or(JobNotes {
            boot_id,
            ..JobNotes::default()
        })
    }

    fn write(&self, notes: &JobNotes) -> Result<(), ServiceError> {
        let path = self.path();
        let failed = |error: &std::io::Error| ServiceError::file("write", &path, error);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(|error| failed(&error))?;
        }
        let text = serde_json::to_vec(notes).unwrap_or_default();
        atomic_file::write(&path, &text, 0o600).map_err(|error| failed(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::service::ServiceManagerKind;
    use crate::state::paths::Scope;

    fn unit(dir: &Path) -> Installed {
        Installed {
            instance: "web".into(),
            scope: Scope::User,
            manager: ServiceManagerKind::Launchd,
            unit: "org.gatewayctl.web".into(),
            path: dir.join("org.gatewayctl.web.plist"),
            socket: None,
        }
    }

    #[test]
    fn only_what_a_dead_command_began_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let unit = unit(dir.path());
        let record = JobRecord::of(&unit);
        assert_eq!(record.undone(), None);
        record.begin(JobAim::Loaded).unwrap();
        assert_eq!(record.undone(), None, "this process lives");
        let mut notes = record.read();
        for (change, undone) in [(1, Some(JobAim::Loaded)), (0, None)] {
            let step = notes.unfinished.as_mut().unwrap();
            step.start_time = start_time(std::process::id()).unwrap() + change;
            record.write(&notes).unwrap();
            assert_eq!(record.undone(), undone);
        }
        notes.boot_id = "another".into();
        notes.unfinished.as_mut().unwrap().start_time += 1;
        record.write(&notes).unwrap();
        assert_eq!(record.undone(), None, "a boot loads what there is");
        record.begin(JobAim::Unloaded).unwrap();
        record.end().unwrap();
        assert!(!record.path().exists());
        std::fs::write(record.path(), "{hostile").unwrap();
        assert_eq!(record.undone(), None);
    }

    #[test]
    fn a_change_of_the_property_list_or_of_the_program_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let unit = unit(dir.path());
        let program = dir.path().join("gateway");
        std::fs::write(&program, "1").unwrap();
        let text = |more: &str| {
            format!(
                "<plist version=\"1.0\"><dict><key>ProgramArguments</key><array><string>{}</string></array>{more}</dict></plist>",
                program.display()
            )
        };
        std::fs::write(&unit.path, text("")).unwrap();
        let record = JobRecord::of(&unit);
        assert!(!record.is_current(), "launchd may have read anything");
        assert!(!record.is_program_replaced());
        record.loaded().unwrap();
        assert!(record.is_current() && !record.is_program_replaced());
        std::fs::write(&unit.path, text("<key>A</key><true/>")).unwrap();
        assert!(!record.is_current());
        std::fs::write(&unit.path, text("")).unwrap();
        assert!(record.is_current());
        let next = dir.path().join("next");
        std::fs::write(&next, "2").unwrap();
        std::fs::rename(next, &program).unwrap();
        assert!(!record.is_current() && record.is_program_replaced() && !record.is_changed());
        record.loaded().unwrap();
        record.unloaded().unwrap();
        assert!(!record.is_current());
    }
}
