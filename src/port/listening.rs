//! TCP listeners of given processes, from /proc/net/tcp and /proc/PID/fd.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is known of the listeners of some processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listening {
    /// Where they listen.
    pub addresses: Vec<SocketAddr>,
    /// Whether some of the processes could not be looked into: then an address may be missing.
    pub incomplete: bool,
}

/// The TCP listeners that `pids` hold.
pub fn listening_of(pids: &HashSet<u32>) -> Listening {
    let sockets: Vec<(u64, SocketAddr)> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .flat_map(|table| table.lines().skip(1).filter_map(parse_line).collect::<Vec<_>>())
        .collect();
    let mut result = Listening::default();
    for pid in pids {
        let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
            // Gone processes hold nothing; hidden ones may.
            result.incomplete |= std::path::Path::new(&format!("/proc/{pid}")).exists();
            continue;
        };
        for inode in entries.flatten().filter_map(|entry| socket_inode(&std::fs::read_link(entry.path()).ok()?.to_string_lossy())) {
            for (_, address) in sockets.iter().filter(|(listed, _)| *listed == inode) {
                if !result.addresses.contains(address) {
                    result.addresses.push(*address);
                }
            }
        }
    }
    result.addresses.sort();
    result
}

fn socket_inode(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// Inode and local address of a line about a listening socket.
fn parse_line(line: &str) -> Option<(u64, SocketAddr)> {
    /// TCP_LISTEN of the kernel's net/tcp_states.h.
    const LISTEN: &str = "0A";
    let fields: Vec<&str> = line.split_whitespace().collect();
    if *fields.get(3)? != LISTEN {
        return None;
    }
    let (addr, port) = fields.get(1)?.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    // Addresses stand there as 32-bit words in the machine's own byte order.
    let words: Vec<[u8; 4]> = (0..addr.len() / 8)
        .map(|index| u32::from_str_radix(addr.get(index * 8..index * 8 + 8)?, 16).ok().map(u32::to_ne_bytes))
        .collect::<Option<_>>()?;
    let addr: IpAddr = match words.as_slice() {
        [word] => Ipv4Addr::from(*word).into(),
        [a, b, c, d] => {
            let mut bytes = [0; 16];
            for (slot, word) in bytes.chunks_exact_mut(4).zip([a, b, c, d]) {
                slot.copy_from_slice(word);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((fields.get(9)?.parse().ok()?, SocketAddr::new(addr, port)))
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
            assert!(found.addresses.contains(&listener.local_addr().unwrap()), "{found:?}");
        }
        assert_eq!(listening_of(&HashSet::new()), Listening::default());
    }
}
