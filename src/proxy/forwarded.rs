//! The headers that say who a request comes from: which peers may send them, and where they are set.
//!
//! A peer on this machine is met as if the front door were not there: a proxy that terminates TLS
//! beside it says the truth, and a server that refuses proxies it does not know sees none.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Mutex;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use tracing::warn;

use super::moved_client::Announcement;
use crate::config::{Config, ForwardedMode};
use crate::os::mutex::lock;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The headers besides X-Forwarded-* by which proxies and content networks name the client.
const CLAIMS: [&str; 16] = [
    "forwarded",
    "x-forwarded",
    "forwarded-for",
    "x-original-forwarded-for",
    "x-real-ip",
    "true-client-ip",
    "cf-connecting-ip",
    "cf-connecting-ipv6",
    "cf-visitor",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "fastly-client-ip",
    "x-azure-clientip",
    "x-envoy-external-address",
    "front-end-https",
];

/// So many peers are warned about: who operates a proxy sees its address, and strangers do not fill
/// the log.
const WARNED_MAX: usize = 8;

/// Who is on the other end of a client connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    Tcp(IpAddr),
    /// A client of a unix listener.
    Unix,
    /// A client that a proxy passes on, at the address that it announced by the PROXY protocol, or at
    /// one that it did not tell. Wherever the proxy is, this client is not taken for one of this machine.
    Announced(Option<IpAddr>),
    /// This process, over a socket pair.
    Watchdog,
    /// The same, where it asks what clients of a sidecar would get.
    Passage,
}

impl Peer {
    /// Whether it is a client: this process asks itself, too, which counts nowhere.
    pub fn is_client(self) -> bool {
        !matches!(self, Self::Watchdog | Self::Passage)
    }

    /// Whether it runs on this machine.
    fn is_local(self) -> bool {
        match self {
            Self::Unix | Self::Watchdog | Self::Passage => true,
            Self::Tcp(addr) => addr.to_canonical().is_loopback(),
            Self::Announced(_) => false,
        }
    }

    /// Its address, where it has one.
    pub fn address(self) -> Option<IpAddr> {
        match self {
            Self::Tcp(addr) => Some(addr.to_canonical()),
            Self::Announced(addr) => addr,
            Self::Unix | Self::Watchdog | Self::Passage => None,
        }
    }

    /// What a proxy said of it.
    pub fn announcement(self) -> Announcement {
        match self {
            Self::Announced(addr) => Announcement::Client(addr),
            Self::Tcp(_) | Self::Unix | Self::Watchdog | Self::Passage => Announcement::None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address() {
            Some(addr) => addr.fmt(f),
            None => f.write_str(match self {
                Self::Unix => "a unix socket",
                _ => "an unknown address",
            }),
        }
    }
}

/// What is done with the headers of one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Treatment {
    /// They pass, and none is added.
    Pass,
    /// They pass, and what they lack is added.
    Extend,
    /// They are dropped.
    Drop,
    /// They are dropped, and those of this connection take their place.
    Replace,
}

/// How each peer is treated, from the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardedPolicy {
    mode: ForwardedMode,
    /// Peers whose headers are believed.
    nets: Vec<(IpAddr, u8)>,
    unix: bool,
}

impl ForwardedPolicy {
    /// Reads `gateway.forwarded` and `gateway.trusted_proxies` of a checked configuration.
    pub fn new(config: &Config) -> Self {
        let list = &config.gateway.trusted_proxies;
        Self {
            mode: config.gateway.forwarded,
            nets: list
                .iter()
                .filter_map(|text| crate::config::parse_net(text))
                .collect(),
            unix: list.iter().any(|text| text == "unix"),
        }
    }

    fn believes(&self, peer: Peer) -> bool {
        match peer {
            Peer::Unix | Peer::Watchdog | Peer::Passage => self.unix,
            Peer::Tcp(addr) | Peer::Announced(Some(addr)) => self
                .nets
                .iter()
                .any(|&(net, prefix)| contains(net, prefix, addr)),
            Peer::Announced(None) => false,
        }
    }

    /// Whether the peer may say by the PROXY protocol whose connection it passes on.
    pub fn may_announce(&self, peer: Peer) -> bool {
        peer.is_local() || self.believes(peer)
    }

    fn treatment(&self, peer: Peer) -> Treatment {
        match self.mode {
            ForwardedMode::Auto | ForwardedMode::Never if peer.is_local() => Treatment::Pass,
            ForwardedMode::Never if self.believes(peer) => Treatment::Pass,
            ForwardedMode::Never => Treatment::Drop,
            ForwardedMode::Auto | ForwardedMode::Always if self.believes(peer) => Treatment::Extend,
            ForwardedMode::Auto | ForwardedMode::Always => Treatment::Replace,
        }
    }

    /// Whether the peer may not say who a request comes from.
    pub fn drops_claims(&self, peer: Peer) -> bool {
        matches!(self.treatment(peer), Treatment::Drop | Treatment::Replace)
    }

    /// The address that a connection counts for: none for a client of this machine or a trusted proxy, which
    /// has the connections of many.
    pub fn limited(&self, peer: Peer) -> Option<IpAddr> {
        let counts = !peer.is_local() && !self.believes(peer);
        counts.then(|| peer.address()).flatten()
    }

    /// The address that a request counts for: of those in X-Forwarded-For of a peer that is believed, the
    /// last that is neither of this machine nor a trusted proxy. None where that is not known: all clients
    /// of a proxy that does not tell theirs would be counted as one.
    pub fn client(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        match self.treatment(peer) {
            Treatment::Drop | Treatment::Replace => self.limited(peer),
            Treatment::Pass | Treatment::Extend => {
                let fields = headers.get_all(X_FORWARDED_FOR).iter().rev();
                let hops = fields.flat_map(|field| field.to_str().unwrap_or("").rsplit(','));
                for hop in hops {
                    let address = hop_address(hop.trim())?;
                    let peer = Peer::Tcp(address);
                    if !peer.is_local() && !self.believes(peer) {
                        return Some(address);
                    }
                }
                None
            }
        }
    }

    /// Who a request is logged for: the client that it counts for, or, where that is not known, the peer.
    pub fn told(&self, peer: Peer, headers: &HeaderMap) -> Peer {
        let client = self.client(peer, headers);
        client.map_or(peer, |address| Peer::Announced(Some(address)))
    }

    /// Makes a request's headers fit for the upstream.
    pub fn apply(&self, headers: &mut HeaderMap, peer: Peer) {
        let treatment = self.treatment(peer);
        if matches!(treatment, Treatment::Drop | Treatment::Replace) {
            drop_claims(headers);
        }
        if matches!(treatment, Treatment::Extend | Treatment::Replace) {
            add(headers, peer);
        }
    }
}

/// Whether the client uses HTTPS, as the headers for the upstream say: of what a peer may not say,
/// nothing is left in them.
pub fn is_https(headers: &HeaderMap) -> bool {
    let proto = headers.get(X_FORWARDED_PROTO);
    proto.is_some_and(|proto| proto.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Warns of proxies that are not trusted, of each once.
#[derive(Debug, Default)]
pub struct ProxyWarnings(Mutex<Vec<IpAddr>>);

impl ProxyWarnings {
    /// Looks at the headers of a peer that is not believed. Who says which protocol its client uses is
    /// a proxy, and the server behind it will answer as if it had said nothing: mostly with endless
    /// redirects.
    pub fn look(&self, headers: &HeaderMap, peer: Peer) {
        let Some(addr) = peer.address() else { return };
        if !headers.contains_key(X_FORWARDED_PROTO) {
            return;
        }
        let mut warned = lock(&self.0);
        if warned.len() < WARNED_MAX && !warned.contains(&addr) {
            warned.push(addr);
            warn!(
                "[gateway] X-Forwarded-Proto of {addr} is dropped, because that is no trusted proxy; if it is yours, set `trusted_proxies = [\"{addr}\"]` in [gateway]"
            );
        }
    }
}

/// An address as proxies write it, with or without a port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let with_port = || hop.parse::<SocketAddr>().ok().map(|address| address.ip());
    let bare = hop.trim_matches(['[', ']']).parse().ok();
    bare.or_else(with_port)
        .map(|address: IpAddr| address.to_canonical())
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

/// Drops what says who a request comes from.
pub fn drop_claims(headers: &mut HeaderMap) {
    let claims: Vec<HeaderName> = headers
        .keys()
        .filter(|name| is_claim(name.as_str()))
        .cloned()
        .collect();
    claims.iter().for_each(|name| drop(headers.remove(name)));
}

/// Adds what this connection shows.
fn add(headers: &mut HeaderMap, peer: Peer) {
    match (peer.address(), peer) {
        (Some(addr), _) => append(headers, X_FORWARDED_FOR, &addr.to_string()),
        // Who finds no field takes the client for one of this machine.
        (None, Peer::Announced(_)) => append(headers, X_FORWARDED_FOR, "unknown"),
        (None, _) => {}
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
    const START: &str = "x-forwarded-";
    let begins = |with: &str| {
        let same = |(a, b): (u8, u8)| a == b || (a == b'_' && b == b'-');
        name.len() >= with.len() && name.bytes().zip(with.bytes()).all(same)
    };
    begins(START)
        || CLAIMS
            .iter()
            .any(|claim| claim.len() == name.len() && begins(claim))
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

    const LOCAL: Peer = Peer::Tcp(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    const SENT: [(&str, &str); 9] = [
        ("host", "a"),
        ("x-forwarded-for", "1.1.1.1"),
        ("x-forwarded-proto", "https"),
        ("x_forwarded_for", "1.1.1.1"),
        ("x-forwarded-port", "443"),
        ("forwarded", "for=1.1.1.1"),
        ("x-real_ip", "1.1.1.1"),
        ("true-client-ip", "1.1.1.1"),
        ("cf-connecting-ip", "1.1.1.1"),
    ];

    fn policy(mode: ForwardedMode) -> ForwardedPolicy {
        ForwardedPolicy {
            mode,
            ..ForwardedPolicy::default()
        }
    }

    #[test]
    fn the_claims_of_a_stranger_are_replaced() {
        let mut headers = map(&SENT);
        policy(ForwardedMode::Auto).apply(&mut headers, PEER);
        assert_eq!(headers["x-forwarded-for"], "10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a");
        assert_eq!(headers.len(), 4, "every other claim is gone: {headers:?}");
        for like in ["x-real-ipx", "x-forward", "client-ips", "x-forwardedx"] {
            assert!(!is_claim(like), "{like}");
        }
    }

    #[test]
    fn a_trusted_proxy_is_believed() {
        let trusted = ForwardedPolicy {
            nets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            ..ForwardedPolicy::default()
        };
        let mut headers = map(&SENT);
        trusted.apply(&mut headers, PEER);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.1.2.3");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=1.1.1.1");
        assert_eq!(headers["x-real_ip"], "1.1.1.1");
        assert!(!trusted.believes(Peer::Unix));
        assert!(!trusted.believes(Peer::Tcp(IpAddr::from([11, 0, 0, 1]))));
        let everybody = ForwardedPolicy {
            nets: vec![(IpAddr::from([0, 0, 0, 0]), 0)],
            ..ForwardedPolicy::default()
        };
        assert!(everybody.believes(PEER));
    }

    #[test]
    fn a_peer_on_this_machine_passes_untouched_unless_headers_are_always_set() {
        let mapped = Peer::Tcp("::ffff:127.0.0.9".parse().unwrap());
        for peer in [LOCAL, mapped, Peer::Unix] {
            for mode in [ForwardedMode::Auto, ForwardedMode::Never] {
                for sent in [&SENT[..], &SENT[..1]] {
                    let mut headers = map(sent);
                    policy(mode).apply(&mut headers, peer);
                    assert_eq!(headers, map(sent), "{peer:?} {mode}");
                }
            }
        }
        let mut headers = map(&SENT);
        policy(ForwardedMode::Always).apply(&mut headers, LOCAL);
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert!(!headers.contains_key("true-client-ip"));
    }

    #[test]
    fn an_announced_client_is_not_the_proxy_wherever_that_is() {
        for (announced, told) in [
            (Some("203.0.113.7"), "203.0.113.7"),
            (Some("127.0.0.1"), "127.0.0.1"),
            (None, "unknown"),
        ] {
            let peer = Peer::Announced(announced.map(|addr| addr.parse().unwrap()));
            let mut headers = map(&SENT);
            policy(ForwardedMode::Auto).apply(&mut headers, peer);
            assert_eq!(headers["x-forwarded-for"], told);
            assert_eq!(headers.len(), 4, "{headers:?}");
            assert!(!policy(ForwardedMode::Auto).may_announce(peer));
        }
        let trusted = ForwardedPolicy {
            nets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            ..ForwardedPolicy::default()
        };
        assert!(trusted.may_announce(PEER) && trusted.may_announce(LOCAL));
        assert!(trusted.may_announce(Peer::Unix));
        assert!(!policy(ForwardedMode::Auto).may_announce(PEER));
        // A proxy in front of the proxy.
        let mut headers = map(&SENT);
        trusted.apply(&mut headers, Peer::Announced(Some([10, 9, 9, 9].into())));
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 10.9.9.9");
    }

    #[test]
    fn a_request_counts_for_the_last_hop_that_is_not_trusted() {
        let trusted = ForwardedPolicy {
            nets: vec![(IpAddr::from([10, 0, 0, 0]), 8)],
            ..ForwardedPolicy::default()
        };
        let remote = Peer::Tcp([203, 0, 113, 7].into());
        for (peer, hops, expected) in [
            (remote, &[][..], Some("203.0.113.7")),
            (remote, &["1.1.1.1"], Some("203.0.113.7")),
            (
                Peer::Announced(Some([10, 1, 1, 1].into())),
                &["1.1.1.1"],
                Some("1.1.1.1"),
            ),
            (
                Peer::Announced(Some([127, 0, 0, 1].into())),
                &["1.1.1.1"],
                Some("127.0.0.1"),
            ),
            (Peer::Announced(None), &["1.1.1.1"], None),
            (PEER, &["9.9.9.9, 1.1.1.1, 10.3.3.3"], Some("1.1.1.1")),
            (
                PEER,
                &["9.9.9.9", "1.1.1.1:5678", "127.0.0.1,10.3.3.3"],
                Some("1.1.1.1"),
            ),
            (PEER, &["[2001:db8::1]:443"], Some("2001:db8::1")),
            (PEER, &["2001:db8::1"], Some("2001:db8::1")),
            (PEER, &["9.9.9.9, unknown"], None),
            (PEER, &["10.2.2.2"], None),
            (PEER, &[], None),
            (LOCAL, &[], None),
            (LOCAL, &["::ffff:1.1.1.1"], Some("1.1.1.1")),
            (Peer::Unix, &["1.1.1.1"], Some("1.1.1.1")),
            (Peer::Watchdog, &[], None),
        ] {
            let mut headers = HeaderMap::new();
            for hop in hops {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_static(hop));
            }
            let expected = expected.map(|text| text.parse().unwrap());
            let told = trusted.told(peer, &headers);
            assert_eq!(
                trusted.client(peer, &headers),
                expected,
                "{peer:?} {hops:?}"
            );
            match expected {
                Some(_) => assert_eq!(told.address(), expected),
                None => assert_eq!(told, peer),
            }
        }
        assert_eq!(trusted.limited(PEER), None);
        assert_eq!(trusted.limited(remote), remote.address());
        assert_eq!(trusted.limited(LOCAL), None);
        // Headers that are not believed count for nothing.
        let always = policy(ForwardedMode::Always);
        let headers = map(&SENT);
        assert_eq!(always.client(LOCAL, &headers), None);
    }

    #[test]
    fn never_adds_nothing_and_still_believes_no_stranger() {
        let mut headers = map(&SENT);
        policy(ForwardedMode::Never).apply(&mut headers, PEER);
        assert_eq!(headers, map(&SENT[..1]));
    }
}
