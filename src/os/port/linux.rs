//! What Linux tells about sockets: sock_diag, and /proc.

use std::path::Path;
use std::{fs, io};

use super::{Socket, diag, table};

/// The first port for outgoing connections where the kernel does not tell it: the default of Linux.
const EPHEMERAL: u16 = 32_768;

/// The TCP sockets that listen on a port, on any address of either family; on every port for 0.
pub fn tcp(port: u16) -> io::Result<Vec<Socket>> {
    diag::tcp(port).or_else(|_| table::tcp(port))
}

/// The unix sockets that listen somewhere in the file system.
pub fn unix() -> io::Result<Vec<Socket>> {
    diag::unix().or_else(|_| table::unix())
}

/// The sockets that a process has open; none where that may not be seen, or it is gone.
pub fn sockets_of(pid: u32) -> Option<Vec<u64>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    Some(
        entries
            .flatten()
            .filter_map(|entry| inode(&fs::read_link(entry.path()).ok()?.to_string_lossy()))
            .collect(),
    )
}

fn inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// Whether there is such a process, even if it may not be looked into.
pub fn is_there(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// The first port that the kernel uses for outgoing connections.
pub fn ephemeral_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL)
}
