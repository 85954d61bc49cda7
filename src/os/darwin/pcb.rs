//! The list of sysctl net.inet.tcp.pcblist_n: every TCP socket of the machine, for every user.
//!
//! A header, then for each socket a run of records, then a trailer. Each record begins with its
//! length and its kind, and the next one lies at a multiple of eight. Lengths grow from release to
//! release (Darwin 22 added to two of them), so records are found by kind and length; within a
//! record, what is read here has never moved. Layouts: bsd/netinet/in_pcb.h, bsd/sys/socketvar.h
//! and bsd/netinet/tcp_var.h of xnu, all under `#pragma pack(4)`.

use super::{LISTENS, ListeningSocket, TAKES_IPV4, bytes, number, tcp_address};
use crate::os::accept_queue::AcceptQueue;

/// Kinds of records, of bsd/sys/socketvar.h.
const SOCKET: u32 = 0x001;
const INPCB: u32 = 0x010;
const TCPCB: u32 = 0x020;

/// The kind of a record, after its length.
const KIND: usize = 4;

// Offsets, as clang lays the structures out for arm64 and x86_64. Of `struct xsocket_n`:
const XSO_SO: usize = 8;
const SO_FAMILY: usize = 40;
const SO_QLEN: usize = 44;
const SO_QLIMIT: usize = 48;
const SO_UID: usize = 64;
// Of `struct xinpcb_n`:
const INP_LPORT: usize = 18;
const INP_VFLAG: usize = 44;
const INP_LADDR: usize = 64;
// Of `struct xtcpcb_n`:
const T_STATE: usize = 36;

/// The sockets of the list that listen.
pub fn listeners(list: &[u8]) -> Vec<ListeningSocket> {
    let mut found = Vec::new();
    let (mut socket, mut inpcb): (Option<&[u8]>, Option<&[u8]>) = (None, None);
    for record in records(list) {
        match number(record, KIND) {
            // The control block begins a socket's run.
            Some(INPCB) => (socket, inpcb) = (None, Some(record)),
            Some(SOCKET) => socket = Some(record),
            Some(TCPCB) => {
                if let (Some(socket), Some(inpcb)) = (socket.take(), inpcb.take()) {
                    found.extend(listener(socket, inpcb, record));
                }
            }
            _ => {}
        }
    }
    found
}

/// The records between header and trailer. Both of these are `struct xinpgen`, whose second number
/// is a count and no kind: the header is skipped, and the trailer comes after everything.
fn records(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    let header = number(list, 0)
        .and_then(|length| usize::try_from(length).ok())
        .unwrap_or(list.len());
    let mut rest = list.get(header.next_multiple_of(8)..).unwrap_or_default();
    std::iter::from_fn(move || {
        let length = usize::try_from(number(rest, 0)?)
            .ok()
            .filter(|length| *length >= 8)?;
        let record = rest.get(..length)?;
        rest = rest.get(length.next_multiple_of(8)..).unwrap_or_default();
        Some(record)
    })
}

fn listener(socket: &[u8], inpcb: &[u8], tcpcb: &[u8]) -> Option<ListeningSocket> {
    if number(tcpcb, T_STATE)? != LISTENS {
        return None;
    }
    let family = number(socket, SO_FAMILY)?.cast_signed();
    let listen = tcp_address(family, bytes(inpcb, INP_LPORT)?, bytes(inpcb, INP_LADDR)?)?;
    Some(ListeningSocket {
        handle: bytes(socket, XSO_SO).map(u64::from_ne_bytes)?,
        listen,
        v6only: family == super::INET6 && inpcb.get(INP_VFLAG)? & TAKES_IPV4 == 0,
        uid: number(socket, SO_UID),
        queue: AcceptQueue {
            length: short(socket, SO_QLEN)?,
            limit: short(socket, SO_QLIMIT)?,
        },
    })
}

/// A number of 16 bits that is not negative.
fn short(record: &[u8], at: usize) -> Option<u32> {
    bytes(record, at).map(i16::from_ne_bytes)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{INET, INET6};
    use super::*;
    use crate::config::Listen;

    /// A record of `length` bytes with these parts, filled up to a multiple of eight.
    fn record(kind: u32, length: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; length.next_multiple_of(8)];
        bytes[..4].copy_from_slice(&(length as u32).to_ne_bytes());
        bytes[4..8].copy_from_slice(&kind.to_ne_bytes());
        for (at, part) in parts {
            bytes[*at..at + part.len()].copy_from_slice(part);
        }
        bytes
    }

    /// The run of one socket; `more` is how much longer a later release makes its records.
    fn run(
        handle: u64,
        family: i32,
        vflag: u8,
        port: u16,
        address: [u8; 16],
        state: u32,
        more: usize,
    ) -> Vec<u8> {
        let port = port.to_be_bytes();
        [
            record(
                INPCB,
                104 + more,
                &[(18, &port), (44, &[vflag]), (64, &address)],
            ),
            record(
                SOCKET,
                100 + more,
                &[
                    (8, &handle.to_ne_bytes()),
                    (40, &family.to_ne_bytes()),
                    (44, &3_u16.to_ne_bytes()),
                    (48, &128_u16.to_ne_bytes()),
                    (64, &501_u32.to_ne_bytes()),
                ],
            ),
            // Buffers and statistics are of no interest.
            record(0x002, 36, &[]),
            record(0x008, 136, &[]),
            record(TCPCB, 204 + more, &[(36, &state.to_ne_bytes())]),
        ]
        .concat()
    }

    fn list(runs: &[Vec<u8>]) -> Vec<u8> {
        let end = record(runs.len() as u32, 24, &[]);
        [end.clone(), runs.concat(), end].concat()
    }

    const V4: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 127, 0, 0, 1];

    #[test]
    fn listeners_of_both_families_and_nothing_else() {
        for more in [0, 4, 24] {
            let list = list(&[
                run(0xa1, INET, 1, 18789, V4, LISTENS, more),
                run(0xa2, INET, 1, 18789, V4, 4, more),
                run(0xa3, INET6, 2, 80, [0; 16], LISTENS, more),
                run(0xa4, INET6, 3, 81, [0; 16], LISTENS, more),
            ]);
            let found = listeners(&list);
            let queue = AcceptQueue {
                length: 3,
                limit: 128,
            };
            assert!(found.iter().all(|one| one.queue == queue));
            let told: Vec<_> = found
                .iter()
                .map(|one| (one.handle, one.listen.clone(), one.v6only, one.uid))
                .collect();
            let tcp = |address: &str| Listen::Tcp(address.parse().unwrap());
            assert_eq!(
                told,
                [
                    (0xa1, tcp("127.0.0.1:18789"), false, Some(501)),
                    (0xa3, tcp("[::]:80"), true, Some(501)),
                    (0xa4, tcp("[::]:81"), false, Some(501)),
                ]
            );
        }
    }

    #[test]
    fn a_list_that_is_cut_short_or_wrong_gives_what_is_whole() {
        let whole = list(&[
            run(1, INET, 1, 1, V4, LISTENS, 0),
            run(2, INET, 1, 2, V4, LISTENS, 0),
        ]);
        for length in 0..whole.len() {
            assert!(listeners(&whole[..length]).len() <= 2);
        }
        assert_eq!(listeners(&[]), []);
        for byte in [0, 1, 0xff] {
            assert_eq!(listeners(&[byte; 4096]), []);
        }
        // A run without its socket does not borrow the next one's.
        let torn = list(&[
            record(INPCB, 104, &[]),
            record(TCPCB, 204, &[(36, &LISTENS.to_ne_bytes())]),
        ]);
        assert_eq!(listeners(&torn), []);
    }
}
