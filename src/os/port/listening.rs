//! The addresses at which given processes listen.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::kernel;
use crate::config::Listen;

/// The listeners of some processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    pub addresses: Vec<SocketAddr>,
    /// Whether some of the processes could not be looked into: then an address may be missing.
    pub incomplete: bool,
}

/// The TCP listeners that `pids` hold.
pub fn listening_of(pids: &HashSet<u32>) -> Listening {
    let mut result = Listening::default();
    let Ok(listeners) = kernel::tcp(0) else {
        result.incomplete = !pids.is_empty();
        return result;
    };
    for pid in pids {
        let Some(held) = kernel::sockets_of(*pid) else {
            // A process that is gone holds nothing; a hidden one may.
            result.incomplete |= kernel::is_there(*pid);
            continue;
        };
        for listener in &listeners {
            if let Listen::Tcp(address) = listener.listen
                && held.contains(&listener.inode)
            {
                result.addresses.push(address);
            }
        }
    }
    result.addresses.sort();
    result.addresses.dedup();
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn our_own_listeners_are_found() {
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let found = listening_of(&HashSet::from([std::process::id()]));
        assert!(!found.incomplete);
        for listener in [v4, v6] {
            assert!(
                found.addresses.contains(&listener.local_addr().unwrap()),
                "{found:?}"
            );
        }
        assert_eq!(listening_of(&HashSet::new()), Listening::default());
    }
}
