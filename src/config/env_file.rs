//! The file of variables that a sidecar may have (`env_file`), in the dotenv format.
//!
//! The gateway reads it for each generation, as its user. Where only root may read it, the service
//! manager does so when it starts the service, and passes it on as a credential: then the text is that
//! of this life of the gateway.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::dotenv::{self, BadLine};
use super::regular_file;

/// A longer file of variables, in bytes, is not read: a process can hardly be given more.
const FILE_MAX: u64 = 1024 * 1024;

/// What a file of variables says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EnvFile {
    /// There is none, or nobody has read it.
    #[default]
    NotRead,
    Read(BTreeMap<String, String>),
    /// Why it cannot be used, with its name.
    Unusable(String),
    /// Why this user may not read it. Another one may.
    Forbidden(String),
}

impl EnvFile {
    /// The variables that it sets.
    pub fn variables(&self) -> impl Iterator<Item = (&String, &String)> {
        let read = match self {
            Self::Read(variables) => Some(variables),
            _ => None,
        };
        read.into_iter().flatten()
    }

    /// Why it cannot be used, where somebody tried.
    pub fn why_not(&self) -> Option<&str> {
        match self {
            Self::NotRead | Self::Read(_) => None,
            Self::Unusable(why) | Self::Forbidden(why) => Some(why),
        }
    }
}

impl From<Result<BTreeMap<String, String>, EnvFileError>> for EnvFile {
    fn from(read: Result<BTreeMap<String, String>, EnvFileError>) -> Self {
        match read {
            Ok(variables) => Self::Read(variables),
            Err(error) if error.is_permission() => Self::Forbidden(error.to_string()),
            Err(error) => Self::Unusable(error.to_string()),
        }
    }
}

/// Why a file of variables cannot be used. It shows nothing of what is in the file.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    /// A pipe would be empty when it is read for the second time.
    #[error("{} is not a regular file, and it is read anew at each restart", path.display())]
    NoFile { path: PathBuf },
    #[error("{}:{line}: {why}", path.display())]
    Line {
        path: PathBuf,
        line: usize,
        why: String,
    },
}

impl EnvFileError {
    /// Whether this user may not read it.
    pub fn is_permission(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

/// Where a process finds files of variables.
#[derive(Clone, Debug, Default)]
pub struct EnvFilePlaces {
    /// What relative paths begin at; none for the working directory.
    pub directory: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`: what systemd read for this process.
    pub credentials: Option<PathBuf>,
}

impl EnvFilePlaces {
    /// The name under which systemd passes the file of a sidecar.
    pub fn credential(sidecar: &str) -> String {
        format!("env-file.{sidecar}")
    }

    /// Reads the file of a sidecar: as systemd passes it, else where it lies.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn read(
        &self,
        sidecar: &str,
        file: &Path,
    ) -> Result<BTreeMap<String, String>, EnvFileError> {
        let passed = self.credentials.as_ref();
        let passed = passed.map(|directory| directory.join(Self::credential(sidecar)));
        let own = || match &self.directory {
            Some(directory) => directory.join(file),
            None => file.to_owned(),
        };
        let from = passed.filter(|path| path.exists()).unwrap_or_else(own);
        read(&from, file)
    }
}

/// Reads what lies at `from`, and calls it `file`.
fn read(from: &Path, file: &Path) -> Result<BTreeMap<String, String>, EnvFileError> {
    let path = || file.to_owned();
    let text = regular_file::read(from, FILE_MAX).map_err(|source| {
        match std::fs::metadata(from).is_ok_and(|facts| !facts.is_file()) {
            true => EnvFileError::NoFile { path: path() },
            false => EnvFileError::Unreadable {
                path: path(),
                source,
            },
        }
    })?;
    let text = std::str::from_utf8(&text).map_err(|error| EnvFileError::Line {
        path: path(),
        line: dotenv::line_of(&text, error.valid_up_to()),
        why: "it is not UTF-8".to_owned(),
    })?;
    dotenv::parse(text).map_err(|BadLine { line, why }| EnvFileError::Line {
        path: path(),
        line,
        why,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_is_read_and_what_is_wrong_has_its_place() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("app.env");
        let shown = file.display().to_string();
        let places = EnvFilePlaces {
            directory: Some(dir.path().to_owned()),
            ..EnvFilePlaces::default()
        };
        let why = || places.read("main", &file).unwrap_err().to_string();
        assert!(why().starts_with(&format!("cannot read {shown}: No such")));
        std::fs::write(&file, "A=1\nB\n").unwrap();
        assert!(why().starts_with(&format!("{shown}:2: `B` has no value")));
        std::fs::write(&file, b"A=1\n\nB=\xff\n").unwrap();
        assert_eq!(why(), format!("{shown}:3: it is not UTF-8"));
        std::fs::write(&file, "#".repeat(FILE_MAX as usize + 1)).unwrap();
        assert!(why().contains("too long"));
        std::fs::remove_file(&file).unwrap();
        nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(why().contains("not a regular file"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
        assert!(why().contains("not a regular file"));
    }

    #[test]
    fn what_systemd_passes_comes_before_the_file_itself() {
        let (dir, passed) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("app.env"), "A=file").unwrap();
        let mut places = EnvFilePlaces {
            directory: Some(dir.path().to_owned()),
            credentials: Some(passed.path().to_owned()),
        };
        let value = |places: &EnvFilePlaces, sidecar: &str| {
            places.read(sidecar, Path::new("app.env")).unwrap()["A"].clone()
        };
        assert_eq!(value(&places, "main"), "file");
        std::fs::write(passed.path().join("env-file.main"), "A=passed").unwrap();
        assert_eq!(value(&places, "main"), "passed");
        assert_eq!(value(&places, "other"), "file");
        places.credentials = None;
        assert_eq!(value(&places, "main"), "file");
    }
}
