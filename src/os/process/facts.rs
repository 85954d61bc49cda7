//! A process, read at once.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Stat, kernel, same_file};
use crate::config::regular_file;

/// Every gateway program contains these words, and no other program: many have the name "gateway".
const MARK: &[u8] = b"gatewayctl knows this program by these words: a restart-safe front door";

/// A longer program is no gateway, and is not read: a user can have one of any length that takes no
/// room. Ours has some dozen megabytes with all that debuggers want to know.
const PROGRAM_MAX: u64 = 256 * 1024 * 1024;

/// How much of a program is searched at a time, in bytes.
const CHUNK: usize = 1 << 20;

/// Says which process is the launchd of tests, in debug builds only.
const TEST_LAUNCHD: &str = "GATEWAY_LAUNCHD_PID";

/// A process as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// As [`Stat::start_time`].
    pub start_time: u64,
    pub uid: u32,
    /// The path of its program; none where it may not be read.
    pub program: Option<PathBuf>,
    /// 15 bytes at most.
    pub name: String,
    /// The program's name first; empty where they may not be read.
    pub arguments: Vec<String>,
    /// The control group below the root of systemd's hierarchy; empty where it may not be read, and
    /// where there are no control groups.
    pub group: String,
    /// As [`Stat::is_suspended`], or frozen with its control group.
    pub suspended: bool,
    /// Whether it is proven to be its user's service manager.
    pub is_user_manager: bool,
}

impl Process {
    /// Reads a process; none when it is gone, a zombie, or hidden.
    pub fn read(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid).filter(|stat| !stat.is_dead())?;
        let (uid, group) = (kernel::user(pid)?, kernel::group_of(pid));
        let program = kernel::program(pid);
        Some(Self {
            pid,
            start_time: stat.start_time,
            suspended: stat.is_suspended() || kernel::is_frozen(pid),
            uid,
            is_user_manager: is_named(program.as_deref(), "systemd")
                && stat.parent == 1
                && is_managers_group(&group, uid),
            program,
            name: stat.name,
            arguments: kernel::arguments(pid),
            group,
        })
    }

    /// Whether this is a running gateway: its program is a gateway, even if the file was replaced
    /// since, and its command is `run`, or none, which means the same. gatewayctl contains the same
    /// words, and may have inherited a gateway's listener.
    pub fn is_gateway(&self) -> bool {
        let words = self.arguments.iter().skip(1);
        let mut own = words.take_while(|word| *word != "--");
        let command = own.find(|word| !word.starts_with('-'));
        !is_named(self.program.as_deref(), "gatewayctl")
            && command.is_none_or(|word| word != "check")
            && is_gateway_program(self.pid)
    }

    /// Whether it is systemd: the machine's service manager, or a user's.
    pub fn is_systemd(&self) -> bool {
        // The name of process 1 can be read without the right to read its program.
        let is_first = self.pid == 1
            && match &self.program {
                Some(program) => is_named(Some(program), "systemd"),
                None => self.name == "systemd",
            };
        is_first || self.is_user_manager
    }

    /// Whether it is launchd, which is process 1 where it is at all.
    pub fn is_launchd(&self) -> bool {
        let of_tests = std::env::var(TEST_LAUNCHD).ok();
        match of_tests.filter(|_| cfg!(debug_assertions)) {
            Some(pid) => pid == self.pid.to_string(),
            None => self.pid == 1 && self.name == "launchd",
        }
    }

    /// Whether it starts services, and may hold listeners for them.
    pub fn is_service_manager(&self) -> bool {
        self.is_systemd() || self.is_launchd()
    }

    /// The control group of the innermost service that it belongs to; none in a login session,
    /// below a scope, and outside of all services.
    pub fn service(&self) -> Option<&str> {
        service_of(&self.group)
    }

    /// The unit of that service, and whether it is one of a user's manager.
    pub fn unit(&self) -> Option<(&str, bool)> {
        let (above, unit) = self.service()?.rsplit_once('/')?;
        Some((unit, above.contains("/user@")))
    }

    /// For people: `nginx (pid 12, uid 33)`.
    pub fn called(&self) -> String {
        let name = crate::text::escape::escape(&self.name);
        let suspended = if self.suspended { ", suspended" } else { "" };
        format!("{name} (pid {}, uid {}{suspended})", self.pid, self.uid)
    }
}

fn is_named(program: Option<&Path>, name: &str) -> bool {
    program
        .and_then(Path::file_name)
        .is_some_and(|program| program == name)
}

/// Whether a control group is that of a user's service manager. The machine's manager makes it and
/// starts the first process in it, as its own child. The user may add further ones, but none whose
/// parent is process 1: that of an orphan below the user's manager is this manager.
fn is_managers_group(group: &str, uid: u32) -> bool {
    let own = format!("/user.slice/user-{uid}.slice/user@{uid}.service/init.scope");
    // In a container, the path may begin further up. Below a user's manager, every name is the
    // user's choice.
    group
        .strip_suffix(&own)
        .is_some_and(|above| !above.contains("/user@"))
}

/// Whether the program of a process is a gateway.
fn is_gateway_program(pid: u32) -> bool {
    let program = kernel::image(pid);
    let beside = std::env::current_exe().map(|path| path.with_file_name("gateway"));
    // The usual case needs no reading.
    beside.is_ok_and(|beside| same_file(&program, &beside))
        || regular_file::open(&program).is_ok_and(|file| is_searched(&file) && is_marked(file))
}

fn is_searched(file: &File) -> bool {
    file.metadata()
        .is_ok_and(|facts| facts.is_file() && facts.len() <= PROGRAM_MAX)
}

fn is_marked(file: File) -> bool {
    holds_mark(file.take(PROGRAM_MAX)).unwrap_or(false)
}

fn holds_mark(mut file: impl Read) -> std::io::Result<bool> {
    let finder = memchr::memmem::Finder::new(MARK);
    let mut bytes = Vec::with_capacity(CHUNK + MARK.len());
    loop {
        let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut bytes)?;
        if finder.find(&bytes).is_some() {
            return Ok(true);
        }
        if read == 0 {
            return Ok(false);
        }
        // The mark may begin in one piece and end in the next.
        bytes.drain(..bytes.len().saturating_sub(MARK.len()));
    }
}

/// Whether a control group is `outer`, or lies below it. Nothing is in a group without a name.
pub fn is_within(group: &str, outer: &str) -> bool {
    !outer.is_empty() && Path::new(group).starts_with(Path::new(outer))
}

/// The path down to the innermost service. A user's service manager does not count as one: every
/// process of that user is below it.
fn service_of(group: &str) -> Option<&str> {
    let mut path = group;
    loop {
        let (above, last) = path.rsplit_once('/')?;
        if last.ends_with(".service") {
            return (!last.starts_with("user@")).then_some(path);
        }
        // A scope holds processes that systemd did not start itself, as a login session does.
        if last.ends_with(".scope") {
            return None;
        }
        path = above;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_in_one_go() {
        let me = Process::read(std::process::id()).unwrap();
        assert_eq!(me.program, std::env::current_exe().ok());
        assert!(me.arguments[0].contains("gateway") && me.uid == nix::unistd::geteuid().as_raw());
        let ends = format!("(pid {}, uid {})", me.pid, me.uid);
        assert!(me.called().contains(&ends));
        assert!(Process::read(1 << 23).is_none());
        let mut child = std::process::Command::new("true").spawn().unwrap();
        while !Stat::read(child.id()).unwrap().is_dead() {
            std::thread::yield_now();
        }
        assert!(Process::read(child.id()).is_none(), "a zombie is nobody");
        child.wait().unwrap();
    }

    #[test]
    fn programs_are_known_by_what_is_in_them_and_not_by_their_name() {
        let text = |length: usize| [vec![b'x'; length], MARK.to_vec()].concat();
        for length in [
            0,
            CHUNK - 1,
            CHUNK - MARK.len(),
            CHUNK - MARK.len() / 2,
            CHUNK,
            3 * CHUNK - 5,
        ] {
            assert!(holds_mark(text(length).as_slice()).unwrap(), "{length}");
            assert!(
                !holds_mark(&text(length)[..length + MARK.len() - 1]).unwrap(),
                "{length}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        let named_so = dir.path().join("gateway");
        std::fs::copy("/bin/sleep", &named_so).unwrap();
        let mut child = std::process::Command::new(&named_so)
            .arg("60")
            .spawn()
            .unwrap();
        let process = Process::read(child.id()).unwrap();
        assert!(!process.is_gateway(), "{process:?}");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// For a program that its user cannot read, /proc/PID belongs to root.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_that_may_not_be_dumped_belongs_to_its_user() {
        use std::os::unix::fs::PermissionsExt;
        use std::os::unix::process::CommandExt;
        const USER: u32 = 54_321;
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("hidden");
        std::fs::copy("/bin/sleep", &program).unwrap();
        for (path, mode) in [(dir.path(), 0o711), (&program, 0o711)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let mut command = std::process::Command::new(&program);
        let mut child = command.arg("60").uid(USER).spawn().unwrap();
        let process = Process::read(child.id()).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(process.uid, USER);
    }

    #[test]
    fn the_group_of_a_users_service_manager_belongs_to_that_user() {
        let own = "/user.slice/user-1000.slice/user@1000.service/init.scope";
        let nested = "/user.slice/user-1000.slice/user@1000.service/app.slice";
        for (group, uid, expected) in [
            (own, 1000, true),
            (&format!("/docker/1{own}"), 1000, true),
            (own, 1001, false),
            (&format!("{nested}{own}"), 1000, false),
            (nested, 1000, false),
            ("/init.scope", 1000, false),
            ("", 1000, false),
        ] {
            assert_eq!(is_managers_group(group, uid), expected, "{group}");
        }
    }

    #[test]
    fn groups_of_services() {
        let within = |group| is_within(group, "/system.slice/gateway.service");
        assert!(
            within("/system.slice/gateway.service/sub") && within("/system.slice/gateway.service")
        );
        assert!(!within("/system.slice/gateway.service2") && !within("") && !is_within("/x", ""));
        for (group, service) in [
            (
                "/system.slice/gateway.service",
                Some("/system.slice/gateway.service"),
            ),
            (
                "/system.slice/gateway.service/sub/more",
                Some("/system.slice/gateway.service"),
            ),
            (
                "/user.slice/user-1.slice/user@1.service/app.slice/x.service",
                Some("/user.slice/user-1.slice/user@1.service/app.slice/x.service"),
            ),
            ("/user.slice/user-1.slice/user@1.service/app.slice", None),
            ("/user.slice/user-1.slice/user@1.service/a/vte.scope", None),
            ("/user.slice/user-1.slice/session-2.scope", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(service_of(group), service, "{group}");
        }
    }
}
