//! Processes on Linux: /proc (proc(5)).

use std::borrow::Cow;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::{Stat, before_replaced};

/// The place of the effective user in the list of [`users`].
const EFFECTIVE: usize = 1;

/// How long the arguments and the variables of a process may be, in bytes. A process says itself where
/// in its memory they are (PR_SET_MM_MAP in prctl(2)), and Linux shows any length.
const SHOWN_MAX: u64 = 256 * 1024;

/// So many of them are read: each costs more than its bytes.
const WORDS_MAX: usize = 4096;

/// Every process that can be seen.
pub fn all() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The line of /proc/PID/stat; none when there is no such process, or it is hidden.
pub fn stat(pid: u32) -> Option<Stat> {
    stat_in(&std::fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The process in the line of /proc/PID/stat.
pub fn stat_in(line: &[u8]) -> Option<Stat> {
    let line = String::from_utf8_lossy(line);
    // The name stands in parentheses and may hold anything, parentheses too: count from the last
    // one.
    let (head, tail) = line.rsplit_once(')')?;
    let mut fields = tail.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let (parent, group) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        state,
        parent,
        group,
        start_time: fields.nth(16)?.parse().ok()?,
    })
}

/// Field N of /proc/PID/stat, for those from the fourth on.
fn stat_field(pid: u32, field: usize) -> Option<u64> {
    let line = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let line = String::from_utf8_lossy(&line);
    let (_, tail) = line.rsplit_once(')')?;
    // The state, field 3, is the first.
    tail.split_whitespace().nth(field - 3)?.parse().ok()
}

/// The processor time of a process, in clock ticks: what it has used itself, and the kernel for it.
pub fn ticks(pid: u32) -> Option<u64> {
    Some(stat_field(pid, 14)? + stat_field(pid, 15)?)
}

/// The processor time of a process, and of those children that it has reaped, in milliseconds; none when it
/// is gone.
pub fn cpu_ms(pid: u32) -> Option<u64> {
    // utime, stime, cutime, cstime
    let ticks = (14..=17).map(|field| stat_field(pid, field));
    let ticks: u64 = ticks.sum::<Option<u64>>()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK);
    let per_second = u64::try_from(per_second.ok()??).ok()?;
    ticks.saturating_mul(1000).checked_div(per_second)
}

/// How many threads a process has.
pub fn threads(pid: u32) -> Option<u64> {
    stat_field(pid, 20)
}

/// How many descriptors a process has open; none where they may not be read.
pub fn descriptors(pid: u32) -> Option<u64> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(entries.count() as u64)
}

/// The exit code of a zombie; none for one that a signal ended, and where that may not be read.
pub fn exit_code(pid: u32) -> Option<u8> {
    let status = stat_field(pid, 52)?;
    u8::try_from(status >> 8)
        .ok()
        .filter(|_| status & 0x7f == 0)
}

/// The memory of a process that is in RAM, in bytes; none when it is gone.
pub fn resident(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    Some(pages * u64::try_from(page.ok()??).ok()?)
}

/// The effective user of a process; none when it is gone, or hidden. The owner of /proc/PID is root
/// for every process that may not be dumped.
pub fn user(pid: u32) -> Option<u32> {
    users(pid).get(EFFECTIVE).copied()
}

/// The users that a process is or may become again: real, effective, saved, and that of file access.
/// Those of a process that hides its descriptors can be seen, too.
pub fn users(pid: u32) -> Vec<u32> {
    numbers_of(pid, "Uid:")
}

/// The pids of a process: the one that is given, and those that it has in containers.
pub fn pids(pid: u32) -> Vec<u32> {
    let mut pids = numbers_of(pid, "NSpid:");
    if !pids.contains(&pid) {
        pids.push(pid);
    }
    pids
}

/// The numbers of a line of /proc/PID/status; none when the process is gone, or hidden.
fn numbers_of(pid: u32, line: &str) -> Vec<u32> {
    let status = std::fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    // A name is escaped there, so that it cannot pass for a line.
    let text = String::from_utf8_lossy(&status);
    let numbers = text.lines().find_map(|found| found.strip_prefix(line));
    let numbers = numbers.unwrap_or_default().split_whitespace();
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// Whether somebody froze the control group of a process, as `docker pause` does.
pub fn is_frozen(pid: u32) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    frozen_in(Path::new("/sys/fs/cgroup"), &groups)
}

/// The same with the text of /proc/PID/cgroup, for each place where a hierarchy may be mounted.
fn frozen_in(root: &Path, groups: &str) -> bool {
    let holds = |file: PathBuf, line: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().any(|found| found == line)
    };
    groups.split('\n').any(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else {
            return false;
        };
        let path = path.trim_start_matches('/');
        match controllers {
            "" => ["", "unified"].iter().any(|mount| {
                let group = root.join(mount).join(path);
                holds(group.join("cgroup.events"), "frozen 1")
            }),
            "freezer" => {
                let group = root.join("freezer").join(path);
                holds(group.join("freezer.state"), "FROZEN")
            }
            _ => false,
        }
    })
}

/// The link /proc/PID/exe: a program whose file was replaced has " (deleted)" after it.
pub fn executable(pid: u32) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// Differs from one program of a process to the next (execve), even if both are the same file: the
/// addresses in its auxiliary vector are random. None where it may not be read.
pub fn program_mark(pid: u32) -> Option<Vec<u8>> {
    std::fs::read(format!("/proc/{pid}/auxv")).ok()
}

/// The path of the program of a process before its file was replaced; none where it may not be read.
pub fn program(pid: u32) -> Option<PathBuf> {
    Some(before_replaced(&executable(pid)?))
}

/// A path that opens the program of a process, also when its file was replaced.
pub fn image(pid: u32) -> PathBuf {
    format!("/proc/{pid}/exe").into()
}

/// The arguments of a process, the program's name first; empty where they may not be read.
pub fn arguments(pid: u32) -> Vec<String> {
    arguments_in(&shown(pid, "cmdline").unwrap_or_default())
}

/// The arguments of a process as the kernel has them; none where they may not be read.
pub fn command_line(pid: u32) -> Option<Vec<OsString>> {
    let line = shown(pid, "cmdline")?;
    Some(words(line.strip_suffix(b"\0")?).map(string).collect())
}

/// The variables that a process was started with; none where they may not be read.
pub fn environment(pid: u32) -> Option<Vec<(OsString, OsString)>> {
    let text = shown(pid, "environ")?;
    let pairs = words(&text).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((string(&entry[..at]), string(&entry[at + 1..])))
    });
    Some(pairs.collect())
}

/// What a process shows of its memory in /proc; none where that may not be read, or is longer than
/// [`SHOWN_MAX`].
fn shown(pid: u32, file: &str) -> Option<Vec<u8>> {
    let file = File::open(format!("/proc/{pid}/{file}")).ok()?;
    let mut text = Vec::new();
    file.take(SHOWN_MAX + 1).read_to_end(&mut text).ok()?;
    (text.len() as u64 <= SHOWN_MAX).then_some(text)
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|byte| *byte == 0).take(WORDS_MAX)
}

fn string(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// The arguments in the text of /proc/PID/cmdline.
pub fn arguments_in(line: &[u8]) -> Vec<String> {
    let Some(line) = line.strip_suffix(b"\0") else {
        return Vec::new();
    };
    let words = words(line).map(String::from_utf8_lossy);
    words.map(Cow::into_owned).collect()
}

/// The control group of a process below the root of systemd's hierarchy; empty where it cannot be
/// read.
pub fn group_of(pid: u32) -> String {
    group_in(&std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default())
}

/// The group in the text of /proc/PID/cgroup: of the hierarchy that is named systemd in a hybrid
/// setup, else of the unified one. A manager in a container may use the unified one, while its host
/// has the other, too: there its processes are at the root.
pub fn group_in(text: &str) -> String {
    // The name of a group may end with a carriage return, which `lines` takes away.
    let of = |wanted: &str| {
        text.split('\n').find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            (controllers == wanted).then(|| path.to_owned())
        })
    };
    let named = of("name=systemd").filter(|group| group != "/");
    named.or_else(|| of("")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let line = b"42 (a) Z (b) S 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0 18446744073709551615";
        let stat = stat_in(line).unwrap();
        let expected = Stat {
            name: "a) Z (b".into(),
            state: 'S',
            parent: 7,
            group: 42,
            start_time: 1234,
        };
        assert_eq!(stat, expected);
        assert!(!stat.is_suspended() && stat_in(b"42 (a) S 7").is_none());
        let suspended = b"42 (a) T 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0";
        assert!(stat_in(suspended).unwrap().is_suspended());
        let debugged = b"42 (a) t 7 42 42 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 1234 0 0";
        assert!(stat_in(debugged).unwrap().is_suspended());
    }

    #[test]
    fn a_frozen_group_is_seen_in_each_setup() {
        let root = tempfile::tempdir().unwrap();
        for (file, text, groups) in [
            ("a/cgroup.events", "populated 1\nfrozen 1\n", "0::/a\n"),
            ("unified/b/cgroup.events", "frozen 1\n", "1:cpu:/\n0::/b\n"),
            (
                "freezer/c/freezer.state",
                "FROZEN\n",
                "3:freezer:/c\n0::/\n",
            ),
        ] {
            assert!(!frozen_in(root.path(), groups), "{groups}");
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            assert!(frozen_in(root.path(), groups), "{groups}");
            std::fs::write(
                &path,
                text.replace("frozen 1", "frozen 0")
                    .replace("FROZEN", "THAWED"),
            )
            .unwrap();
            assert!(!frozen_in(root.path(), groups), "{groups}");
        }
    }

    #[test]
    fn of_many_arguments_only_the_first_are_read() {
        let zeros = vec![0; 1 << 20];
        assert_eq!(arguments_in(&zeros).len(), WORDS_MAX);
        let mut child = std::process::Command::new("sleep")
            .args(["60"])
            .env("LONG", "x".repeat(100_000))
            .env("MORE", "x".repeat(100_000))
            .spawn()
            .unwrap();
        let long = |child: &std::process::Child| {
            let found = environment(child.id()).unwrap_or_default();
            found.iter().any(|(name, _)| name == "MORE")
        };
        while !long(&child) {
            std::thread::yield_now();
        }
        assert_eq!(command_line(child.id()).unwrap(), ["sleep", "60"]);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn groups_of_systemd_in_each_setup() {
        assert_eq!(
            group_in("4:memory:/x\n1:name=systemd:/system.slice/a.service\n0::/\n"),
            "/system.slice/a.service"
        );
        assert_eq!(group_in("0::/user.slice/x\n"), "/user.slice/x");
        // A box of the tests on a machine with both hierarchies.
        let manager = "/user.slice/user-1002.slice/user@1002.service/init.scope";
        let both = format!("9:name=systemd:/\n4:memory:/x\n0::{manager}\n");
        assert_eq!(group_in(&both), manager);
        assert_eq!(group_in(""), "");
    }
}
