//! How much one client address may have at once: `limits.connections_per_address` and
//! `limits.requests_per_address`.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::socket::{Shutdown, shutdown};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::os::mutex::lock;

/// The table shrinks to what it needs when it has more room than this, and eight times too much.
const ROOM_KEPT: usize = 1024;

/// How long a client beyond the limit may take to send its request, and then to read the answer.
const TURNED_AWAY: Duration = Duration::from_secs(2);

/// What a client beyond the limit of connections gets. 503 would say that the service has no room, and
/// load balancers would try the next server.
const TOO_MANY: &[u8] = b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\nRetry-After: 2\r\nContent-Length: 64\r\nConnection: close\r\n\r\ngateway: too many connections from this address; try again soon\n";

/// What is counted of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PerAddress {
    /// Client connections open now.
    Connections,
    /// Requests and tunnels in flight now.
    Requests,
}

impl PerAddress {
    pub const ALL: [Self; 2] = [Self::Connections, Self::Requests];

    /// Its key in `[limits]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Connections => "connections_per_address",
            Self::Requests => "requests_per_address",
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, the least that a customer
/// gets (RFC 6177): its devices take new addresses in it every day (RFC 8981).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ClientKey {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for ClientKey {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }
}

/// What each address has open. An address that has nothing open is not in it, so that it is never larger
/// than the number of connections and requests.
#[derive(Debug, Default)]
pub struct AddressTable(Mutex<HashMap<ClientKey, [usize; PerAddress::ALL.len()]>>);

impl AddressTable {
    /// Counts one more of an address until the guard is dropped; none where `most` are open already.
    pub fn enter(
        self: &Arc<Self>,
        what: PerAddress,
        address: IpAddr,
        most: usize,
    ) -> Option<AddressGuard> {
        let key = ClientKey::from(address);
        let mut table = lock(&self.0);
        let count = &mut table.entry(key).or_default()[what as usize];
        // A count of zero enters with any limit but zero, which is none: an entry is never left empty.
        if *count >= most.max(1) {
            return None;
        }
        *count += 1;
        Some(AddressGuard {
            table: Arc::clone(self),
            key,
            what,
        })
    }

    fn leave(&self, key: ClientKey, what: PerAddress) {
        let mut table = lock(&self.0);
        if let Some(counts) = table.get_mut(&key) {
            counts[what as usize] -= 1;
            if *counts == [0; PerAddress::ALL.len()] {
                table.remove(&key);
            }
        }
        let needed = 2 * table.len();
        if table.capacity() > ROOM_KEPT.max(4 * needed) {
            table.shrink_to(needed);
        }
    }
}

/// Counts one connection or request of an address, until dropped.
#[derive(Debug)]
pub struct AddressGuard {
    table: Arc<AddressTable>,
    key: ClientKey,
    what: PerAddress,
}

impl Drop for AddressGuard {
    fn drop(&mut self) {
        self.table.leave(self.key, self.what);
    }
}

/// Answers the first request of a client beyond the limit of connections, and closes.
pub async fn turn_away(mut stream: TcpStream) {
    let answered = async {
        let mut request = [0; 4096];
        if stream.read(&mut request).await.is_ok_and(|count| count > 0)
            && stream.write_all(TOO_MANY).await.is_ok()
        {
            // What comes to a closed socket resets it, and the client loses the answer.
            let _ = shutdown(stream.as_raw_fd(), Shutdown::Write);
            while stream.read(&mut request).await.is_ok_and(|count| count > 0) {}
        }
    };
    let _ = timeout(TURNED_AWAY, answered).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(table: &Arc<AddressTable>, what: PerAddress, address: &str) -> Option<AddressGuard> {
        table.enter(what, address.parse().unwrap(), 2)
    }

    #[test]
    fn an_address_has_so_many_and_its_neighbours_their_own() {
        let table = Arc::default();
        for (one, same, other) in [
            ("203.0.113.7", "::ffff:203.0.113.7", "203.0.113.8"),
            ("2001:db8::7", "2001:db8::ffff:1:2:3", "2001:db8:0:1::7"),
        ] {
            for what in PerAddress::ALL {
                let first = enter(&table, what, one).unwrap();
                let second = enter(&table, what, same).unwrap();
                assert!(enter(&table, what, one).is_none());
                assert!(enter(&table, what, other).is_some());
                drop(first);
                let third = enter(&table, what, one);
                assert!(third.is_some() && enter(&table, what, same).is_none());
                drop((second, third));
            }
        }
        assert!(lock(&table.0).is_empty());
    }

    #[test]
    fn the_table_is_no_larger_than_what_is_open() {
        let table: Arc<AddressTable> = Arc::default();
        let open: Vec<_> = (0..100_000_u32)
            .map(|bits| table.enter(PerAddress::Requests, IpAddr::V4(bits.into()), 1))
            .collect();
        assert!(open.iter().all(Option::is_some));
        assert_eq!(lock(&table.0).len(), open.len());
        drop(open);
        let table = lock(&table.0);
        assert!(table.is_empty() && table.capacity() <= 2 * ROOM_KEPT);
    }

    #[test]
    fn the_answer_has_the_length_that_it_says() {
        let text = std::str::from_utf8(TOO_MANY).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())));
    }
}
