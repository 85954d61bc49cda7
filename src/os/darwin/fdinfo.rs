//! What proc_pidfdinfo(PROC_PIDFDSOCKETINFO) tells about a descriptor: `struct socket_fdinfo` of
//! sys/proc_info.h.
#![allow(dead_code, reason = "of the structures, only the layout is used")]

use std::ffi::OsStr;
use std::mem::{offset_of, size_of};
use std::os::unix::ffi::OsStrExt;

use super::{LISTENS, ListeningSocket, TAKES_IPV4, bytes, number, tcp_address};
use crate::config::Listen;

/// Of `struct socket_fdinfo`, in bytes.
pub const SIZE: usize = size_of::<SocketFdInfo>();

/// SOCKINFO_TCP and SOCKINFO_UN, of `soi_kind`.
const TCP: u32 = 2;
const UN: u32 = 3;

/// SO_ACCEPTCONN of Darwin's sys/socket.h, a bit of `soi_options`.
const ACCEPTS: u16 = 0x0002;

/// `struct socket_fdinfo`: a `proc_fileinfo` and a `socket_info`.
#[repr(C)]
struct SocketFdInfo {
    file: [u64; 3],
    stat: [u64; 17],
    so: u64,
    pcb: u64,
    kind_of_socket: i32,
    protocol: i32,
    family: i32,
    options: i16,
    linger: i16,
    state: i16,
    qlen: i16,
    incqlen: i16,
    qlimit: i16,
    timeo: i16,
    error: u16,
    oobmark: u32,
    receive: [u32; 6],
    send: [u32; 6],
    kind: i32,
    reserved: u32,
    proto: [u64; 66],
}

/// `struct tcp_sockinfo` up to its state; it begins with an `in_sockinfo`.
#[repr(C)]
struct TcpSockInfo {
    foreign_port: i32,
    local_port: i32,
    gencnt: u64,
    flags: u32,
    flow: u32,
    vflag: u8,
    ttl: u8,
    reserved: u32,
    foreign: [u32; 4],
    local: [u32; 4],
    v4: u8,
    v6: [u32; 3],
    state: i32,
}

/// `struct un_sockinfo` up to the bound address.
#[repr(C)]
struct UnSockInfo {
    connected_so: u64,
    connected_pcb: u64,
    length: u8,
    family: u8,
    path: [u8; 104],
}

// As clang lays them out for arm64 and x86_64.
const _: () = assert!(
    SIZE == 792 && offset_of!(SocketFdInfo, so) == 160 && offset_of!(SocketFdInfo, options) == 188
);
const _: () =
    assert!(offset_of!(SocketFdInfo, kind) == 256 && offset_of!(SocketFdInfo, proto) == 264);
const _: () = assert!(offset_of!(TcpSockInfo, local) == 48 && offset_of!(TcpSockInfo, state) == 80);
const _: () = assert!(offset_of!(UnSockInfo, path) == 18);

const PROTO: usize = offset_of!(SocketFdInfo, proto);

/// The kernel's handle of the socket.
pub fn handle(info: &[u8]) -> Option<u64> {
    bytes(info, offset_of!(SocketFdInfo, so)).map(u64::from_ne_bytes)
}

/// The socket, if it listens at a TCP address or a path.
pub fn listener(info: &[u8]) -> Option<ListeningSocket> {
    let (listen, v6only) = match number(info, offset_of!(SocketFdInfo, kind))? {
        TCP => tcp(info)?,
        UN => (unix(info)?, false),
        _ => return None,
    };
    Some(ListeningSocket {
        handle: handle(info)?,
        listen,
        v6only,
        uid: None,
    })
}

fn tcp(info: &[u8]) -> Option<(Listen, bool)> {
    let at = |offset: usize| PROTO + offset;
    if number(info, at(offset_of!(TcpSockInfo, state)))? != LISTENS {
        return None;
    }
    let family = number(info, offset_of!(SocketFdInfo, family))?.cast_signed();
    // The port's two bytes are the first of the number's four.
    let listen = tcp_address(
        family,
        bytes(info, at(offset_of!(TcpSockInfo, local_port)))?,
        bytes(info, at(offset_of!(TcpSockInfo, local)))?,
    )?;
    let v6only =
        family == super::INET6 && info.get(at(offset_of!(TcpSockInfo, vflag)))? & TAKES_IPV4 == 0;
    Some((listen, v6only))
}

fn unix(info: &[u8]) -> Option<Listen> {
    let options = u16::from_ne_bytes(bytes(info, offset_of!(SocketFdInfo, options))?);
    if options & ACCEPTS == 0 {
        return None;
    }
    // The length counts the two bytes before the path; a path may end with a zero byte before that.
    let length = usize::from(*info.get(PROTO + offset_of!(UnSockInfo, length))?);
    let path = info.get(
        PROTO + offset_of!(UnSockInfo, path)..PROTO + offset_of!(UnSockInfo, length) + length,
    )?;
    let path = path
        .split(|byte| *byte == 0)
        .next()
        .filter(|path| !path.is_empty())?;
    Some(Listen::Unix(OsStr::from_bytes(path).into()))
}

#[cfg(test)]
mod tests {
    use super::super::{INET, INET6};
    use super::*;

    fn info(kind: u32, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; SIZE];
        bytes[160..168].copy_from_slice(&0xabc_u64.to_ne_bytes());
        bytes[256..260].copy_from_slice(&kind.to_ne_bytes());
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    #[test]
    fn listeners_at_addresses() {
        let (listens, port) = (LISTENS.to_ne_bytes(), 18789_u16.to_be_bytes());
        let v4 = info(
            TCP,
            &[
                (184, &INET.to_ne_bytes()),
                (268, &port),
                (288, &[1]),
                (264 + 60, &[127, 0, 0, 1]),
                (344, &listens),
            ],
        );
        let expected = ListeningSocket {
            handle: 0xabc,
            listen: Listen::Tcp("127.0.0.1:18789".parse().unwrap()),
            v6only: false,
            uid: None,
        };
        assert_eq!(listener(&v4), Some(expected));
        let mut connected = v4.clone();
        connected[344..348].copy_from_slice(&4_u32.to_ne_bytes());
        assert_eq!(listener(&connected), None);
        for (vflag, v6only) in [(2, true), (3, false)] {
            let v6 = info(
                TCP,
                &[
                    (184, &INET6.to_ne_bytes()),
                    (268, &port),
                    (288, &[vflag]),
                    (344, &listens),
                ],
            );
            let found = listener(&v6).unwrap();
            assert_eq!(
                (found.listen, found.v6only),
                (Listen::Tcp("[::]:18789".parse().unwrap()), v6only)
            );
        }
    }

    #[test]
    fn listeners_at_paths() {
        let path = b"/tmp/a socket";
        let accepts = ACCEPTS.to_ne_bytes();
        let address = [[path.len() as u8 + 2, 1].as_slice(), path].concat();
        let bound = info(UN, &[(188, &accepts), (280, &address)]);
        assert_eq!(
            listener(&bound).map(|found| found.listen),
            Some(Listen::Unix("/tmp/a socket".into()))
        );
        assert_eq!(
            listener(&info(UN, &[(280, &address)])),
            None,
            "one end of a connection"
        );
        assert_eq!(
            listener(&info(UN, &[(188, &accepts)])),
            None,
            "bound nowhere"
        );
        assert_eq!(listener(&info(UN, &[(188, &accepts), (280, &[1])])), None);
    }

    #[test]
    fn garbage_is_no_panic() {
        for byte in [0, 1, 2, 3, 0xff] {
            for length in 0..=SIZE {
                assert_eq!(listener(&vec![byte; length]), None);
            }
        }
        for kind in [TCP, UN] {
            let mut wild = [0xff_u8; SIZE];
            wild[256..260].copy_from_slice(&kind.to_ne_bytes());
            let _ = listener(&wild);
        }
    }
}
