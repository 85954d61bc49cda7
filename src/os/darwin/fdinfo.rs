//! What proc_pidfdinfo(PROC_PIDFDSOCKETINFO) returns for a descriptor: `struct socket_fdinfo` of
//! sys/proc_info.h.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::{LISTENS, ListeningSocket, TAKES_IPV4, bytes, number, tcp_address};
use crate::config::Listen;
use crate::os::accept_queue::AcceptQueue;

/// The size of `struct socket_fdinfo`, in bytes.
pub const SIZE: usize = 792;

// Offsets in `struct socket_fdinfo`, as clang lays it out for arm64 and x86_64. Of its
// `socket_info`:
const SOI_SO: usize = 160;
const SOI_FAMILY: usize = 184;
const SOI_OPTIONS: usize = 188;
const SOI_KIND: usize = 256;
/// `soi_proto`, a union with a structure for each kind.
const PROTO: usize = 264;
// Of its `tcp_sockinfo`, which begins with an `in_sockinfo`:
const INSI_LPORT: usize = PROTO + 4;
const INSI_VFLAG: usize = PROTO + 24;
const INSI_LADDR: usize = PROTO + 48;
const TCPSI_STATE: usize = PROTO + 80;
// Of its `un_sockinfo`, in `unsi_addr`:
const SUN_LEN: usize = PROTO + 16;
const SUN_PATH: usize = PROTO + 18;

/// SOCKINFO_TCP and SOCKINFO_UN, of `soi_kind`.
const TCP: u32 = 2;
const UN: u32 = 3;

/// SO_ACCEPTCONN of Darwin's sys/socket.h, a bit of `soi_options`.
const ACCEPTS: u16 = 0x0002;

/// The kernel's handle of the socket.
pub fn handle(info: &[u8]) -> Option<u64> {
    bytes(info, SOI_SO).map(u64::from_ne_bytes)
}

/// The socket, if it listens at a TCP address or a path.
pub fn listener(info: &[u8]) -> Option<ListeningSocket> {
    let (listen, v6only) = match number(info, SOI_KIND)? {
        TCP => tcp(info)?,
        UN => (unix(info)?, false),
        _ => return None,
    };
    Some(ListeningSocket {
        handle: handle(info)?,
        listen,
        v6only,
        uid: None,
        queue: AcceptQueue::default(),
    })
}

fn tcp(info: &[u8]) -> Option<(Listen, bool)> {
    if number(info, TCPSI_STATE)? != LISTENS {
        return None;
    }
    let family = number(info, SOI_FAMILY)?.cast_signed();
    // The port's two bytes are the first of the number's four.
    let listen = tcp_address(family, bytes(info, INSI_LPORT)?, bytes(info, INSI_LADDR)?)?;
    let v6only = family == super::INET6 && info.get(INSI_VFLAG)? & TAKES_IPV4 == 0;
    Some((listen, v6only))
}

fn unix(info: &[u8]) -> Option<Listen> {
    let options = u16::from_ne_bytes(bytes(info, SOI_OPTIONS)?);
    if options & ACCEPTS == 0 {
        return None;
    }
    // The length counts the two bytes before the path; a path may end with a zero byte before that.
    let length = usize::from(*info.get(SUN_LEN)?);
    let path = info.get(SUN_PATH..SUN_LEN + length)?;
    let path = path.split(|byte| *byte == 0).next()?;
    (!path.is_empty()).then(|| Listen::Unix(OsStr::from_bytes(path).into()))
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
        let tcp = |family: i32, vflag: u8, address: [u8; 4]| {
            info(
                TCP,
                &[
                    (184, &family.to_ne_bytes()),
                    (268, &port),
                    (288, &[vflag]),
                    (264 + 60, &address),
                    (344, &listens),
                ],
            )
        };
        let v4 = tcp(INET, 1, [127, 0, 0, 1]);
        let expected = ListeningSocket {
            handle: 0xabc,
            listen: Listen::Tcp("127.0.0.1:18789".parse().unwrap()),
            v6only: false,
            uid: None,
            queue: AcceptQueue::default(),
        };
        assert_eq!(listener(&v4), Some(expected));
        let mut connected = v4.clone();
        connected[344..348].copy_from_slice(&4_u32.to_ne_bytes());
        assert_eq!(listener(&connected), None);
        for (vflag, v6only) in [(2, true), (3, false)] {
            let found = listener(&tcp(INET6, vflag, [0; 4])).unwrap();
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
        for (what, parts) in [
            ("one end of a connection", &[(280, &address[..])][..]),
            ("bound nowhere", &[(188, &accepts)]),
            ("no path", &[(188, &accepts), (280, &[1])]),
        ] {
            assert_eq!(listener(&info(UN, parts)), None, "{what}");
        }
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
