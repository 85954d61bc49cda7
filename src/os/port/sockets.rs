//! Listening sockets, and which of them keep a gateway from an address.

use std::io;
use std::net::{IpAddr, SocketAddr};

use super::kernel;
use crate::config::Listen;

/// A socket that listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub listen: Listen,
    /// As in the link `socket:[…]` of /proc/PID/fd; on macOS, the kernel's handle of the socket.
    pub inode: u64,
    /// The user that created it, where the kernel tells.
    pub uid: Option<u32>,
    /// The inode of its control group's directory in the unified hierarchy, where the kernel tells
    /// (5.8 and newer). A hint only: a socket stays with the group in which it was created, even if
    /// a process of another group holds it now.
    pub cgroup: Option<u64>,
    /// An IPv6 socket that takes no IPv4 connections.
    pub v6only: bool,
}

impl Socket {
    /// Whether it keeps other sockets from listening at `listen`.
    fn is_in_the_way_of(&self, listen: &Listen) -> bool {
        match (&self.listen, listen) {
            (Listen::Tcp(ours), Listen::Tcp(theirs)) => {
                ours.port() == theirs.port() && self.overlaps(ours.ip(), theirs.ip())
            }
            (Listen::Unix(ours), Listen::Unix(theirs)) => ours == theirs,
            _ => false,
        }
    }

    fn overlaps(&self, ours: IpAddr, wanted: IpAddr) -> bool {
        match (ours, wanted) {
            (ours, wanted) if ours == wanted => true,
            (IpAddr::V4(ours), IpAddr::V4(wanted)) => {
                ours.is_unspecified() || wanted.is_unspecified()
            }
            (IpAddr::V6(ours), IpAddr::V6(wanted)) => {
                ours.is_unspecified() || wanted.is_unspecified()
            }
            // [::] takes both families, unless it says otherwise.
            (IpAddr::V6(ours), IpAddr::V4(_)) => ours.is_unspecified() && !self.v6only,
            // A gateway's own IPv6 listener takes no IPv4 (IPV6_V6ONLY).
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
        }
    }
}

/// The TCP sockets that listen on a port, on any address of either family; on every port for 0.
///
/// # Errors
/// When the kernel does not list its sockets: on Linux, when neither sock_diag nor /proc/net can be
/// read.
pub fn tcp(port: u16) -> io::Result<Vec<Socket>> {
    kernel::tcp(port)
}

/// The unix sockets that listen somewhere in the file system.
///
/// # Errors
/// As [`tcp`].
pub fn unix() -> io::Result<Vec<Socket>> {
    kernel::unix()
}

/// The sockets that keep a gateway from listening at an address.
///
/// # Errors
/// As [`tcp`].
pub fn in_the_way_of(listen: &Listen) -> io::Result<Vec<Socket>> {
    let mut found = match listen {
        Listen::Tcp(SocketAddr::V4(_) | SocketAddr::V6(_)) => {
            tcp(listen.port().unwrap_or_default())?
        }
        Listen::Unix(_) => unix()?,
    };
    // For port 0 the kernel chooses a free port.
    found.retain(|socket| listen.port() != Some(0) && socket.is_in_the_way_of(listen));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    use crate::os::port::can_be_had;

    #[test]
    fn what_is_in_the_way_is_what_a_bind_meets() {
        let addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]"];
        for held in addresses {
            let listener = TcpListener::bind(format!("{held}:0")).unwrap();
            let port = listener.local_addr().unwrap().port();
            for wanted in addresses {
                let address: SocketAddr = format!("{wanted}:{port}").parse().unwrap();
                let free = can_be_had(&Listen::Tcp(address)).unwrap();
                let found = in_the_way_of(&Listen::Tcp(address)).unwrap();
                // Another test may have the port on another address.
                let ours = found
                    .iter()
                    .any(|socket| socket.listen == Listen::Tcp(listener.local_addr().unwrap()));
                assert!(
                    !free || !ours,
                    "{held} is held, {wanted} can be had, but {found:?}"
                );
                assert!(
                    free || !found.is_empty(),
                    "{held} is held, {wanted} cannot be had, and nothing is in its way"
                );
            }
        }
    }
}
