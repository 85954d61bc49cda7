//! Processes and their kin, from /proc.

use std::collections::{HashMap, HashSet};

/// Parent and process group of every process that can be seen and is not a zombie.
fn table() -> HashMap<u32, (u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // The name in parentheses may hold anything: count from the last parenthesis (proc(5)).
            let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
            if matches!(fields.next()?, "Z" | "X") {
                return None;
            }
            Some((pid, (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?)))
        })
        .collect()
}

/// A process, the members of its group, and all their descendants.
pub fn descendants(root: u32) -> HashSet<u32> {
    let table = table();
    let mut found: HashSet<u32> = table.iter().filter(|(pid, (_, group))| **pid == root || *group == root).map(|(pid, _)| *pid).collect();
    loop {
        let more: Vec<u32> =
            table.iter().filter(|(pid, (parent, _))| found.contains(parent) && !found.contains(pid)).map(|(pid, _)| *pid).collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// The children of a process that live.
pub fn children(of: u32) -> Vec<u32> {
    table().into_iter().filter(|(_, (parent, _))| *parent == of).map(|(pid, _)| pid).collect()
}

/// The processes of a group that live; zombies do not count.
pub fn living_in_group(group: u32) -> Vec<u32> {
    table().into_iter().filter(|(_, (_, of))| *of == group).map(|(pid, _)| pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_and_grandchildren_are_found() {
        let mut child =
            std::process::Command::new("sh").args(["-c", "sleep 60 & echo; wait"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
        let kin = descendants(child.id());
        assert!(kin.contains(&child.id()) && kin.len() == 2, "{kin:?}");
        assert!(descendants(std::process::id()).is_superset(&kin));
        for pid in kin {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), nix::sys::signal::Signal::SIGKILL);
        }
        child.wait().unwrap();
    }
}
