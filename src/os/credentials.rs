//! The user and groups of a process, and programs that are run with those of another one.
#![allow(unsafe_code, reason = "pre_exec runs between fork and exec")]

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, User, getegid, geteuid, setgid, setsid, setuid};

use super::platform;
use crate::config::regular_file;

/// How much such a program may write to a file: it may have one of this process as its output.
const WRITTEN_MAX: u64 = 1024 * 1024;

/// The user and groups of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub uid: Uid,
    pub gid: Gid,
    /// Supplementary groups.
    pub groups: Vec<Gid>,
}

impl Credentials {
    /// Those of a user, with the groups of its account, if it has one, and `more`.
    pub fn new(
        uid: Uid,
        gid: Gid,
        account: Option<&User>,
        more: impl IntoIterator<Item = Gid>,
    ) -> Self {
        let mut groups =
            account.map_or_else(Vec::new, |account| platform::groups_of(&account.name, gid));
        groups.push(gid);
        groups.extend(more);
        groups.sort_unstable_by_key(|group| group.as_raw());
        groups.dedup();
        Self { uid, gid, groups }
    }

    pub fn of_this_process() -> Self {
        Self {
            uid: geteuid(),
            gid: getegid(),
            groups: Vec::new(),
        }
    }

    /// A command that runs `program` with these credentials, as the leader of a process group of its
    /// own. For another user it has a session of its own, too, so that it has no terminal of this
    /// process, it ends with this process, and the program is opened here: that user need not be able
    /// to reach it.
    ///
    /// # Errors
    /// When the program cannot be opened.
    pub fn command(&self, program: &Path) -> io::Result<Command> {
        if self.uid == geteuid() {
            // Nothing runs before the exec: then the C library tries a shell for what is no program.
            let mut command = Command::new(program);
            command.process_group(0);
            return Ok(command);
        }
        let file = regular_file::open(program)?;
        let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let Self { uid, gid, groups } = self.clone();
        command.arg0(program);
        let become_user = move || {
            // An interpreter opens its script by the name of this descriptor.
            fcntl(&file, FcntlArg::F_SETFD(FdFlag::empty()))?;
            setsid()?;
            setrlimit(Resource::RLIMIT_FSIZE, WRITTEN_MAX, WRITTEN_MAX)?;
            platform::set_groups(&groups)?;
            setgid(gid)?;
            setuid(uid)?;
            // A change of the user takes it back.
            platform::die_with_parent(Signal::SIGKILL)?;
            Ok(())
        };
        // SAFETY: system calls only, on what was prepared before the fork.
        unsafe { command.pre_exec(become_user) };
        Ok(command)
    }
}
