//! Whether the kernel killed a process because memory ran out.
//!
//! The kernel counts these kills for each control group. A process that ended by SIGKILL while the
//! count of its group rose was most likely killed for that reason: a SIGKILL that is sent by hand
//! does not change the count.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How many processes of a control group the kernel has killed because memory ran out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The file with the count: the counts of two groups cannot be compared.
    pub file: PathBuf,
    pub kills: u64,
}

impl Count {
    fn read(file: PathBuf) -> Option<Self> {
        let text = std::fs::read_to_string(&file).ok()?;
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        let kills = kills?.trim().parse().ok()?;
        Some(Self { file, kills })
    }
}

/// The count of this process's control group; none where there is no such group, or the kernel does
/// not count.
pub fn count() -> Option<Count> {
    let list = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    count_in(Path::new("/sys/fs/cgroup"), &list)
}

/// Whether a process that ended with `signal` (none: it exited) was most likely killed because
/// memory ran out, by the counts before and after its end.
pub fn killed(signal: Option<i32>, before: Option<&Count>, after: Option<&Count>) -> bool {
    let rose = before
        .zip(after)
        .is_some_and(|(before, after)| before.file == after.file && after.kills > before.kills);
    signal == Some(libc::SIGKILL) && rose
}

/// Stands in every text of [`end_of_life`], by which [`names_memory`] recognizes it.
const MEMORY_RAN_OUT: &str = "memory ran out";

/// Whether a recorded cause is one of [`end_of_life`].
pub fn names_memory(cause: &str) -> bool {
    cause.contains(MEMORY_RAN_OUT)
}

/// Whether the previous life of this gateway ended because memory ran out: by the `Result` of the
/// service manager (systemd.service(5)), or by the count in the history compared with the count
/// now.
pub fn end_of_life(
    unit_result: Option<&str>,
    before: Option<u64>,
    now: Option<u64>,
) -> Option<String> {
    match (unit_result, before, now) {
        (Some("oom-kill"), ..) => Some(format!(
            "the kernel ended it because {MEMORY_RAN_OUT} (systemd: oom-kill)"
        )),
        (_, Some(before), Some(now)) if now > before => Some(format!(
            "the kernel ended {} of its control group's processes because {MEMORY_RAN_OUT}, it or its sidecars among them",
            now - before
        )),
        _ => None,
    }
}

/// What the control group says about memory, for a diagnostic bundle.
pub fn evidence() -> Value {
    let Some(Count { file, kills }) = count() else {
        return Value::Null;
    };
    let directory = file.parent().unwrap_or(&file);
    let read = |name: &str| {
        let text = std::fs::read_to_string(directory.join(name)).ok()?;
        Some(text.trim().to_owned())
    };
    json!({
        "group": directory,
        "oomKills": kills,
        "current": read("memory.current").or_else(|| read("memory.usage_in_bytes")),
        "max": read("memory.max").or_else(|| read("memory.limit_in_bytes")),
        "events": read("memory.events"),
    })
}

/// The count of the group that `list` (the text of /proc/PID/cgroup) names, below `root`, where
/// control groups are mounted: of the unified hierarchy, or of version 1's memory controller
/// (cgroups(7)).
fn count_in(root: &Path, list: &str) -> Option<Count> {
    let group = |wanted: &dyn Fn(&str) -> bool| {
        list.split('\n').find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            parts.next().filter(|controllers| wanted(controllers))?;
            parts.next()?.strip_prefix('/')
        })
    };
    let unified = group(&str::is_empty).map(|group| (root.to_owned(), group, "memory.events"));
    let first = group(&|controllers| controllers.split(',').any(|name| name == "memory"));
    let first = first.map(|group| (root.join("memory"), group, "memory.oom_control"));
    [unified, first]
        .into_iter()
        .flatten()
        .find_map(|(base, group, name)| {
            // A container without a cgroup namespace sees its own group at the root, while /proc
            // gives the path outside of it.
            let file = [base.join(group).join(name), base.join(name)]
                .into_iter()
                .find(|file| file.exists())?;
            Count::read(file)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(root: &Path, path: &str, name: &str, text: &str) {
        std::fs::create_dir_all(root.join(path)).unwrap();
        std::fs::write(root.join(path).join(name), text).unwrap();
    }

    #[test]
    fn both_kinds_of_control_groups_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(count_in(root, "0::/a.service\n"), None);
        group(
            root,
            "a.service",
            "memory.events",
            "low 0\noom 5\noom_kill 3\noom_group_kill 7\n",
        );
        assert_eq!(count_in(root, "0::/a.service\n").unwrap().kills, 3);
        group(
            root,
            "memory/b",
            "memory.oom_control",
            "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
        );
        let found = count_in(root, "4:cpu,memory:/b\n1:name=systemd:/x\n0::/\n").unwrap();
        assert_eq!(
            (found.kills, found.file),
            (4, root.join("memory/b/memory.oom_control"))
        );
        group(root, "memory", "memory.oom_control", "oom_kill 6\n");
        let outside = count_in(root, "4:memory:/docker/of/outside\n");
        assert_eq!(outside.unwrap().kills, 6);
        assert_eq!(count_in(root, "nonsense\n::\n0::\n"), None);
        group(root, "old", "memory.events", "low 0\n");
        assert_eq!(
            count_in(root, "0::/old\n"),
            None,
            "a kernel that does not count"
        );
    }

    #[test]
    fn only_a_kill_while_the_count_rose_is_one_for_memory() {
        let at = |file: &str, kills| Count {
            file: file.into(),
            kills,
        };
        let (a3, a4, b4) = (at("a", 3), at("a", 4), at("b", 4));
        let kill = Some(libc::SIGKILL);
        assert!(killed(kill, Some(&a3), Some(&a4)));
        assert!(!killed(kill, Some(&a3), Some(&a3)));
        assert!(!killed(kill, Some(&a4), Some(&a3)), "a group made anew");
        assert!(!killed(kill, Some(&a3), Some(&b4)));
        assert!(!killed(kill, None, Some(&a4)) && !killed(kill, Some(&a3), None));
        assert!(
            !killed(Some(libc::SIGTERM), Some(&a3), Some(&a4))
                && !killed(None, Some(&a3), Some(&a4))
        );
    }

    /// A control group below our own that is removed again; none without the right to make one or a
    /// limit to set.
    struct Small(PathBuf);

    impl Small {
        fn new() -> Option<Self> {
            let ours = count()?.file;
            let group = Self(
                ours.parent()?
                    .join(format!("gateway-test-{}", std::process::id())),
            );
            std::fs::create_dir(&group.0).ok()?;
            let limits = ["memory.max", "memory.limit_in_bytes"].map(|name| group.0.join(name));
            let limit = limits.iter().find(|file| file.exists())?;
            std::fs::write(limit, "20971520").ok()?;
            Some(group)
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir(&self.0);
        }
    }

    #[test]
    fn the_kernels_own_end_is_told_from_one_by_hand() {
        use std::os::unix::process::ExitStatusExt;
        let Some(group) = Small::new() else {
            println!("skipped: no control group with a limit on memory can be made here");
            return;
        };
        let procs = group.0.join("cgroup.procs");
        let read = || {
            let name = count().unwrap().file.file_name().unwrap().to_owned();
            Count::read(group.0.join(name)).unwrap()
        };
        let run = |what: &str| {
            let script = format!("echo $$ > {} && exec {what}", procs.display());
            std::process::Command::new("sh")
                .args(["-c", &script])
                .stdout(std::process::Stdio::null())
                .status()
                .unwrap()
                .signal()
        };
        let before = read();
        assert_eq!(run("sh -c 'kill -9 $$'"), Some(libc::SIGKILL));
        assert!(!killed(Some(libc::SIGKILL), Some(&before), Some(&read())));
        let signal = run("tail /dev/zero");
        assert!(killed(signal, Some(&before), Some(&read())), "{signal:?}");
    }

    #[test]
    fn the_service_managers_word_comes_first() {
        let by_manager = end_of_life(Some("oom-kill"), None, None).unwrap();
        assert!(by_manager.contains("systemd"));
        let by_count = end_of_life(Some("success"), Some(3), Some(5)).unwrap();
        assert!(by_count.contains("ended 2 of"));
        assert_eq!(end_of_life(Some("signal"), Some(3), Some(3)), None);
        assert_eq!(end_of_life(None, Some(3), Some(0)), None);
    }
}
