//! The twin of linux.rs, which describes the functions: libproc and sysctl.

use std::ffi::OsString;
use std::path::PathBuf;

use super::Stat;
use crate::os::darwin::calls;

pub fn all() -> impl Iterator<Item = u32> {
    calls::pids().into_iter()
}

pub fn stat(pid: u32) -> Option<Stat> {
    let info = calls::process_info(pid)?;
    // The only states that are asked for.
    let state = match (info.zombie, info.stopped) {
        (true, _) => 'Z',
        (false, true) => 'T',
        (false, false) => 'S',
    };
    Some(Stat {
        name: info.name,
        state,
        parent: info.parent,
        group: info.group,
        start_time: info.start_time,
    })
}

pub fn resident(pid: u32) -> Option<u64> {
    calls::resident(pid)
}

pub fn user(pid: u32) -> Option<u32> {
    calls::process_info(pid).map(|info| info.uid)
}

pub fn users(pid: u32) -> Vec<u32> {
    user(pid).into_iter().collect()
}

pub fn pids(pid: u32) -> Vec<u32> {
    vec![pid]
}

/// Not read: a start that stands still is given up at the end of its time.
pub fn ticks(_: u32) -> Option<u64> {
    None
}

/// Not read.
pub fn cpu_ms(_: u32) -> Option<u64> {
    None
}

pub fn threads(_: u32) -> Option<u64> {
    None
}

pub fn descriptors(_: u32) -> Option<u64> {
    None
}

pub fn exit_code(_: u32) -> Option<u8> {
    None
}

/// There are no control groups.
pub fn is_frozen(_: u32) -> bool {
    false
}

pub fn executable(pid: u32) -> Option<PathBuf> {
    program(pid)
}

pub fn program(pid: u32) -> Option<PathBuf> {
    calls::path(pid)
}

/// Nothing tells one program of a process from the next if both are the same file.
pub fn program_mark(_: u32) -> Option<Vec<u8>> {
    None
}

/// The path of a process's program. On macOS nothing leads to a file that was replaced: the path
/// may lead to another file now.
pub fn image(pid: u32) -> PathBuf {
    calls::path(pid).unwrap_or_default()
}

pub fn arguments(pid: u32) -> Vec<String> {
    calls::arguments_of(pid).unwrap_or_default()
}

/// Not read: only the checks of a restart would use them.
pub fn command_line(_: u32) -> Option<Vec<OsString>> {
    None
}

pub fn environment(_: u32) -> Option<Vec<(OsString, OsString)>> {
    None
}

/// There are no control groups.
pub fn group_of(_: u32) -> String {
    String::new()
}
