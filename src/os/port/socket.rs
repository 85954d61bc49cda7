//! A listening socket.

use std::net::{IpAddr, SocketAddr};

use crate::config::Listen;
use crate::os::accept_queue::AcceptQueue;

/// A listening socket, as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    pub listen: Listen,
    /// As in the link `socket:[…]` of /proc/PID/fd; on macOS, the kernel's handle of the socket.
    pub inode: u64,
    /// The kernel's number of the socket, which no other socket gets until the machine starts again;
    /// 0 where it is not told.
    pub cookie: u64,
    /// The user that created it, where that is known.
    pub uid: Option<u32>,
    /// The inode of its control group's directory in the unified hierarchy, from Linux 5.8 on. A
    /// hint only: a socket stays with the group in which it was created, even if a process of
    /// another group holds it now.
    pub cgroup: Option<u64>,
    /// An IPv6 socket that takes no IPv4 connections.
    pub v6only: bool,
    /// What is known of its accept queue.
    pub queue: AcceptQueue,
}

impl Socket {
    pub fn new(listen: Listen, inode: u64, uid: Option<u32>) -> Self {
        Self {
            listen,
            inode,
            cookie: 0,
            uid,
            cgroup: None,
            v6only: false,
            queue: AcceptQueue::default(),
        }
    }

    /// Whether both are one socket, whatever its queue was when each was looked at.
    pub fn is(&self, other: &Self) -> bool {
        (self.inode, self.cookie) == (other.inode, other.cookie) && self.listen == other.listen
    }

    /// Whether it keeps other sockets from listening at `listen`.
    pub fn is_in_the_way_of(&self, listen: &Listen) -> bool {
        match (&self.listen, listen) {
            (Listen::Tcp(ours), Listen::Tcp(theirs)) => {
                ours.port() == theirs.port() && self.overlaps(ours.ip(), theirs.ip())
            }
            (Listen::Unix(ours), Listen::Unix(theirs)) => ours == theirs,
            _ => false,
        }
    }

    /// Of `sockets` the one that takes a connection to `address`: an exact address goes before any
    /// address of the same family, and that before any address of both.
    pub fn taking(sockets: Vec<Self>, address: SocketAddr) -> Option<Self> {
        let wanted = Listen::Tcp(address);
        let rank = |socket: &Self| match &socket.listen {
            _ if !socket.is_in_the_way_of(&wanted) => None,
            Listen::Tcp(ours) if *ours == address => Some(0),
            Listen::Tcp(ours) if ours.is_ipv4() == address.is_ipv4() => Some(1),
            _ => Some(2),
        };
        let ranked = sockets.into_iter();
        let ranked = ranked.filter_map(|socket| Some((rank(&socket)?, socket)));
        ranked
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, socket)| socket)
    }

    fn overlaps(&self, ours: IpAddr, wanted: IpAddr) -> bool {
        match (ours, wanted) {
            // [::] takes both families, unless it was bound with IPV6_V6ONLY.
            (IpAddr::V6(ours), IpAddr::V4(_)) => ours.is_unspecified() && !self.v6only,
            // The IPv6 listener of a gateway takes no IPv4.
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
            _ => ours == wanted || ours.is_unspecified() || wanted.is_unspecified(),
        }
    }
}
