//! Processes as macOS tells of them: libproc and sysctl.

use std::path::PathBuf;

use super::Stat;
use crate::os::darwin::calls;

pub fn all() -> impl Iterator<Item = u32> {
    calls::pids().into_iter()
}

/// What is known of a process; none when there is none of that number. Its start is in microseconds
/// since 1970.
pub fn stat(pid: u32) -> Option<Stat> {
    let facts = calls::facts(pid)?;
    // Of states, only the end matters.
    let state = if facts.dead { 'Z' } else { 'S' };
    Some(Stat {
        name: facts.name,
        state,
        parent: facts.parent,
        group: facts.group,
        start_time: facts.start_time,
    })
}

/// Whose a process is; none when it is gone.
pub fn user(pid: u32) -> Option<u32> {
    calls::facts(pid).map(|facts| facts.uid)
}

/// The same as [`program`].
pub fn executable(pid: u32) -> Option<PathBuf> {
    program(pid)
}

/// The program of a process; none for a zombie, or when its file is gone.
pub fn program(pid: u32) -> Option<PathBuf> {
    calls::path(pid)
}

/// The path of a process's program. Nothing here leads to a file that was replaced: what lies under
/// its name now may be another one.
pub fn image(pid: u32) -> PathBuf {
    calls::path(pid).unwrap_or_default()
}

/// The arguments of a process, the program's name first; empty where they may not be read.
pub fn arguments(pid: u32) -> Vec<String> {
    calls::arguments_of(pid).unwrap_or_default()
}

/// There are no control groups.
pub fn group_of(_: u32) -> String {
    String::new()
}
