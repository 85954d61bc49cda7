//! The header of the PROXY protocol, versions 1 and 2, by which a proxy that passes on bytes says whose
//! they are (<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>).
//!
//! Of the crates that read it, `ppp` needs a second version of thiserror, and `proxy-header` 0.1 refuses
//! a LOCAL header of an unknown family, which the protocol demands to accept, and takes `PROXYxTCP4`
//! and ports such as `+80`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The longest header of version 1, its end included (section 2.1).
const TEXT_MAX: usize = 107;

/// What a header of version 1 begins with.
const TEXT: &[u8] = b"PROXY ";

/// What a header of version 2 begins with (section 2.2): no HTTP/1 request does.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// The signature, version and command, family, and the length of the rest.
const FIXED: usize = SIGNATURE.len() + 4;

/// The most bytes of a header. What a proxy adds to the addresses, such as the name of the certificate, is
/// skipped; nginx has the same limit (NGX_PROXY_PROTOCOL_MAX_HEADER).
pub const HEADER_MAX: usize = 4096;

/// For whom a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Announced {
    /// For the proxy itself: a health check.
    Proxy,
    /// For the client at this address.
    Client(IpAddr),
    /// For a client whose address is not told.
    Unknown,
}

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header of so many bytes.
    Complete(usize, Announced),
    /// The beginning of a header.
    Incomplete,
    /// No header, for this reason.
    Invalid(&'static str),
}

/// Looks for a header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    if begins(bytes, TEXT) {
        text(bytes)
    } else if begins(bytes, SIGNATURE) {
        binary(bytes)
    } else {
        Parsed::Invalid("it begins with something else")
    }
}

/// Whether `bytes` begin with `with`, as far as they go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let length = bytes.len().min(with.len());
    bytes[..length] == with[..length]
}

fn text(bytes: &[u8]) -> Parsed {
    let within = &bytes[..bytes.len().min(TEXT_MAX)];
    let Some(end) = within.windows(2).position(|pair| pair == b"\r\n") else {
        return match within.len() < TEXT_MAX {
            true => Parsed::Incomplete,
            false => Parsed::Invalid("its line does not end within 107 bytes"),
        };
    };
    // Shorter than this only where the line's end is a part of it.
    let line = within[..end].get(TEXT.len()..).unwrap_or_default();
    match std::str::from_utf8(line).ok().and_then(client_in) {
        Some(announced) => Parsed::Complete(end + 2, announced),
        None => Parsed::Invalid("its line is not one of version 1"),
    }
}

/// The client that a line of version 1 names, after `PROXY `.
fn client_in(line: &str) -> Option<Announced> {
    let mut words = line.split(' ');
    let family = words.next()?;
    if family == "UNKNOWN" {
        // What follows is to be ignored.
        return Some(Announced::Unknown);
    }
    let (client, server) = (words.next()?, words.next()?);
    let ports = [words.next()?, words.next()?];
    let addresses: [IpAddr; 2] = match family {
        "TCP4" => [
            client.parse::<Ipv4Addr>().ok()?.into(),
            server.parse::<Ipv4Addr>().ok()?.into(),
        ],
        "TCP6" => [
            client.parse::<Ipv6Addr>().ok()?.into(),
            server.parse::<Ipv6Addr>().ok()?.into(),
        ],
        _ => return None,
    };
    let is_port =
        |port: &str| port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    let fits = words.next().is_none() && ports.into_iter().all(is_port);
    fits.then(|| Announced::Client(addresses[0].to_canonical()))
}

fn binary(bytes: &[u8]) -> Parsed {
    let Some(fixed) = bytes.get(SIGNATURE.len()..FIXED) else {
        return Parsed::Incomplete;
    };
    let length = FIXED + usize::from(u16::from_be_bytes([fixed[2], fixed[3]]));
    if fixed[0] >> 4 != 2 {
        return Parsed::Invalid("its version is not known");
    }
    if length > HEADER_MAX {
        return Parsed::Invalid("it is longer than 4096 bytes");
    }
    let Some(rest) = bytes.get(FIXED..length) else {
        return Parsed::Incomplete;
    };
    let announced = match fixed[0] & 0x0f {
        // LOCAL: whatever else it says is to be ignored.
        0 => Some(Announced::Proxy),
        1 => client_of(fixed[1], rest),
        _ => return Parsed::Invalid("its command is not known"),
    };
    match announced {
        Some(announced) => Parsed::Complete(length, announced),
        None => Parsed::Invalid("its addresses are not those of its family"),
    }
}

/// The client among the addresses of version 2: that of the client, then that of the server, the ports,
/// and what the proxy added.
fn client_of(family: u8, rest: &[u8]) -> Option<Announced> {
    let (addresses, kind) = (family >> 4, family & 0x0f);
    if kind > 2 {
        return None;
    }
    match addresses {
        0 => Some(Announced::Unknown),
        1 => {
            let address: [u8; 4] = rest.get(..12)?.first_chunk().copied()?;
            Some(Announced::Client(address.into()))
        }
        2 => {
            let address: [u8; 16] = rest.get(..36)?.first_chunk().copied()?;
            Some(Announced::Client(IpAddr::from(address).to_canonical()))
        }
        // Two paths of 108 bytes.
        3 => rest.get(..216).map(|_| Announced::Unknown),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn client(text: &str) -> Announced {
        Announced::Client(text.parse().unwrap())
    }

    #[test]
    fn a_line_names_the_client() {
        for (line, expected) in [
            ("TCP4 203.0.113.7 10.0.0.1 56324 443", client("203.0.113.7")),
            ("TCP6 2001:db8::7 ::1 56324 443", client("2001:db8::7")),
            ("TCP6 ::ffff:203.0.113.7 ::1 0 65535", client("203.0.113.7")),
            ("UNKNOWN", Announced::Unknown),
            ("UNKNOWN ffff:: what ever \n 1 2", Announced::Unknown),
        ] {
            let bytes = format!("PROXY {line}\r\nGET / HTTP/1.1\r\n");
            let length = line.len() + 8;
            assert_eq!(parse(bytes.as_bytes()), Parsed::Complete(length, expected));
            for cut in 0..length {
                let parsed = parse(&bytes.as_bytes()[..cut]);
                assert_eq!(parsed, Parsed::Incomplete, "{cut} bytes of {line}");
            }
        }
    }

    #[test]
    fn other_lines_are_refused() {
        for line in [
            "PROXYxTCP4 1.1.1.1 1.1.1.1 1 1",
            "PROXY ",
            "PROXY UNKNOWNX",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 1 1",
            "PROXY TCP4 1.1.1.1 1.1.1.1 +1 1",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 65536",
            "PROXY TCP4 1.1.1.1 1.1.1.1 1 ",
            "PROXY TCP4 ::1 ::1 1 1",
            "PROXY TCP6 1.1.1.1 1.1.1.1 1 1",
            "PROXY TCP4  1.1.1.1 1.1.1.1 1 1",
            "proxy TCP4 1.1.1.1 1.1.1.1 1 1",
            "PROXY UDP4 1.1.1.1 1.1.1.1 1 1",
            "PROXY TCP4 1.1.1.1\n 1.1.1.1 1 1",
            "GET / HTTP/1.1",
        ] {
            let parsed = parse(format!("{line}\r\n").as_bytes());
            assert!(matches!(parsed, Parsed::Invalid(_)), "{line}: {parsed:?}");
        }
        let long = format!("PROXY UNKNOWN {}", "x".repeat(100));
        assert!(matches!(parse(long.as_bytes()), Parsed::Invalid(_)));
    }

    #[test]
    fn a_binary_header_names_the_client_and_the_rest_is_skipped() {
        let v4 = [
            &[203, 0, 113, 7, 10, 0, 0, 1, 0, 1, 0, 2][..],
            &[4, 0, 1, 9],
        ]
        .concat();
        let mut v6 = vec![0; 36];
        v6[..16].copy_from_slice(&"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets());
        for (command, family, rest, expected) in [
            (0x21, 0x11, &v4[..12], client("203.0.113.7")),
            (0x21, 0x11, &v4, client("203.0.113.7")),
            (0x21, 0x12, &v4, client("203.0.113.7")),
            (0x21, 0x21, &v6, client("2001:db8::7")),
            (0x21, 0x31, &[b'x'; 216], Announced::Unknown),
            (0x21, 0x00, &[], Announced::Unknown),
            (0x20, 0x00, &[], Announced::Proxy),
            (0x20, 0xff, &[1, 2, 3], Announced::Proxy),
        ] {
            let bytes = header(command, family, rest);
            let whole = Parsed::Complete(bytes.len(), expected);
            assert_eq!(parse(&[&bytes[..], b"GET"].concat()), whole);
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Parsed::Incomplete);
            }
        }
    }

    #[test]
    fn other_binary_headers_are_refused() {
        for (command, family, length) in [
            (0x11, 0x11, 12),
            (0x22, 0x11, 12),
            (0x21, 0x11, 11),
            (0x21, 0x21, 35),
            (0x21, 0x31, 215),
            (0x21, 0x41, 300),
            (0x21, 0x13, 12),
            (0x20, 0x00, HEADER_MAX),
        ] {
            let parsed = parse(&header(command, family, &vec![0; length]));
            let invalid = matches!(parsed, Parsed::Invalid(_));
            assert!(invalid, "{command:#x} {family:#x} {length}: {parsed:?}");
        }
        let mut other = header(0x21, 0x11, &[0; 12]);
        other[11] = b'\r';
        assert!(matches!(parse(&other), Parsed::Invalid(_)));
    }
}
