//! How processes are related: ancestors, children, descendants and groups.

use std::collections::{HashMap, HashSet};

use super::Stat;
use super::kernel::all;

/// The most steps up that are taken: a longer way is a loop, because /proc changes while it is
/// read.
const HOPS: usize = 32;

/// The parent of a process, the parent's parent, and so on, process 1 included where it is one. The
/// list ends at a process that /proc hides. The ancestor rule of `stale` stands on this list.
pub fn ancestors(of: u32) -> Vec<u32> {
    let parent = |pid: &u32| {
        Stat::read(*pid)
            .map(|stat| stat.parent)
            .filter(|parent| *parent != 0)
    };
    std::iter::successors(parent(&of), parent)
        .take(HOPS)
        .collect()
}

/// Parent and process group of every process that can be seen and is not a zombie.
fn table() -> HashMap<u32, (u32, u32)> {
    all()
        .filter_map(|pid| Some((pid, Stat::read(pid).filter(|stat| !stat.is_dead())?)))
        .map(|(pid, stat)| (pid, (stat.parent, stat.group)))
        .collect()
}

/// A process, the members of its group, and all their descendants.
pub fn descendants(root: u32) -> HashSet<u32> {
    let table = table();
    let mut found: HashSet<u32> = table
        .iter()
        .filter(|(pid, (_, group))| **pid == root || *group == root)
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let more: Vec<u32> = table
            .iter()
            .filter(|(pid, (parent, _))| found.contains(parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The children of a process, without zombies.
pub fn children(of: u32) -> Vec<u32> {
    table()
        .into_iter()
        .filter(|(_, (parent, _))| *parent == of)
        .map(|(pid, _)| pid)
        .collect()
}

/// The processes of a group, without zombies.
pub fn living_in_group(group: u32) -> Vec<u32> {
    table()
        .into_iter()
        .filter(|(_, (_, of))| *of == group)
        .map(|(pid, _)| pid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_grandchildren_are_found() {
        let mut child = std::process::Command::new("sh")
            .args(["-c", "sleep 60 & echo; wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.take().unwrap()),
            &mut line,
        )
        .unwrap();
        let kin = descendants(child.id());
        assert!(kin.contains(&child.id()) && kin.len() == 2, "{kin:?}");
        assert!(descendants(std::process::id()).is_superset(&kin));
        let grandchild = kin.iter().copied().find(|pid| *pid != child.id()).unwrap();
        assert_eq!(ancestors(grandchild)[..2], [child.id(), std::process::id()]);
        assert!(ancestors(1).is_empty());
        for pid in kin {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid as i32),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        child.wait().unwrap();
    }
}
