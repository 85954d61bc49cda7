//! Whether a process was ended by the kernel because memory ran out.
//!
//! The kernel says so in one place that every user may read: the count of such ends in each control
//! group. A process that was ended by SIGKILL while that count rose was most likely one of them;
//! nobody who sends SIGKILL by hand makes it rise.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// How many processes of one control group were ended for want of memory so far.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// The file it stands in: counts of two groups have nothing to do with each other.
    pub file: PathBuf,
    pub kills: u64,
}

/// The count of the control group this process is in; none where there is no such group or the
/// kernel does not count.
pub fn count() -> Option<Count> {
    count_in(
        Path::new("/sys/fs/cgroup"),
        &std::fs::read_to_string("/proc/self/cgroup").ok()?,
    )
}

/// Whether a process that ended with `signal` (none: it exited) was most likely ended for want of
/// memory: the counts are of before and after its end.
pub fn killed(signal: Option<i32>, before: Option<&Count>, after: Option<&Count>) -> bool {
    let rose = matches!((before, after), (Some(before), Some(after)) if before.file == after.file && after.kills > before.kills);
    signal == Some(libc::SIGKILL) && rose
}

/// Why the life before ended, as far as the memory tells: the service manager's word for it
/// (systemd.service(5), `Result`), or the count it left in the history against that of now.
pub fn end_of_life(
    unit_result: Option<&str>,
    before: Option<u64>,
    now: Option<u64>,
) -> Option<String> {
    match (unit_result, before, now) {
        (Some("oom-kill"), ..) => {
            Some("the kernel ended it because memory ran out (systemd: oom-kill)".to_owned())
        }
        (_, Some(before), Some(now)) if now > before => Some(format!(
            "the kernel ended {} of its control group's processes because memory ran out, it or its sidecars among them",
            now - before
        )),
        _ => None,
    }
}

/// What the control group says about memory, for a bundle.
pub fn evidence() -> Value {
    let Some(Count { file, kills }) = count() else {
        return Value::Null;
    };
    let folder = file.parent().unwrap_or(&file);
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    json!({
        "group": folder,
        "oomKills": kills,
        "current": read("memory.current").or_else(|| read("memory.usage_in_bytes")),
        "max": read("memory.max").or_else(|| read("memory.limit_in_bytes")),
        "events": read("memory.events"),
    })
}

/// The count of the group that `list` (the text of /proc/PID/cgroup) names, below the folder where
/// control groups are: the unified hierarchy's, or the memory controller's of version 1
/// (cgroups(7)).
fn count_in(root: &Path, list: &str) -> Option<Count> {
    let group = |wanted: &dyn Fn(&str) -> bool| {
        list.lines().find_map(|line| {
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
            // A container without a namespace for control groups sees its own at the root, under a
            // path of outside.
            let file = [base.join(group).join(name), base.join(name)]
                .into_iter()
                .find(|file| file.exists())?;
            let text = std::fs::read_to_string(&file).ok()?;
            let kills = text
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())?;
            Some(Count { file, kills })
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
        assert_eq!(
            count_in(root, "4:memory:/docker/of/outside\n")
                .unwrap()
                .kills,
            6
        );
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
            let text = std::fs::read_to_string(group.0.join(&name)).unwrap();
            let kills = text
                .lines()
                .find_map(|line| line.strip_prefix("oom_kill "))
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            Count {
                file: group.0.join(name),
                kills,
            }
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
        assert!(
            end_of_life(Some("oom-kill"), None, None)
                .unwrap()
                .contains("systemd")
        );
        assert!(
            end_of_life(Some("success"), Some(3), Some(5))
                .unwrap()
                .contains("ended 2 of")
        );
        assert_eq!(end_of_life(Some("signal"), Some(3), Some(3)), None);
        assert_eq!(end_of_life(None, Some(3), Some(0)), None);
    }
}
