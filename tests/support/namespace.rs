//! Namespaces: of processes, in which a program is process 1, and of networks.

use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare as leave};

use super::skip;

/// `unshare` into a new namespace, for the program and its arguments; none where no namespace may be
/// made, and then the test is skipped.
pub fn unshare() -> Option<Command> {
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command
    };
    let works = unshare().arg("true").stderr(Stdio::null()).status();
    if works.is_ok_and(|status| status.success()) {
        return Some(unshare());
    }
    skip::because("no PID namespace may be made here");
    None
}

/// Runs `what` where /etc/hosts is a file of its own with this text, whose path `what` gets; skipped
/// where none may be put there.
pub fn hosts(text: &str, what: impl FnOnce(&Path) + Send) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    std::fs::write(&file, text).unwrap();
    let inside = || {
        if leave(CloneFlags::CLONE_NEWNS).is_err() {
            return skip::because("no mount namespace may be made here");
        }
        let file = file.display().to_string();
        for args in [
            &["--make-rprivate", "/"][..],
            &["--bind", &file, "/etc/hosts"],
        ] {
            assert!(Command::new("mount").args(args).status().unwrap().success());
        }
        what(Path::new(&file));
    };
    in_thread(inside);
}

/// Runs `what` in a network of its own, in which this machine has `address`, too; skipped where none
/// may be made.
pub fn network(address: &str, what: impl FnOnce() + Send) {
    let inside = || {
        if leave(CloneFlags::CLONE_NEWNET).is_err() {
            return skip::because("no network namespace may be made here");
        }
        let address = format!("{address}/32");
        for args in [
            &["link", "set", "lo", "up"][..],
            &["address", "add", &address, "dev", "lo"],
        ] {
            assert!(Command::new("ip").args(args).status().unwrap().success());
        }
        what();
    };
    in_thread(inside);
}

/// Runs `what` on a thread that is in the network of process `pid`; threads and tasks that it starts are, too.
pub fn in_network_of<T: Send>(pid: u32, what: impl FnOnce() -> T + Send) -> T {
    let network = std::fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    in_thread(move || {
        setns(&network, CloneFlags::CLONE_NEWNET).unwrap();
        what()
    })
}

/// Its children and threads are in its namespaces, too; those of others are not.
fn in_thread<T: Send>(inside: impl FnOnce() -> T + Send) -> T {
    let ended = std::thread::scope(|scope| scope.spawn(inside).join());
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
