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

    /// Those of this process; without groups, which change nothing for who is asked for itself.
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

/// What a process may do with files, as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRights {
    pub user: Credentials,
    /// Whether it may read and write whatever the mode bits say (CAP_DAC_OVERRIDE).
    pub capable: bool,
}

impl ProcessRights {
    /// Those of a process; none where it is gone, or the system has no /proc.
    pub fn of(pid: u32) -> Option<Self> {
        let status = std::fs::read(format!("/proc/{pid}/status")).ok()?;
        Self::read(&String::from_utf8_lossy(&status))
    }

    fn read(status: &str) -> Option<Self> {
        /// Its bit in a set (capabilities(7)).
        const DAC_OVERRIDE: u64 = 1 << 1;
        let field = |name: &str| {
            let line = |line: &str| Some(line.strip_prefix(name)?.strip_prefix(':')?.to_owned());
            status.lines().find_map(line)
        };
        // The real one, the effective one, the saved one, that for files.
        let for_files = |name| field(name)?.split_whitespace().nth(3)?.parse::<u32>().ok();
        let groups = field("Groups")?;
        let groups = groups
            .split_whitespace()
            .filter_map(|group| group.parse().ok());
        let capabilities = u64::from_str_radix(field("CapEff")?.trim(), 16).ok()?;
        Some(Self {
            user: Credentials {
                uid: Uid::from_raw(for_files("Uid")?),
                gid: Gid::from_raw(for_files("Gid")?),
                groups: groups.map(Gid::from_raw).collect(),
            },
            capable: capabilities & DAC_OVERRIDE != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rights_of_a_process_are_read_from_its_status() {
        let text = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000000000000002\n";
        let rights = ProcessRights::read(text).unwrap();
        let user = Credentials {
            uid: Uid::from_raw(4),
            gid: Gid::from_raw(8),
            groups: vec![Gid::from_raw(9), Gid::from_raw(10)],
        };
        assert_eq!(
            rights,
            ProcessRights {
                user,
                capable: true
            }
        );
        assert_eq!(ProcessRights::read("Uid:\t1\n"), None);
    }
}
