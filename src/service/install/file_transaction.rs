//! Writing files so that a failed install leaves everything as it was.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::service::backup::{self, Original};
use crate::service::error::ServiceError;
use crate::service::provenance::{Written, diff, sign};
use crate::service::report::FileText;
use crate::state::atomic_file;
use crate::text::redact::Redactor;

/// A file that install wants: its text without our first line.
#[derive(Clone, Debug)]
pub(super) struct PlannedFile {
    pub path: PathBuf,
    /// What; none to have it removed.
    pub body: Option<String>,
    /// Permission bits.
    pub mode: u32,
    /// The group that may read it, where it is not the caller's.
    pub group: Option<u32>,
    /// The user that it belongs to, where that is not the caller.
    pub owner: Option<u32>,
    /// What is there now.
    pub now: Written,
    /// Old and new text for people's eyes, where the real ones are secret.
    pub shown: Option<(String, String)>,
}

impl PlannedFile {
    /// Looks at what is there.
    pub fn new(path: PathBuf, body: Option<String>, mode: u32) -> Result<Self, ServiceError> {
        Ok(Self {
            now: Written::look(&path)?,
            path,
            body,
            mode,
            group: None,
            owner: None,
            shown: None,
        })
    }

    /// Whether anything would be written or removed.
    pub fn changes(&self) -> bool {
        match (&self.body, &self.now) {
            (None, Written::Absent) => false,
            (Some(body), Written::ByUs(now)) => body != now || !self.has_access(),
            _ => true,
        }
    }

    /// Whether the bits, the group and the owner are as wanted.
    fn has_access(&self) -> bool {
        let Ok(meta) = fs::metadata(&self.path) else {
            return false;
        };
        meta.permissions().mode() & 0o777 == self.mode
            && self.group.is_none_or(|group| group == meta.gid())
            && self.owner.is_none_or(|owner| owner == meta.uid())
    }

    pub fn diff(&self) -> String {
        match &self.shown {
            Some((old, new)) => diff(&self.path, old, new),
            None => diff(
                &self.path,
                self.now.text().unwrap_or(""),
                self.body.as_deref().unwrap_or(""),
            ),
        }
    }

    /// The lines that a replaced file loses and gets.
    pub fn changed_lines(&self) -> Vec<String> {
        if self.body.is_none() || self.now == Written::Absent {
            return Vec::new();
        }
        let diff = self.diff();
        // After the two lines with the names.
        diff.lines()
            .skip(2)
            .filter(|line| line.starts_with(['+', '-']))
            .map(|line| format!("    {line}"))
            .collect()
    }

    /// The new text or the difference, for people's eyes; no text where the file is to be removed.
    pub fn show(&self, diff: bool, redactor: &Redactor) -> Option<FileText> {
        let text = match &self.shown {
            _ if diff => &self.diff(),
            Some((_, new)) if self.body.is_some() => new,
            _ => self.body.as_ref()?,
        };
        Some(FileText {
            path: self.path.clone(),
            text: redactor.text(text),
        })
    }

    /// What would be done, in words.
    pub fn action(&self) -> String {
        format!("{} {}", self.verbs().0, self.path.display())
    }

    /// What is being done, in words.
    pub fn doing(&self) -> String {
        format!("{} {}", self.verbs().1, self.path.display())
    }

    fn verbs(&self) -> (&'static str, &'static str) {
        match (&self.body, &self.now) {
            (None, _) => ("remove", "removing"),
            (Some(_), Written::Absent) => ("write", "writing"),
            (Some(_), _) => ("replace", "replacing"),
        }
    }
}

/// A file as it was.
#[derive(Debug)]
struct FileBefore {
    path: PathBuf,
    /// None where there was nothing.
    was: Option<Original>,
    /// The copy of what somebody else had written.
    copy: Option<PathBuf>,
}

impl FileBefore {
    fn of(path: &Path, copy: Option<PathBuf>) -> io::Result<Self> {
        let was = match Original::of(path) {
            Ok(original) => Some(original),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self {
            path: path.to_owned(),
            was,
            copy,
        })
    }

    fn restore(self) -> io::Result<()> {
        match self.was {
            None => fs::remove_file(&self.path),
            Some(original) => original.write(&self.path),
        }?;
        self.copy.map_or(Ok(()), fs::remove_file)
    }
}

/// What was written so far. Undone when dropped, unless kept.
#[derive(Debug, Default)]
pub(super) struct FileTransaction {
    undo: Vec<FileBefore>,
    made: Vec<PathBuf>,
}

impl FileTransaction {
    /// Writes or removes one file.
    ///
    /// # Errors
    /// Kind Refused when it is not what was looked at any more, and what the file system says;
    /// earlier files are put back when this is dropped.
    pub fn apply(&mut self, wanted: &PlannedFile) -> Result<(), ServiceError> {
        let path = &wanted.path;
        // The user may have been asked in between.
        if Written::look(path)? != wanted.now {
            return Err(ServiceError::refused(format!(
                "{} was changed meanwhile; nothing was changed by this command",
                path.display()
            ))
            .next("the same command again"));
        }
        let failed = |error: io::Error| ServiceError::file("write", path, &error);
        // What somebody else wrote is theirs, and comes back with uninstall.
        let copy = match &wanted.now {
            Written::Foreign(_) => Some(false),
            Written::Edited(_) => Some(true),
            Written::ByUs(_) | Written::Absent => None,
        };
        let copy = copy
            .map(|edited| backup::keep(path, edited))
            .transpose()
            .map_err(|error| ServiceError::file("keep a copy of", path, &error))?;
        self.undo.push(FileBefore::of(path, copy).map_err(failed)?);
        let Some(body) = &wanted.body else {
            return fs::remove_file(path)
                .map_err(|error| ServiceError::file("remove", path, &error));
        };
        self.make_parent(path).map_err(failed)?;
        let user = wanted.owner.unwrap_or(nix::unistd::geteuid().as_raw());
        let group = wanted.group.unwrap_or(nix::unistd::getegid().as_raw());
        let is_given = wanted.group.is_some() || wanted.owner.is_some();
        let owner = is_given.then_some((user, group));
        atomic_file::write_for(path, sign(body).as_bytes(), wanted.mode, owner).map_err(failed)
    }

    fn make_parent(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<&Path> = path
            .ancestors()
            .skip(1)
            .take_while(|dir| !dir.exists())
            .collect();
        for dir in missing.into_iter().rev() {
            fs::create_dir(dir)?;
            self.made.push(dir.to_owned());
        }
        Ok(())
    }

    /// It worked: nothing is undone. What the operator should know of what was there before.
    pub fn keep(mut self) -> Vec<String> {
        self.made.clear();
        let copies = self
            .undo
            .drain(..)
            .filter_map(|before| Some((before.path, before.copy?)));
        copies
            .map(|(path, copy)| {
                format!(
                    "what {} said before is kept in {}",
                    path.display(),
                    copy.display()
                )
            })
            .collect()
    }
}

impl Drop for FileTransaction {
    fn drop(&mut self) {
        for before in self.undo.drain(..).rev() {
            // A second failure here cannot be helped, and the first is being reported.
            let _ = before.restore();
        }
        for dir in self.made.drain(..).rev() {
            let _ = fs::remove_dir(dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_kept_is_undone() {
        let dir = tempfile::tempdir().unwrap();
        let (new, old) = (dir.path().join("a/b/new"), dir.path().join("old"));
        fs::write(&old, "before").unwrap();
        let mut applied = FileTransaction::default();
        for path in [&new, &old] {
            applied
                .apply(&PlannedFile::new(path.clone(), Some("x\n".into()), 0o640).unwrap())
                .unwrap();
        }
        assert_eq!(
            fs::metadata(&new).unwrap().permissions().mode() & 0o777,
            0o640
        );
        assert!(
            !PlannedFile::new(new.clone(), Some("x\n".into()), 0o640)
                .unwrap()
                .changes()
        );
        assert_eq!(
            fs::read_to_string(backup::of(&old).unwrap()).unwrap(),
            "before"
        );
        drop(applied);
        assert!(!dir.path().join("a").exists());
        assert_eq!(fs::read_to_string(&old).unwrap(), "before");
        assert_eq!(backup::of(&old), None);
        let mut applied = FileTransaction::default();
        applied
            .apply(&PlannedFile::new(old.clone(), None, 0).unwrap())
            .unwrap();
        let notes = applied.keep();
        assert!(
            !old.exists() && notes[0].ends_with("old.before-gatewayctl"),
            "{notes:?}"
        );
    }

    #[test]
    fn what_was_changed_since_it_was_looked_at_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (first, path) = (dir.path().join("first"), dir.path().join("second"));
        let wanted =
            |path: &Path| PlannedFile::new(path.to_owned(), Some("x\n".into()), 0o644).unwrap();
        let (one, other) = (wanted(&first), wanted(&path));
        fs::write(&path, "theirs").unwrap();
        let mut applied = FileTransaction::default();
        applied.apply(&one).unwrap();
        let error = applied.apply(&other).unwrap_err();
        assert_eq!(error.kind, crate::service::error::ServiceErrorKind::Refused);
        assert!(
            error.message.contains("second was changed meanwhile"),
            "{error}"
        );
        drop(applied);
        assert!(!first.exists());
        assert_eq!(fs::read_to_string(&path).unwrap(), "theirs");
        assert_eq!(backup::of(&path), None);
    }

    #[test]
    fn a_link_comes_back_as_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("gateway.service");
        for (target, body) in [
            ("/dev/null", Some("x\n".to_owned())),
            ("nowhere", Some("x\n".to_owned())),
            ("/dev/null", None),
        ] {
            std::os::unix::fs::symlink(target, &path).unwrap();
            let wanted = PlannedFile::new(path.clone(), body, 0o644).unwrap();
            assert!(!wanted.now.is_free() && wanted.changes());
            let mut applied = FileTransaction::default();
            applied.apply(&wanted).unwrap();
            assert!(!path.is_symlink());
            assert_eq!(
                fs::read_link(backup::of(&path).unwrap()).unwrap(),
                Path::new(target)
            );
            drop(applied);
            assert_eq!(fs::read_link(&path).unwrap(), Path::new(target));
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
            fs::remove_file(&path).unwrap();
        }
    }
}
