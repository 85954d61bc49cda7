//! Where a gateway can be asked: the control sockets of a process, as far as they can be reached from
//! here.

use std::path::{Path, PathBuf};

use crate::config::Listen;
use crate::control::server;
use crate::os::{port, process};

/// The control sockets of a process.
#[derive(Clone, Debug, Default)]
pub struct ControlSockets {
    /// Each by every name that it may have now.
    pub paths: Vec<PathBuf>,
    /// Whether there is one whose name is not known: the kernel lists one with a long path by a
    /// descriptor that its process has closed since.
    pub out_of_reach: bool,
    /// The pids of the process: here, and as it knows itself in a container.
    pub pids: Vec<u32>,
}

impl ControlSockets {
    pub fn of(pid: u32) -> Self {
        let dir = std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
        let held = port::sockets_of(pid).unwrap_or_default();
        let mut found = Self {
            pids: process::pids(pid),
            ..Self::default()
        };
        for socket in port::unix().unwrap_or_default() {
            let Listen::Unix(bound) = socket.listen else {
                continue;
            };
            if !held.contains(&socket.inode) {
                continue;
            }
            if bound.starts_with("/proc") {
                found.out_of_reach = true;
                continue;
            }
            let names = server::names(&dir.join(bound));
            found
                .paths
                .extend(names.map(|name| seen_from_here(pid, name)));
        }
        found
    }
}

/// A path of a process that may have other mounts, as a container has.
fn seen_from_here(pid: u32, path: PathBuf) -> PathBuf {
    let mounts = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/mnt")).ok();
    if mounts("self") == mounts(&pid.to_string()) {
        return path;
    }
    let inside = path.strip_prefix("/").unwrap_or(&path);
    Path::new(&format!("/proc/{pid}/root")).join(inside)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_socket_is_found_by_the_name_that_it_has_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/control.sock");
        let _listener = server::bind(&path).unwrap();
        let found = ControlSockets::of(std::process::id());
        assert!(found.paths.contains(&path), "{found:?}");
        assert_eq!(found.pids, [std::process::id()]);
    }
}
