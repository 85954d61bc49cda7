//! The program of a successor: the file that is on disk now, under the name by which this process
//! was started.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::os::process::same_file;
use crate::os::working_directory::by_link;
use crate::text::log;

/// Environment variables that are meant for this process alone; a successor must not inherit them.
const ANCESTORS: &[&str] = &[
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "LISTEN_PIDFDID",
    "WATCHDOG_PID",
    "SYSTEMD_EXEC_PID",
    super::wire::OFFER,
    super::wire::LINK,
    log::FILE_VARIABLE,
];

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// The working directory, where a link leads to it, which is followed again.
    directory: Option<PathBuf>,
}

/// What execve takes, and before it chdir.
pub(super) struct Execution {
    pub image: CString,
    pub arguments: Vec<CString>,
    pub environment: Vec<CString>,
    pub directory: Option<CString>,
}

impl Program {
    /// Reads it. To be called early: the file may be replaced later.
    ///
    /// # Errors
    /// When the system does not tell the path of this program.
    pub fn of_this_process() -> io::Result<Self> {
        let running = std::env::current_exe()?;
        let arguments: Vec<OsString> = std::env::args_os().collect();
        // An update may point the symbolic link to another version: it is followed again.
        let path = arguments
            .first()
            .and_then(|name| named(Path::new(name)))
            .filter(|path| same_file(path, &running))
            .unwrap_or(running);
        Ok(Self {
            path,
            arguments,
            environment: std::env::vars_os().collect(),
            directory: by_link(std::env::var_os("PWD").map(PathBuf::from)),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is executed, with `more` in its environment.
    pub(super) fn for_exec<'a>(
        &self,
        more: impl Iterator<Item = (&'a str, RawFd)>,
    ) -> io::Result<Execution> {
        let arguments = self.arguments.iter().map(|one| text(one.as_bytes()));
        let kept = self.environment.iter().filter(|(name, _)| {
            let name = name.to_str();
            name.is_none_or(|name| !ANCESTORS.contains(&name))
        });
        let pair =
            |name: &OsStr, value: &OsStr| text(&[name.as_bytes(), b"=", value.as_bytes()].concat());
        let log = log::file_variable();
        let log = log
            .iter()
            .map(|(name, path)| pair(OsStr::new(name), path.as_os_str()));
        let environment = kept
            .map(|(name, value)| pair(name, value))
            .chain(log)
            .chain(more.map(|(name, fd)| text(format!("{name}={fd}").as_bytes())));
        let directory = self.directory.as_ref();
        let directory = directory.map(|path| text(path.as_os_str().as_bytes()));
        Ok(Execution {
            image: text(self.path.as_os_str().as_bytes())?,
            arguments: arguments.collect::<io::Result<_>>()?,
            environment: environment.collect::<io::Result<_>>()?,
            directory: directory.transpose()?,
        })
    }
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    Ok(CString::new(bytes)?)
}

/// The file that a shell runs for a name.
fn named(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 {
        return std::path::absolute(name).ok();
    }
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}
