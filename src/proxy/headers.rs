//! What changes in a head on its way through, and what must not.

use std::net::IpAddr;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Version};

use crate::config::Config;

/// Fields about one connection only (RFC 9110, 7.6.1), besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 5] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Who is on the other end of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(IpAddr),
    /// A client of a unix listener.
    Unix,
}

/// Peers whose X-Forwarded-* fields are believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    nets: Vec<(IpAddr, u8)>,
    unix: bool,
}

impl TrustedProxies {
    /// Reads `gateway.trusted_proxies`, which the check found to be right.
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
            Peer::Unix => self.unix,
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

/// The protocol that a request asks to upgrade to. HTTP/2 is not offered: its preface would pass
/// unseen by the proxy.
pub fn wants_upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?;
    let asked = version == Version::HTTP_11
        && tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case("upgrade"));
    let http2 = tokens(headers, &header::UPGRADE).any(|token| {
        token
            .get(..3)
            .is_some_and(|start| start.eq_ignore_ascii_case("h2c"))
    });
    (asked && !http2).then(|| upgrade.clone())
}

/// Makes a client's head fit for the upstream. `upgrade` when the request asks for a tunnel.
pub fn to_upstream(
    headers: &mut HeaderMap,
    upgrade: Option<HeaderValue>,
    peer: Peer,
    trusted: &TrustedProxies,
    via: bool,
) {
    let trailers = tokens(headers, &header::TE).any(|token| token.eq_ignore_ascii_case("trailers"));
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    strip(headers);
    if chunked {
        // RFC 9112, 6.3: Transfer-Encoding overrules Content-Length; passing both on invites
        // request smuggling.
        headers.remove(header::CONTENT_LENGTH);
    }
    // We answer `Expect: 100-continue` ourselves, when the body is first wanted.
    headers.remove(header::EXPECT);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        headers.insert(header::UPGRADE, protocol);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
    forwarded(headers, peer, trusted);
    if via {
        append(headers, header::VIA, "1.1 gateway");
    }
}

/// Makes an upstream's head fit for the client; the protocol of a 101 stays.
pub fn to_client(headers: &mut HeaderMap, via: bool) {
    let chunked = headers.contains_key(header::TRANSFER_ENCODING);
    strip(headers);
    if chunked {
        headers.remove(header::CONTENT_LENGTH);
    }
    if via {
        append(headers, header::VIA, "1.1 gateway");
    }
}

fn strip(headers: &mut HeaderMap) {
    // The usual ones go anyway.
    let usual = |token: &str| {
        ["keep-alive", "close", "upgrade", "te"]
            .iter()
            .any(|known| token.eq_ignore_ascii_case(known))
    };
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter(|token| !usual(token))
        .filter_map(|token| token.parse().ok())
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        // A client must not be able to take these away by naming them in Connection.
        if *name != header::HOST && *name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
    headers.remove(header::UPGRADE);
}

fn forwarded(headers: &mut HeaderMap, peer: Peer, trusted: &TrustedProxies) {
    if !trusted.believes(peer) {
        let claims: Vec<HeaderName> = headers
            .keys()
            .filter(|name| says_who(name.as_str()))
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

/// Whether a field speaks for whom a request is forwarded. CGI and its heirs take an underscore for
/// a hyphen.
fn says_who(name: &str) -> bool {
    const START: &[u8] = b"x-forwarded-";
    let same = |(a, b): (u8, &u8)| a == *b || (a == b'_' && *b == b'-');
    name == "forwarded" || (name.len() > START.len() && name.bytes().zip(START).all(same))
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: &str) {
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

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether repeating a request does no harm (RFC 9110, 9.2.2).
pub fn idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    )
}

/// Whether an upstream keeps the connection open after this answer.
pub fn keeps_alive(headers: &HeaderMap, version: Version) -> bool {
    let says = |word: &str| {
        tokens(headers, &header::CONNECTION).any(|token| token.eq_ignore_ascii_case(word))
    };
    if version == Version::HTTP_11 {
        !says("close")
    } else {
        says("keep-alive")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    const PEER: Peer = Peer::Tcp(IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3)));

    #[test]
    fn what_belongs_to_the_connection_is_dropped_and_the_rest_untouched() {
        let mut headers = map(&[
            ("host", "example.org"),
            ("origin", "http://example.org"),
            ("connection", "keep-alive, x-secret, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("trailer", "x-sum"),
        ]);
        to_upstream(&mut headers, None, PEER, &TrustedProxies::default(), false);
        assert_eq!(headers["host"], "example.org");
        assert_eq!(headers["origin"], "http://example.org");
        assert_eq!(headers["trailer"], "x-sum");
        assert_eq!(headers["te"], "trailers");
        for gone in [
            "x-secret",
            "keep-alive",
            "transfer-encoding",
            "content-length",
            "via",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

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
        to_upstream(&mut headers, None, PEER, &TrustedProxies::default(), false);
        assert_eq!(headers["x-forwarded-for"], "10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a");
        assert_eq!(headers.len(), 4, "every other claim is gone: {headers:?}");
        let trusted = TrustedProxies {
            nets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            unix: false,
        };
        let mut headers = map(&sent);
        to_upstream(&mut headers, None, PEER, &trusted, true);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["via"], "1.1 gateway");
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

    #[test]
    fn upgrades_are_websockets_and_the_like_but_not_http2() {
        let ws = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert_eq!(wants_upgrade(&ws, Version::HTTP_11).unwrap(), "websocket");
        assert_eq!(wants_upgrade(&ws, Version::HTTP_10), None);
        assert_eq!(
            wants_upgrade(&map(&[("upgrade", "websocket")]), Version::HTTP_11),
            None
        );
        assert_eq!(
            wants_upgrade(
                &map(&[
                    ("connection", "upgrade, http2-settings"),
                    ("upgrade", "h2c")
                ]),
                Version::HTTP_11
            ),
            None
        );
    }

    #[test]
    fn keep_alive_by_version_and_word() {
        assert!(keeps_alive(&map(&[]), Version::HTTP_11));
        assert!(!keeps_alive(
            &map(&[("connection", "Close")]),
            Version::HTTP_11
        ));
        assert!(!keeps_alive(&map(&[]), Version::HTTP_10));
        assert!(keeps_alive(
            &map(&[("connection", "keep-alive")]),
            Version::HTTP_10
        ));
    }
}
