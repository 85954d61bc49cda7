//! Which processes hold a socket, and at which addresses a process listens, by open descriptors.
//!
//! Often several processes hold one socket: predecessor and successor, a service manager and its
//! service, a program and a child that inherited the descriptor.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;

use super::{Socket, kernel};
use crate::config::Listen;
use crate::os::process;

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Until each socket has one holder.
    First,
    /// Until every holder is found.
    All,
}

/// The holders of each socket by its inode. A socket that is missing has a hidden holder: of another
/// user, or in another namespace.
pub type Holders = HashMap<u64, BTreeSet<u32>>;

/// Looks for the holders of `sockets`: among `likely` processes first, then among those of the
/// sockets' users, then among the rest.
pub fn holders(sockets: &[Socket], likely: &[u32], depth: Depth) -> Holders {
    let inodes: HashSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let mut found = Holders::new();
    let mut seen = HashSet::new();
    let enough = |found: &Holders| {
        inodes.is_empty()
            || depth == Depth::First && inodes.iter().all(|inode| found.contains_key(inode))
    };
    let mut look = |pid: u32, found: &mut Holders| {
        if seen.insert(pid) {
            let sockets = kernel::sockets_of(pid).unwrap_or_default();
            for inode in sockets.into_iter().filter(|inode| inodes.contains(inode)) {
                found.entry(inode).or_default().insert(pid);
            }
        }
    };
    for pid in likely {
        look(*pid, &mut found);
    }
    if enough(&found) {
        return found;
    }
    // A process of another user may hold a socket too, as a service holds one of its manager: the
    // processes of the sockets' users only come first.
    let users: HashSet<u32> = sockets.iter().filter_map(|socket| socket.uid).collect();
    let (first, rest): (Vec<u32>, Vec<u32>) = process::all()
        .partition(|pid| process::user(*pid).is_some_and(|user| users.contains(&user)));
    for pid in first.into_iter().chain(rest) {
        if enough(&found) {
            break;
        }
        look(pid, &mut found);
    }
    found
}

/// Where `pids` listen by TCP, as far as that can be seen.
pub fn listening_of(pids: &HashSet<u32>) -> Vec<SocketAddr> {
    let sockets = pids.iter().filter_map(|pid| kernel::sockets_of(*pid));
    let held: HashSet<u64> = sockets.flatten().collect();
    let mut addresses: Vec<SocketAddr> = kernel::tcp(0)
        .unwrap_or_default()
        .into_iter()
        .filter(|listener| held.contains(&listener.inode))
        .filter_map(|listener| match listener.listen {
            Listen::Tcp(address) => Some(address),
            Listen::Unix(_) => None,
        })
        .collect();
    addresses.sort();
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::fd::OwnedFd;
    use std::process::{Command, Stdio};

    #[test]
    fn all_holders_of_a_shared_socket_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = kernel::tcp(listener.local_addr().unwrap().port()).unwrap();
        // As its standard input, a child has the socket too.
        let input = OwnedFd::from(listener.try_clone().unwrap());
        let mut child = Command::new("sleep")
            .arg("60")
            .stdin(Stdio::from(input))
            .spawn()
            .unwrap();
        let me = std::process::id();
        let both: BTreeSet<u32> = [me, child.id()].into();
        let of =
            |likely: &[u32], depth| holders(&sockets, likely, depth)[&sockets[0].inode].clone();
        assert_eq!(of(&[], Depth::All), both);
        assert_eq!(of(&[me], Depth::First), [me].into());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(&[], Depth::All), [me].into());
        drop(listener);
        assert_eq!(holders(&sockets, &[], Depth::All), Holders::new());
        assert_eq!(holders(&[], &[me], Depth::All), Holders::new());
    }

    #[test]
    fn our_own_listeners_are_found() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let found = listening_of(&HashSet::from([std::process::id()]));
        for listener in [v4, v6] {
            assert!(found.contains(&listener.local_addr().unwrap()), "{found:?}");
        }
        assert_eq!(listening_of(&HashSet::new()), []);
    }
}
