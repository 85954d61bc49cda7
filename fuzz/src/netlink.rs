//! Answers of the kernel about sockets (sock_diag(7)), a datagram each.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::ffi::OsStrExt;

use gateway::internals::diag::{inet, local, messages};
use gateway::internals::{Listen, Socket};

/// An attribute with its padding.
fn attribute(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    out.extend(u16::try_from(4 + value.len()).unwrap().to_ne_bytes());
    out.extend(kind.to_ne_bytes());
    out.extend(value);
    out.resize(out.len().next_multiple_of(4), 0);
}

/// The message that tells of a socket.
fn message(socket: &Socket) -> Vec<u8> {
    let inode = u32::try_from(socket.inode).unwrap().to_ne_bytes();
    let mut out = Vec::new();
    match &socket.listen {
        Listen::Tcp(address) => {
            let family = if address.is_ipv4() {
                libc::AF_INET
            } else {
                libc::AF_INET6
            };
            out.extend([u8::try_from(family).unwrap(), 10, 0, 0]);
            out.extend(address.port().to_be_bytes());
            out.extend([0; 2]);
            match address.ip() {
                IpAddr::V4(ip) => out.extend(ip.octets()),
                IpAddr::V6(ip) => out.extend(ip.octets()),
            }
            out.resize(44, 0);
            out.extend(socket.cookie.to_ne_bytes());
            out.resize(56, 0);
            out.extend(socket.queue.length.to_ne_bytes());
            out.extend(socket.queue.limit.to_ne_bytes());
            out.extend(socket.uid.unwrap().to_ne_bytes());
            out.extend(inode);
            if let Some(group) = socket.cgroup {
                attribute(&mut out, 21, &group.to_ne_bytes());
            }
            attribute(&mut out, 11, &[u8::from(socket.v6only)]);
        }
        Listen::Unix(path) => {
            out.extend([1, 1, 10, 0]);
            out.extend(inode);
            out.extend([0; 8]);
            // With the zero byte that the kernel puts after a path.
            attribute(&mut out, 0, &[path.as_os_str().as_bytes(), b"\0"].concat());
            if let Some(uid) = socket.uid {
                attribute(&mut out, 7, &uid.to_ne_bytes());
            }
        }
    }
    out
}

/// A datagram with messages of this kind.
fn datagram(kind: u16, payloads: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for payload in payloads {
        out.extend(u32::try_from(16 + payload.len()).unwrap().to_ne_bytes());
        out.extend(kind.to_ne_bytes());
        out.extend([0; 10]);
        out.extend(payload);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// A datagram is read to its end, message by message; a socket that is understood is the same when
/// it is told again; only sockets with an address or a path are understood.
pub fn netlink(input: &[u8]) {
    let (mut count, mut bytes) = (0, 0);
    let mut found = Vec::new();
    let read = messages(input, &mut |payload| {
        count += 1;
        bytes += payload.len();
        found.extend(inet(payload));
        found.extend(local(payload));
    });
    assert!(
        16 * count + bytes <= input.len(),
        "{count} messages of {bytes} bytes"
    );
    assert!(read.is_err() || !input.is_empty());
    // The bytes of a message without its header, too: so that less has to be guessed.
    found.extend(inet(input));
    found.extend(local(input));
    for socket in &found {
        match &socket.listen {
            Listen::Tcp(address) => {
                assert_eq!(inet(&message(socket)).as_ref(), Some(socket));
                let same = Listen::Tcp(SocketAddr::new(address.ip(), address.port()));
                assert!(socket.is_in_the_way_of(&same));
            }
            Listen::Unix(path) => {
                assert!(!path.as_os_str().is_empty());
                assert_eq!(local(&message(socket)).as_ref(), Some(socket));
            }
        }
    }
    let payloads: Vec<Vec<u8>> = found.iter().map(message).collect();
    let mut again = Vec::new();
    if !payloads.is_empty() {
        let more = messages(&datagram(20, &payloads), &mut |payload| {
            again.push(payload.to_vec());
        });
        assert!(!more.unwrap(), "the list goes on");
        assert_eq!(again, payloads);
    }
}
