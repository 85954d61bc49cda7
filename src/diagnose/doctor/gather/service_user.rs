//! What the user of a service may do with the files of its servers.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use crate::config::{Config, EnvFilePlaces};
use crate::diagnose::doctor::facts::ServerFiles;
use crate::os::credentials::{Credentials, ProcessRights};
use crate::os::file_access::{self, Access};

/// Looks at the files of variables and the working directories of `config`. `pid` is the main process,
/// which the service manager names, where one runs; `passed` are the sidecars whose variables systemd
/// reads.
pub(super) fn look(config: &Config, pid: Option<u32>, passed: &[String]) -> ServerFiles {
    let rights = pid.and_then(ProcessRights::of);
    let mut found = ServerFiles::default();
    for (name, spec) in &config.sidecar {
        if let Some(file) = spec.env_file.as_ref().filter(|file| file.is_absolute()) {
            let is_passed = passed.contains(&EnvFilePlaces::credential(name));
            let rights = rights.as_ref().filter(|_| !is_passed);
            let why = unusable(file, rights);
            found
                .bad_env_files
                .extend(why.map(|why| (name.clone(), why)));
        }
        // Nobody means the root directory.
        let cwd = spec.cwd.as_ref().filter(|cwd| cwd.parent().is_some());
        if let (Some(cwd), Some(pid), Some(rights)) = (cwd, pid, &rights)
            && is_read_only(pid, rights, cwd) == Some(true)
        {
            found.read_only_cwds.push((name.clone(), cwd.clone()));
        }
    }
    found
}

/// Why a server cannot have the variables of its file; none where this user cannot know.
fn unusable(file: &Path, rights: Option<&ProcessRights>) -> Option<String> {
    match EnvFilePlaces::default().read("", file) {
        Err(error) if error.is_permission() => return None,
        Err(error) => return Some(error.to_string()),
        Ok(_) => {}
    }
    let ProcessRights { user, capable } = rights?;
    let barrier = file_access::barrier(user, *capable, file, Access::Read).ok()??;
    let (uid, path) = (user.uid, barrier.path.display());
    Some(format!(
        "the gateway (uid {uid}) cannot {} {path}",
        barrier.access
    ))
}

/// Whether a process cannot write to a directory: for its user, or because its sandbox shows it a
/// read-only one. None where this user cannot know.
fn is_read_only(pid: u32, rights: &ProcessRights, directory: &Path) -> Option<bool> {
    let ProcessRights { user, capable } = rights;
    let barrier = file_access::barrier(user, *capable, directory, Access::Write).ok()?;
    if let Some(barrier) = barrier {
        // What cannot be entered is another fault.
        return Some(barrier.access == Access::Write);
    }
    if *user == Credentials::of_this_process() {
        return Some(false);
    }
    let inside = PathBuf::from(format!("/proc/{pid}/root")).join(directory.strip_prefix("/").ok()?);
    let flags = statvfs(&inside).ok()?.flags();
    Some(flags.contains(FsFlags::ST_RDONLY))
}
