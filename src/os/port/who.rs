//! The sockets and the processes that keep a gateway from an address.

use std::{fmt, io};

use super::kernel::{tcp, unix};
use super::{Depth, Socket, holders};
use crate::config::Listen;
use crate::os::process::Process;
use crate::text::escape::escape;

/// What a holder is called that nothing else is known of.
pub const UNSEEN: &str = "a process that cannot be seen from here";

/// A holder of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    Seen(Box<Process>),
    /// A process of another user or another namespace, and its user where that is known.
    Hidden(Option<u32>),
}

impl Holder {
    /// The process, if it is a gateway.
    pub fn gateway(&self) -> Option<&Process> {
        match self {
            Self::Seen(process) => Some(&**process).filter(|process| process.is_gateway()),
            Self::Hidden(_) => None,
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seen(process) => {
                f.write_str(&process.called())?;
                match process.unit() {
                    Some((unit, of_user)) => {
                        let scope = if of_user { "user" } else { "system" };
                        write!(f, " of {} ({scope} scope)", escape(unit))
                    }
                    None => Ok(()),
                }
            }
            Self::Hidden(Some(uid)) => {
                write!(f, "{UNSEEN} (uid {uid})")
            }
            Self::Hidden(None) => f.write_str(UNSEEN),
        }
    }
}

/// The sockets that keep a gateway from listening at an address.
///
/// # Errors
/// When the kernel does not list its sockets: on Linux, when neither sock_diag nor /proc/net can be
/// read.
pub fn in_the_way_of(listen: &Listen) -> io::Result<Vec<Socket>> {
    let mut found = match listen {
        Listen::Tcp(address) => tcp(address.port())?,
        Listen::Unix(_) => unix()?,
    };
    // For port 0 the kernel chooses a free port.
    found.retain(|socket| listen.port() != Some(0) && socket.is_in_the_way_of(listen));
    Ok(found)
}

/// Who holds an address: a gateway before systemd, which may have the same socket in its fd store.
pub fn holder(listen: &Listen) -> Option<Holder> {
    let mut holders = who(listen, &[], Depth::All);
    let gateway = holders.iter().position(|holder| holder.gateway().is_some());
    let first = gateway.unwrap_or(0);
    (first < holders.len()).then(|| holders.swap_remove(first))
}

/// The processes that listen at an address, or in a way that keeps others from it; empty also when
/// the kernel does not list its sockets. `Depth::First` gives one of several processes that share a
/// socket.
pub fn who(listen: &Listen, likely: &[u32], depth: Depth) -> Vec<Holder> {
    let sockets = in_the_way_of(listen).unwrap_or_default();
    let held = holders(&sockets, likely, depth);
    let mut found: Vec<Holder> = Vec::new();
    for socket in &sockets {
        let pids = held.get(&socket.inode).into_iter().flatten();
        let seen = pids.filter_map(|pid| Process::read(*pid));
        let mut holders: Vec<Holder> = seen.map(|seen| Holder::Seen(Box::new(seen))).collect();
        if holders.is_empty() {
            holders.push(Holder::Hidden(socket.uid));
        }
        holders.retain(|holder| !found.contains(holder));
        found.append(&mut holders);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};

    use crate::os::port::can_be_had;

    #[test]
    fn the_holder_of_a_port_is_named_if_there_is_one() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        let found = who(&listen, &[], Depth::First);
        assert_eq!(found.len(), 1, "{found:?}");
        let me = std::process::id();
        assert!(matches!(&found[0], Holder::Seen(process) if process.pid == me));
        assert!(
            found[0].to_string().contains(&format!("(pid {me}, uid ")),
            "{}",
            found[0]
        );
        drop(listener);
        assert_eq!(who(&listen, &[], Depth::First), []);
        assert_eq!(
            Holder::Hidden(Some(7)).to_string(),
            "a process that cannot be seen from here (uid 7)"
        );
    }

    #[test]
    fn what_is_in_the_way_is_what_a_bind_meets() {
        let addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "[::1]", "[::]"];
        // As Java listens at IPv4 addresses.
        let mapped = ["[::ffff:127.0.0.1]", "[::ffff:0.0.0.0]"];
        for held in addresses.into_iter().chain(mapped) {
            let listener = TcpListener::bind(format!("{held}:0")).unwrap();
            let port = listener.local_addr().unwrap().port();
            for wanted in addresses {
                let address: SocketAddr = format!("{wanted}:{port}").parse().unwrap();
                let free = can_be_had(&Listen::Tcp(address)).unwrap();
                let found = in_the_way_of(&Listen::Tcp(address)).unwrap();
                // Another test may have the port on another address.
                let ours = found
                    .iter()
                    .any(|socket| socket.listen == Listen::tcp(listener.local_addr().unwrap()));
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
