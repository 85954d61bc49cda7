//! Sockets on Linux: sock_diag, and /proc.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::{fs, io};

use super::{Socket, diag, table};

/// The default of Linux, for where it cannot be read.
const EPHEMERAL: u16 = 32_768;

/// The same of the ports that are root's.
const UNPRIVILEGED: u16 = 1024;

/// The TCP sockets that listen on a port, on any address of either family; on every port for 0.
pub fn tcp(port: u16) -> io::Result<Vec<Socket>> {
    diag::tcp(port).or_else(|_| table::tcp(port))
}

/// The socket that takes a connection to a loopback address.
///
/// # Errors
/// When the kernel lists its sockets neither here nor there.
pub fn listener_at(address: SocketAddr) -> io::Result<Option<Socket>> {
    match diag::listener_at(address) {
        Ok(found) => Ok(found),
        Err(_) => tcp(address.port()).map(|sockets| Socket::taking(sockets, address)),
    }
}

/// The unix sockets that listen somewhere in the file system.
pub fn unix() -> io::Result<Vec<Socket>> {
    diag::unix().or_else(|_| table::unix())
}

/// The sockets that a process has open; none where that may not be seen, or it is gone.
pub fn sockets_of(pid: u32) -> Option<Vec<u64>> {
    let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    let inode = |link: PathBuf| {
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        inode.parse().ok()
    };
    let links = descriptors.filter_map(|entry| fs::read_link(entry.path()).ok());
    Some(links.filter_map(inode).collect())
}

/// The first port that every user may bind.
pub fn unprivileged_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(UNPRIVILEGED)
}

/// The first port that the kernel uses for outgoing connections.
pub fn ephemeral_start() -> u16 {
    fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .unwrap_or(EPHEMERAL)
}
