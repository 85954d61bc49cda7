//! A PID namespace of its own, in which a program is process 1.

use std::process::{Command, Stdio};

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
