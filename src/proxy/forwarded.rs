//! The X-Forwarded-* fields: who a request comes from, and which peers are trusted to say so.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::config::Config;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who is on the other end of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(IpAddr),
    /// A client of a unix listener.
    Unix,
    /// This process, over a socket pair.
    Watchdog,
}

/// Peers whose X-Forwarded-* fields are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    nets: Vec<(IpAddr, u8)>,
    unix: bool,
}

impl TrustedProxies {
    /// Reads `gateway.trusted_proxies` of a checked configuration.
    pub fn new(config: &Config) -> Self {
        let list = &config.gateway.trusted_proxies;
        Self {
            nets: list
                .iter()
                .filter_map(|text| crate::config::parse_net(text))
                .collect(),
            unix: list.iter().any(|text| text == "unix"),
        }
    }

    fn believes(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix | Peer::Watchdog => self.unix,
            Peer::Tcp(addr) => self
                .nets
                .iter()
                .any(|&(net, prefix)| contains(net, prefix, addr)),
        }
    }
}

fn contains(net: IpAddr, prefix: u8, addr: IpAddr) -> bool {
    match (net, addr.to_canonical()) {
        (IpAddr::V4(net), IpAddr::V4(addr)) => {
            let shift = 32 - u32::from(prefix);
            net.to_bits().checked_shr(shift) == addr.to_bits().checked_shr(shift)
        }
        (IpAddr::V6(net), IpAddr::V6(addr)) => {
            let shift = 128 - u32::from(prefix);
            net.to_bits().checked_shr(shift) == addr.to_bits().checked_shr(shift)
        }
        _ => false,
    }
}

/// Replaces the claims of an untrusted peer, and adds what this connection shows.
pub fn set_forwarded(headers: &mut HeaderMap, peer: Peer, trusted: &TrustedProxies) {
    if !trusted.believes(peer) {
        let claims: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_claim(name.as_str()))
            .cloned()
            .collect();
        claims.iter().for_each(|name| drop(headers.remove(name)));
    }
    if let Peer::Tcp(addr) = peer {
        append(headers, X_FORWARDED_FOR, &addr.to_canonical().to_string());
    }
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = headers.get(header::HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

/// Whether a field claims who a request comes from. CGI and its successors read an underscore as a
/// hyphen.
fn is_claim(name: &str) -> bool {
    const START: &[u8] = b"x-forwarded-";
    let same = |(a, b): (u8, &u8)| a == *b || (a == b'_' && *b == b'-');
    name == "forwarded" || (name.len() > START.len() && name.bytes().zip(START).all(same))
}

/// Appends a value to the list of a field.
pub fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    let mut all: Vec<u8> = Vec::new();
    for old in headers.get_all(&name) {
        all.extend_from_slice(old.as_bytes());
        all.extend_from_slice(b", ");
    }
    all.extend_from_slice(value.as_bytes());
    if let Ok(value) = HeaderValue::from_bytes(&all) {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::headers::tests::{PEER, map};

    #[test]
    fn forwarded_fields_are_believed_only_from_trusted_peers() {
        let sent = [
            ("host", "a"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-port", "443"),
            ("forwarded", "for=1.1.1.1"),
        ];
        let mut headers = map(&sent);
        set_forwarded(&mut headers, PEER, &TrustedProxies::default());
        assert_eq!(headers["x-forwarded-for"], "10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a");
        assert_eq!(headers.len(), 4, "every other claim is gone: {headers:?}");
        let trusted = TrustedProxies {
            nets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            unix: false,
        };
        let mut headers = map(&sent);
        set_forwarded(&mut headers, PEER, &trusted);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=1.1.1.1");
        assert!(!trusted.believes(Peer::Unix));
        assert!(!trusted.believes(Peer::Tcp(IpAddr::from([11, 0, 0, 1]))));
        assert!(
            TrustedProxies {
                nets: vec![(IpAddr::from([0, 0, 0, 0]), 0)],
                unix: false
            }
            .believes(PEER)
        );
    }
}
