//! Whether an address is free, and a free port for a sidecar that no other program takes before the
//! sidecar binds it.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockaddrStorage, UnixAddr, sockopt};

use super::kernel::ephemeral_start;
use crate::config::Listen;
use crate::os::platform;

/// The lowest port that is tried: well-known services have lower ones.
const LOWEST: u16 = 10_240;

/// How many ports are tried before the kernel is asked for one.
const TRIES: u16 = 200;

/// A free TCP port on loopback, below the kernel's range for outgoing connections: a connection that
/// is made before the sidecar binds the port could take one of those.
///
/// # Errors
/// When the kernel has none.
pub fn private() -> io::Result<u16> {
    let below = ephemeral_start();
    if below > LOWEST {
        let span = below - LOWEST;
        let start = (crate::os::random() % u64::from(span)) as u16;
        for step in 0..TRIES.min(span) {
            let port = LOWEST + (start + step) % span;
            if free(port) {
                return Ok(port);
            }
        }
    }
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()
        .map(|addr| addr.port())
}

/// Whether a gateway could listen at an address: the address is bound with a gateway's options and
/// released again. The socket never listens, so no client connects to it.
///
/// # Errors
/// When the address cannot be tried: a permission is missing, or this machine does not have it.
pub fn can_be_had(listen: &Listen) -> io::Result<bool> {
    let address = match listen {
        Listen::Unix(path) => return Ok(!matches!(knock(path), Ok(()) | Err(Errno::EAGAIN))),
        Listen::Tcp(address) => *address,
    };
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = platform::stream_socket(family)?;
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    match socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address)) {
        Ok(()) => Ok(true),
        Err(Errno::EADDRINUSE) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Connects to a unix listener without waiting, and closes the connection.
///
/// # Errors
/// EAGAIN when the queue of the listener is full, so that the path is taken; ECONNREFUSED when no
/// process listens any more.
pub fn knock(path: &Path) -> nix::Result<()> {
    let socket = platform::stream_socket(AddressFamily::Unix)?;
    socket::connect(socket.as_raw_fd(), &UnixAddr::new(path)?)
}

fn free(port: u16) -> bool {
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    let v6_free = v6.is_ok() || v6.is_err_and(|error| error.kind() != io::ErrorKind::AddrInUse);
    v6_free && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_sockets_can_be_had_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = Listen::Tcp(listener.local_addr().unwrap());
        assert!(!can_be_had(&listen).unwrap());
        drop(listener);
        assert!(can_be_had(&listen).unwrap());
        let path = tempfile::tempdir().unwrap().path().join("x");
        assert!(can_be_had(&Listen::Unix(path)).unwrap());
        let elsewhere = "192.0.2.1:1".parse().unwrap();
        assert!(can_be_had(&Listen::Tcp(elsewhere)).is_err());
    }

    #[test]
    fn private_ports_are_free_and_not_for_outgoing_connections() {
        for _ in 0..50 {
            let port = private().unwrap();
            assert!(
                port >= LOWEST && (port < ephemeral_start() || ephemeral_start() <= LOWEST),
                "{port}"
            );
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        }
    }
}
