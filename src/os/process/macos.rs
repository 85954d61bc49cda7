//! What macOS tells about processes: libproc and sysctl.

use std::path::PathBuf;

use super::Stat;
use crate::os::darwin::calls;

pub fn all() -> impl Iterator<Item = u32> {
    calls::pids().into_iter()
}

/// None when there is no such process. The start time is in microseconds since 1970.
pub fn stat(pid: u32) -> Option<Stat> {
    let info = calls::process_info(pid)?;
    // The only state that is asked for is the end.
    let state = if info.zombie { 'Z' } else { 'S' };
    Some(Stat {
        name: info.name,
        state,
        parent: info.parent,
        group: info.group,
        start_time: info.start_time,
    })
}

/// The user of a process; none when it is gone.
pub fn user(pid: u32) -> Option<u32> {
    calls::process_info(pid).map(|info| info.uid)
}

/// The same as [`program`].
pub fn executable(pid: u32) -> Option<PathBuf> {
    program(pid)
}

/// The program of a process; none for a zombie, or when its file is gone.
pub fn program(pid: u32) -> Option<PathBuf> {
    calls::path(pid)
}

/// The path of a process's program. On macOS nothing leads to a file that was replaced: the path
/// may lead to another file now.
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
