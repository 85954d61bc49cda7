//! Whether an address is free, and a free port for a sidecar that no other program takes before the
//! sidecar binds it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockaddrStorage, UnixAddr, sockopt};
use nix::unistd::{AccessFlags, access};

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
            if is_private(port) {
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
/// When the address cannot be tried, as when a permission is missing.
pub fn can_be_had(listen: &Listen) -> io::Result<bool> {
    let bound = match listen {
        Listen::Unix(path) => return path_can_be_had(path),
        Listen::Tcp(address) => bound(*address),
    };
    match bound {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(false),
        Err(error) => Err(error),
    }
}

fn path_can_be_had(path: &Path) -> io::Result<bool> {
    match knock(path) {
        Ok(()) | Err(Errno::EAGAIN) => Ok(false),
        Err(_) => {
            let directory = path.parent().unwrap_or(path);
            access(directory, AccessFlags::W_OK | AccessFlags::X_OK)?;
            Ok(true)
        }
    }
}

/// A TCP socket with a gateway's options, bound to an address; it does not listen yet. On Linux this
/// machine need not have the address yet.
///
/// # Errors
/// When the kernel refuses the address.
pub fn bound(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let socket = platform::stream_socket(family)?;
    // Without this, the port is refused while connections of the previous process are in TIME_WAIT.
    socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    if address.is_ipv6() {
        // An IPv6 address means IPv6: "0.0.0.0" and "[::]" may then both be listed.
        socket::setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    }
    // An address may come later: DHCP, a VPN. The option of IPv4 counts for both (ip(7),
    // ipv6_setsockopt in net/ipv6/ipv6_sockglue.c). A sandbox that refuses it has the address waited
    // for.
    #[cfg(target_os = "linux")]
    let _ = socket::setsockopt(&socket, sockopt::IpFreebind, &true);
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(address))?;
    Ok(socket)
}

/// Whether this machine has an address now. Where the kernel binds any (net.ipv4.ip_nonlocal_bind),
/// it counts as had.
pub fn is_here(address: IpAddr) -> bool {
    let tried = UdpSocket::bind((address, 0));
    !tried.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
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

/// Whether no program but a later sidecar's has a private port, at any address.
pub fn is_private(port: u16) -> bool {
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
        let dir = tempfile::tempdir().unwrap();
        assert!(can_be_had(&Listen::Unix(dir.path().join("x"))).unwrap());
        assert!(can_be_had(&Listen::Unix(dir.path().join("none/x"))).is_err());
    }

    #[test]
    fn an_address_that_this_machine_does_not_have_yet_can_be_had() {
        for (absent, here) in [("192.0.2.1", "127.0.0.1"), ("2001:db8::1", "::1")] {
            let (absent, here): (IpAddr, IpAddr) = (absent.parse().unwrap(), here.parse().unwrap());
            assert!(!is_here(absent) && is_here(here));
            let free = can_be_had(&Listen::Tcp((absent, 0).into()));
            assert_eq!(free.is_ok(), cfg!(target_os = "linux"), "{free:?}");
        }
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
