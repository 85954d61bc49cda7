//! How processes are related: ancestors, children, descendants and groups.

use std::collections::HashSet;

use super::Stat;
use super::kernel::{all, cpu_ms, descriptors, resident, threads};

/// A longer list of ancestors is a loop: /proc changes while it is read.
const HOPS: usize = 32;

/// The parent of a process, the parent's parent, and so on, process 1 included where it is one. The
/// list ends at a process that /proc hides. The ancestor rule of `stale` uses it.
pub fn ancestors(of: u32) -> Vec<u32> {
    let parent = |pid: &u32| {
        let parent = Stat::read(*pid)?.parent;
        (parent != 0).then_some(parent)
    };
    std::iter::successors(parent(&of), parent)
        .take(HOPS)
        .collect()
}

/// The processes that can be seen, without zombies.
fn living() -> impl Iterator<Item = (u32, Stat)> {
    let read = |pid| Some((pid, Stat::read(pid)?));
    all().filter_map(read).filter(|(_, stat)| !stat.is_dead())
}

/// A process, the members of its group, and all their descendants.
pub fn descendants(root: u32) -> HashSet<u32> {
    ProcessTable::read().descendants(root)
}

/// The processes of one moment, for several questions.
#[derive(Debug)]
pub struct ProcessTable(Vec<(u32, Stat)>);

impl ProcessTable {
    pub fn read() -> Self {
        Self(living().collect())
    }

    /// A process, the members of its group, and all their descendants.
    pub fn descendants(&self, root: u32) -> HashSet<u32> {
        let (mut found, mut rest): (Vec<_>, Vec<_>) =
            (self.0.iter()).partition(|(pid, stat)| *pid == root || stat.group == root);
        let mut pids = HashSet::new();
        while !found.is_empty() {
            pids.extend(found.drain(..).map(|(pid, _)| *pid));
            (found, rest) = rest
                .into_iter()
                .partition(|(_, stat)| pids.contains(&stat.parent));
        }
        pids
    }

    /// The resident memory of a process, the members of its group, and all their descendants, in bytes;
    /// none when there are none. What they share counts for each.
    pub fn memory(&self, root: u32) -> Option<u64> {
        self.sum(root, resident)
    }

    /// The processor time of the same and of the children that they have reaped, in milliseconds; none when
    /// there are none, or where the system does not tell.
    pub fn cpu_ms(&self, root: u32) -> Option<u64> {
        self.sum(root, cpu_ms)
    }

    /// The threads of the same; none as above.
    pub fn threads(&self, root: u32) -> Option<u64> {
        self.sum(root, threads)
    }

    /// The open descriptors of the same, as far as they may be counted; none as above.
    pub fn open_descriptors(&self, root: u32) -> Option<u64> {
        self.sum(root, descriptors)
    }

    fn sum(&self, root: u32, of: impl Fn(u32) -> Option<u64>) -> Option<u64> {
        // 0 is no process, and the parent of the first ones.
        let pids = (root != 0).then(|| self.descendants(root));
        let pids = pids.into_iter().flatten();
        pids.filter_map(of).reduce(|sum, one| sum + one)
    }

    /// The same for the children of a process without itself.
    pub fn memory_of_children(&self, of: u32) -> Option<u64> {
        let children = self.0.iter().filter(|(_, stat)| stat.parent == of);
        children
            .filter_map(|(pid, _)| self.memory(*pid))
            .reduce(|sum, one| sum + one)
    }
}

/// The children of a process that have ended, and that it has not reaped.
pub fn dead_children(of: u32) -> Vec<u32> {
    let read = |pid| Some((pid, Stat::read(pid)?));
    let dead = all().filter_map(read);
    dead.filter(|(_, stat)| stat.parent == of && stat.is_dead())
        .map(|(pid, _)| pid)
        .collect()
}

/// The children of a process, without zombies.
pub fn children(of: u32) -> Vec<u32> {
    let children = living().filter(|(_, stat)| stat.parent == of);
    children.map(|(pid, _)| pid).collect()
}

/// The processes of a group, without zombies.
pub fn living_in_group(group: u32) -> Vec<u32> {
    let members = living().filter(|(_, stat)| stat.group == group);
    members.map(|(pid, _)| pid).collect()
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;

    use super::*;

    #[test]
    fn children_and_grandchildren_are_found() {
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut String::new()).unwrap();
        let kin = descendants(child.id());
        assert!(kin.contains(&child.id()) && kin.len() == 2, "{kin:?}");
        assert!(descendants(std::process::id()).is_superset(&kin));
        let table = ProcessTable::read();
        let memory = table.memory(child.id()).unwrap();
        assert!(memory > 100_000, "{memory}");
        assert!(table.memory_of_children(std::process::id()).unwrap() >= memory);
        assert_eq!(table.memory(u32::MAX), None);
        assert_eq!(table.cpu_ms(0), None);
        // A shell that only waits may have used less than a tick.
        assert!(table.cpu_ms(child.id()) <= table.cpu_ms(std::process::id()));
        let grandchild = kin.iter().copied().find(|pid| *pid != child.id()).unwrap();
        assert_eq!(ancestors(grandchild)[..2], [child.id(), std::process::id()]);
        assert!(ancestors(1).is_empty());
        for pid in kin {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        child.wait().unwrap();
    }
}
