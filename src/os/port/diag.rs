//! Listening sockets as the kernel lists them: netlink's sock_diag(7).
//!
//! One request lists the sockets that listen on a port in this network namespace, of every user,
//! with inode, user and control group. It needs no privileges and no walk through /proc.
#![allow(
    clippy::cast_possible_truncation,
    reason = "constants of the protocol fit, and an inode is given in 32 bits"
)]

use std::ffi::OsStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::socket::Socket;
use crate::config::Listen;
use crate::os::accept_queue::AcceptQueue;
use crate::os::record::{bytes, number};

/// SOCK_DIAG_BY_FAMILY of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;

/// TCP_LISTEN of net/tcp_states.h, as a bit of a set of states; unix sockets use the same.
const LISTEN: u32 = 1 << 10;

/// TCP_LISTEN as the state of one socket.
const LISTENING: u8 = 10;

/// LOOPBACK_IFINDEX of the kernel's net/loopback.h: the index of the loopback interface.
const LOOPBACK: u32 = 1;

/// Of `struct inet_diag_msg`: the cookie of a socket, how many connections a listener has in its accept
/// queue, and how many it may have.
const COOKIE: usize = 44;
const QUEUE_LENGTH: usize = 56;
const QUEUE_LIMIT: usize = 60;

/// INET_DIAG_SKV6ONLY and INET_DIAG_CGROUP_ID of linux/inet_diag.h.
const SKV6ONLY: u16 = 11;
const CGROUP_ID: u16 = 21;

/// UNIX_DIAG_NAME and UNIX_DIAG_UID of linux/unix_diag.h, and the flags that ask for them.
const NAME: u16 = 0;
const UID: u16 = 7;
const SHOW: u32 = 0x1 | 0x40;

/// The longest message of the kernel, in bytes (NLMSG_GOODSIZE is a page or 8 KiB, and a dump's
/// messages have at most 32 KiB).
const BUFFER: usize = 32 * 1024;

/// The kernel answers from memory, at once.
const ANSWER_SECONDS: i64 = 2;

/// The TCP sockets that listen on a port, on any address of either family; on every port for 0.
///
/// # Errors
/// When the kernel has no sock_diag, or a sandbox keeps it away.
pub fn tcp(port: u16) -> io::Result<Vec<Socket>> {
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let mut request = [0_u8; 56];
        request[0] = family as u8;
        request[1] = libc::IPPROTO_TCP as u8;
        request[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
        request[8..10].copy_from_slice(&port.to_be_bytes());
        let asked = dump(&request, |message| {
            // Old kernels do not look at the port.
            found.extend(
                inet(message).filter(|socket| port == 0 || socket.listen.port() == Some(port)),
            );
        });
        match asked {
            // A kernel without IPv6 has no such sockets.
            Err(error)
                if family == libc::AF_INET6 && error.raw_os_error() == Some(libc::ENOENT) => {}
            asked => asked?,
        }
    }
    Ok(found)
}

/// The unix sockets that listen somewhere in the file system.
///
/// # Errors
/// As [`tcp`].
pub fn unix() -> io::Result<Vec<Socket>> {
    let mut request = [0_u8; 24];
    request[0] = libc::AF_UNIX as u8;
    request[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
    request[12..16].copy_from_slice(&SHOW.to_ne_bytes());
    let mut found = Vec::new();
    dump(&request, |message| found.extend(local(message)))?;
    Ok(found)
}

/// A socket of `struct unix_diag_msg` and its attributes; none for one without a path.
pub fn local(message: &[u8]) -> Option<Socket> {
    let (mut path, mut uid) = (None, None);
    for (kind, value) in attributes(message.get(16..)?) {
        match kind {
            // Names in the abstract space begin with a zero byte; a path may end with one.
            NAME if value.first().is_some_and(|byte| *byte != 0) => {
                path = Some(OsStr::from_bytes(value.strip_suffix(b"\0").unwrap_or(value)).into());
            }
            UID => uid = number(value, 0),
            _ => {}
        }
    }
    let inode = number(message, 4)?;
    Some(Socket::new(Listen::Unix(path?), inode.into(), uid))
}

/// A socket of `struct inet_diag_msg` and its attributes.
pub fn inet(message: &[u8]) -> Option<Socket> {
    let port = bytes(message, 4).map(u16::from_be_bytes)?;
    let ip: IpAddr = match i32::from(*message.first()?) {
        libc::AF_INET => Ipv4Addr::from(bytes(message, 8)?).into(),
        libc::AF_INET6 => Ipv6Addr::from(bytes(message, 8)?).into(),
        _ => return None,
    };
    let listen = Listen::tcp(SocketAddr::new(ip, port));
    let (uid, inode) = (number(message, 64)?, number(message, 68)?);
    let mut socket = Socket::new(listen, inode.into(), Some(uid));
    socket.cookie = bytes(message, COOKIE).map(u64::from_ne_bytes)?;
    socket.queue = AcceptQueue {
        length: number(message, QUEUE_LENGTH)?,
        limit: number(message, QUEUE_LIMIT)?,
    };
    for (kind, value) in attributes(message.get(72..)?) {
        match kind {
            SKV6ONLY => socket.v6only = value.first() == Some(&1),
            CGROUP_ID => socket.cgroup = bytes(value, 0).map(u64::from_ne_bytes),
            _ => {}
        }
    }
    Some(socket)
}

/// The socket that takes a connection to a loopback address: the kernel looks it up as for a
/// connection.
///
/// # Errors
/// As [`tcp`].
pub fn listener_at(address: SocketAddr) -> io::Result<Option<Socket>> {
    /// Whether the kernel has ever found one.
    static KNOWS: AtomicBool = AtomicBool::new(false);
    let mut request = [0_u8; 56];
    request[1] = libc::IPPROTO_TCP as u8;
    request[4..8].copy_from_slice(&LISTEN.to_ne_bytes());
    // Its own address, of a port that has no client.
    match address.ip() {
        IpAddr::V4(ip) => {
            request[0] = libc::AF_INET as u8;
            request[12..16].copy_from_slice(&ip.octets());
            request[28..32].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            request[0] = libc::AF_INET6 as u8;
            request[12..28].copy_from_slice(&ip.octets());
            request[28..44].copy_from_slice(&ip.octets());
        }
    }
    request[8..10].copy_from_slice(&address.port().to_be_bytes());
    request[44..48].copy_from_slice(&LOOPBACK.to_ne_bytes());
    // Of any cookie.
    request[48..56].fill(0xff);
    let mut found = None;
    let asked = ask(&request, 0, |message| {
        // In another state it is no listener.
        if message.get(1) == Some(&LISTENING) {
            found = inet(message);
        }
    });
    match asked {
        Ok(()) => {
            KNOWS.store(true, Ordering::Relaxed);
            Ok(found)
        }
        // There is no such socket, or the kernel's module for such questions is missing.
        Err(error)
            if error.raw_os_error() == Some(libc::ENOENT) && KNOWS.load(Ordering::Relaxed) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Requests a dump; `each` gets the payload of each message.
fn dump(request: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    ask(request, libc::NLM_F_DUMP as u16, each)
}

/// Asks the kernel; `each` gets the payload of each message.
fn ask(request: &[u8], flags: u16, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let patience = TimeVal::seconds(ANSWER_SECONDS);
    setsockopt(&socket, sockopt::ReceiveTimeout, &patience)?;
    let flags = flags | libc::NLM_F_REQUEST as u16;
    let message = [
        &((HEADER + request.len()) as u32).to_ne_bytes()[..],
        &BY_FAMILY.to_ne_bytes(),
        &flags.to_ne_bytes(),
        &[0; 8],
        request,
    ];
    let kernel = NetlinkAddr::new(0, 0);
    sendto(
        socket.as_raw_fd(),
        &message.concat(),
        &kernel,
        MsgFlags::empty(),
    )?;
    read(&socket, flags, &mut each)
}

/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// Reads the answer: one message, or a dump up to its end.
fn read(socket: &OwnedFd, flags: u16, each: &mut impl FnMut(&[u8])) -> io::Result<()> {
    let dump = flags & libc::NLM_F_DUMP as u16 != 0;
    let mut buffer = vec![0_u8; BUFFER];
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        if messages(buffer.get(..length).unwrap_or_default(), each)? || !dump {
            return Ok(());
        }
    }
}

/// Gives the payload of each message of a datagram to `each`. Returns whether the answer is
/// complete.
///
/// # Errors
/// When the datagram cannot be understood, or says that the request failed.
pub fn messages(mut rest: &[u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    let broken = || {
        let message = "the kernel's list of sockets cannot be understood";
        io::Error::new(io::ErrorKind::InvalidData, message)
    };
    if rest.is_empty() {
        return Err(broken());
    }
    while let (Some(length), Some(kind)) = (number(rest, 0), half(rest, 4)) {
        let length = length as usize;
        let payload = rest.get(HEADER..length).ok_or_else(broken)?;
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(true),
            libc::NLMSG_ERROR => match number(payload, 0).ok_or_else(broken)? as i32 {
                0 => return Ok(true),
                code => return Err(io::Error::from_raw_os_error(code.saturating_neg())),
            },
            _ => each(payload),
        }
        rest = rest.get(aligned(length)..).unwrap_or_default();
    }
    Ok(false)
}

/// The attributes of a message: kind and value.
fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (length, kind) = (usize::from(half(rest, 0)?), half(rest, 2)?);
        let value = rest.get(4..length)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// Messages and attributes begin at multiples of four (NLMSG_ALIGNTO, NLA_ALIGNTO).
fn aligned(length: usize) -> usize {
    length.next_multiple_of(4)
}

fn half(record: &[u8], at: usize) -> Option<u16> {
    bytes(record, at).map(u16::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::net::UnixListener;

    fn inode(fd: &impl AsRawFd) -> u64 {
        std::fs::metadata(format!("/proc/self/fd/{}", fd.as_raw_fd()))
            .unwrap()
            .ino()
    }

    #[test]
    fn listeners_of_a_port_in_both_families() {
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let port = v6.local_addr().unwrap().port();
        let v4 = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let mut found = tcp(port).unwrap();
        found.sort_by_key(|socket| socket.listen.to_string());
        let inodes: Vec<u64> = found.iter().map(|socket| socket.inode).collect();
        assert_eq!(
            inodes,
            [inode(&v4), inode(&v6)],
            "the connection is none: {found:?}"
        );
        let me = Some(nix::unistd::getuid().as_raw());
        assert!(found.iter().all(|socket| socket.uid == me));
        assert!(tcp(0).unwrap().len() >= 2);
        drop((v4, v6, client));
        assert_eq!(tcp(port).unwrap(), []);
    }

    #[test]
    fn the_listener_at_an_address_is_the_one_that_a_connection_reaches() {
        let wanted: [SocketAddr; 2] = ["127.0.0.1:0", "[::1]:0"].map(|text| text.parse().unwrap());
        let held = [
            "127.0.0.1",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:0.0.0.0]",
        ];
        for listener in held.map(|host| TcpListener::bind(format!("{host}:0")).unwrap()) {
            let port = listener.local_addr().unwrap().port();
            for mut address in wanted {
                address.set_port(port);
                let reached = std::net::TcpStream::connect(address).is_ok();
                let expected = reached.then(|| inode(&listener));
                let found = listener_at(address).unwrap().map(|socket| socket.inode);
                assert_eq!(found, expected, "{listener:?} {address}");
                let listed = Socket::taking(tcp(port).unwrap(), address);
                assert_eq!(
                    listed.map(|socket| socket.inode),
                    expected,
                    "{listener:?} {address}"
                );
            }
        }
    }

    #[test]
    fn the_exact_address_goes_before_every_address() {
        let every = TcpListener::bind("[::]:0").unwrap();
        let port = every.local_addr().unwrap().port();
        let exact = TcpListener::bind(("::1", port));
        // Linux refuses it, so that nobody can take the clients of a server that listens on all.
        assert!(exact.is_err());
        let v6 = TcpListener::bind("[::1]:0").unwrap();
        let address = v6.local_addr().unwrap();
        let sockets = [("[::]", 1), ("[::1]", 2)].map(|(host, inode)| {
            let listen = format!("{host}:{}", address.port()).parse().unwrap();
            Socket::new(listen, inode, None)
        });
        let taking = Socket::taking(sockets.into(), address);
        assert_eq!(taking.map(|socket| socket.inode), Some(2));
    }

    #[test]
    fn unix_listeners_by_their_paths() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a socket");
        let listener = UnixListener::bind(&path).unwrap();
        let _client = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let mut found = unix().unwrap();
        found.retain(|socket| socket.listen == Listen::Unix(path.clone()));
        let me = Some(nix::unistd::getuid().as_raw());
        let expected = Socket::new(Listen::Unix(path), inode(&listener), me);
        assert_eq!(found, [expected]);
    }

    #[test]
    fn garbage_is_no_panic() {
        for length in 0..80 {
            let bytes = vec![0xff; length];
            assert!(inet(&bytes).is_none() && local(&bytes).is_none());
            assert_eq!(attributes(&bytes).count(), 0);
        }
    }
}
