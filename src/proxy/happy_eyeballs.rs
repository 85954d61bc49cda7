//! Connects to a server that has several addresses (RFC 8305): the families take turns, an address
//! that does not answer at once holds nobody up, and the first connection wins.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;

/// How long one attempt is alone before the next begins beside it: the Connection Attempt Delay that
/// RFC 8305, section 8, recommends.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// So many failures are named in an error; a name may have a hundred addresses.
const NAMED_MAX: usize = 4;

/// Connects to the first of `addresses` that answers; attempts that lose are closed. An attempt that
/// fails is followed by the next one at once. The caller limits the time.
///
/// # Errors
/// When all have failed: with every cause.
pub async fn connect(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut waiting = families_in_turn(addresses).into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failures: Vec<(SocketAddr, io::Error)> = Vec::new();
    loop {
        match waiting.next() {
            Some(address) => attempts.push(attempt(address)),
            None if attempts.is_empty() => return Err(all_failed(failures)),
            None => {}
        }
        let more = waiting.len() > 0;
        tokio::select! {
            biased;
            Some((address, tried)) = attempts.next() => match tried {
                Ok(stream) => return Ok(stream),
                Err(error) => failures.push((address, error)),
            },
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => {}
        }
    }
}

async fn attempt(address: SocketAddr) -> (SocketAddr, io::Result<TcpStream>) {
    (address, TcpStream::connect(address).await)
}

/// The addresses in their order, which is the system's preference (RFC 6724), but each followed by
/// one of the other family (RFC 8305, section 4).
fn families_in_turn(addresses: &[SocketAddr]) -> Vec<SocketAddr> {
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (one, other): (Vec<_>, Vec<_>) = addresses
        .iter()
        .copied()
        .partition(|address| address.is_ipv6() == first);
    let mut other = other.into_iter();
    let mut order = Vec::with_capacity(addresses.len());
    for address in one {
        order.push(address);
        order.extend(other.next());
    }
    order.extend(other);
    order
}

/// One error for all: the only one as it is, several with their addresses.
fn all_failed(mut failures: Vec<(SocketAddr, io::Error)>) -> io::Error {
    if failures.len() <= 1 {
        let nothing = || io::Error::new(io::ErrorKind::NotFound, "it has no address");
        return failures.pop().map_or_else(nothing, |(_, error)| error);
    }
    let told = failures.iter().take(NAMED_MAX);
    let mut told: Vec<String> = told
        .map(|(address, error)| format!("{address}: {error}"))
        .collect();
    if failures.len() > NAMED_MAX {
        told.push(format!("and {} more", failures.len() - NAMED_MAX));
    }
    io::Error::other(told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6};

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_families_take_turns_and_the_preferred_one_begins() {
        for (given, expected) in [
            (
                &["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"][..],
                &["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"][..],
            ),
            (
                &["1.1.1.1:1", "[::1]:1", "[::2]:1"],
                &["1.1.1.1:1", "[::1]:1", "[::2]:1"],
            ),
            (&["1.1.1.1:1", "2.2.2.2:1"], &["1.1.1.1:1", "2.2.2.2:1"]),
        ] {
            assert_eq!(families_in_turn(&addresses(given)), addresses(expected));
        }
    }

    fn refused() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }

    #[tokio::test]
    async fn an_address_that_refuses_is_followed_by_the_next_and_all_are_named() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = server.local_addr().unwrap();
        let stream = connect(&[refused(), refused(), here]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        let gone = [refused(), refused()];
        let why = connect(&gone).await.unwrap_err().to_string();
        assert!(
            gone.iter().all(|one| why.contains(&one.to_string())),
            "{why}"
        );
        let why = connect(&gone[..1]).await.unwrap_err();
        assert_eq!(why.kind(), io::ErrorKind::ConnectionRefused);
        let many: Vec<SocketAddr> = (0..6).map(|_| refused()).collect();
        let why = connect(&many).await.unwrap_err().to_string();
        assert!(why.ends_with("; and 2 more"), "{why}");
        assert_eq!(
            connect(&[]).await.unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
    }

    /// Linux drops the first packet of a client for whom the listen queue has no room: so an address
    /// looks whose packets go nowhere.
    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_nobody_up() {
        let silent = socket::socket(
            AddressFamily::Inet6,
            SockType::Stream,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        let any = SockaddrIn6::from("[::1]:0".parse::<std::net::SocketAddrV6>().unwrap());
        if socket::bind(std::os::fd::AsRawFd::as_raw_fd(&silent), &any).is_err() {
            return; // A machine without IPv6.
        }
        socket::listen(&silent, Backlog::new(0).unwrap()).unwrap();
        let silent = TcpListener::from(silent);
        let address = silent.local_addr().unwrap();
        let _filling = std::net::TcpStream::connect(address).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = server.local_addr().unwrap();
        let begun = std::time::Instant::now();
        let stream = connect(&[address, here]).await.unwrap();
        assert_eq!(stream.peer_addr().unwrap(), here);
        assert!(begun.elapsed() >= ATTEMPT_DELAY, "the first had its time");
        // The loser is closed: nobody but the client from before ever connected.
        silent.accept().unwrap();
        silent.set_nonblocking(true).unwrap();
        let next = silent.accept().unwrap_err();
        assert_eq!(next.kind(), io::ErrorKind::WouldBlock);
    }
}
