//! The headers of a request and a response on their way through: hop-by-hop fields are removed, Via
//! is added, everything else is passed on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, Version};

use super::forwarded::{ForwardedPolicy, Peer, append};

/// What this gateway adds to Via (RFC 9110, 7.6.3).
const VIA: &str = "1.1 gateway";

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Which hop-by-hop fields a head has: they concern one connection only (RFC 9110, 7.6.1), like those
/// that `Connection` names. Most heads have none or one: to look for each of them would take longer.
#[derive(Clone, Copy, Debug, Default)]
pub struct HopByHop {
    connection: bool,
    keep_alive: bool,
    te: bool,
    transfer_encoding: bool,
    upgrade: bool,
    /// `Expect`, which the gateway answers itself.
    expect: bool,
    other: bool,
}

/// Those without a name in [`HopByHop`]. CGI and its successors read an underscore as a hyphen: what a
/// client spells so would be the length of a body for such a server alone.
const OTHERS: [&str; 3] = ["proxy-connection", "transfer_encoding", "content_length"];

impl HopByHop {
    pub fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "connection" => found.connection = true,
                "keep-alive" => found.keep_alive = true,
                "te" => found.te = true,
                "transfer-encoding" => found.transfer_encoding = true,
                "upgrade" => found.upgrade = true,
                "expect" => found.expect = true,
                name if OTHERS.contains(&name) => found.other = true,
                _ => {}
            }
        }
        found
    }

    /// Removes them, but for `Expect`.
    fn remove(self, headers: &mut HeaderMap) {
        if self.connection {
            remove_named(headers);
            headers.remove(header::CONNECTION);
        }
        if self.keep_alive {
            headers.remove(KEEP_ALIVE);
        }
        if self.te {
            headers.remove(header::TE);
        }
        if self.transfer_encoding {
            headers.remove(header::TRANSFER_ENCODING);
            // RFC 9112, 6.3: Transfer-Encoding overrules Content-Length; passing both on invites
            // request smuggling.
            headers.remove(header::CONTENT_LENGTH);
        }
        if self.upgrade {
            headers.remove(header::UPGRADE);
        }
        if self.other {
            for name in OTHERS {
                headers.remove(name);
            }
        }
    }

    /// Whether an upstream keeps the connection open after a response with these `headers`.
    pub fn keeps_alive(self, headers: &HeaderMap, version: Version) -> bool {
        let says = |word| self.connection && has_token(headers, &header::CONNECTION, word);
        match version {
            Version::HTTP_11 => !says("close"),
            _ => says("keep-alive"),
        }
    }

    /// What a server says of how long it keeps the connection.
    pub fn keep_alive(self, headers: &HeaderMap) -> Option<&str> {
        self.keep_alive
            .then(|| headers.get(KEEP_ALIVE)?.to_str().ok())?
    }
}

/// The protocol that a request asks to upgrade to. HTTP is not offered, in no version: the
/// proxy would not see its requests.
pub fn wants_upgrade(headers: &HeaderMap, version: Version) -> Option<HeaderValue> {
    let upgrade = headers.get(header::UPGRADE)?;
    let asked = version == Version::HTTP_11 && has_token(headers, &header::CONNECTION, "upgrade");
    let http2 = tokens(headers, &header::UPGRADE).any(|token| {
        let begins = |with: &[u8]| {
            let start = token.get(..with.len());
            start.is_some_and(|start| start.eq_ignore_ascii_case(with))
        };
        begins(b"h2") || begins(b"http/")
    });
    (asked && !http2).then(|| upgrade.clone())
}

/// Makes a client's headers fit for the upstream. `upgrade` when the request asks for a tunnel.
pub fn to_upstream(
    headers: &mut HeaderMap,
    upgrade: Option<HeaderValue>,
    peer: Peer,
    forwarded: &ForwardedPolicy,
    via: bool,
) {
    let hop_by_hop = HopByHop::of(headers);
    let trailers = hop_by_hop.te && has_token(headers, &header::TE, "trailers");
    hop_by_hop.remove(headers);
    // The gateway answers `Expect: 100-continue` itself, when the body is first wanted.
    if hop_by_hop.expect {
        headers.remove(header::EXPECT);
    }
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(protocol) = upgrade {
        set_upgrade(headers, protocol);
    }
    forwarded.apply(headers, peer);
    if via {
        append(headers, header::VIA, VIA);
    }
}

/// Makes an upstream's response, which has these `hop_by_hop` fields, fit for the client; the protocol
/// of a 101 stays.
pub fn to_client<B>(response: &mut Response<B>, hop_by_hop: HopByHop, via: bool) {
    let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    // The same length in a list: hyper saw to that. Clients take one number (RFC 9110, 8.6).
    if let Some(length) = headers.get(header::CONTENT_LENGTH)
        && let Some(comma) = length.as_bytes().iter().position(|byte| *byte == b',')
        && let Ok(first) = HeaderValue::from_bytes(length.as_bytes()[..comma].trim_ascii())
    {
        headers.insert(header::CONTENT_LENGTH, first);
    }
    let protocol = switched.then(|| headers.remove(header::UPGRADE)).flatten();
    hop_by_hop.remove(headers);
    if via {
        append(headers, header::VIA, VIA);
    }
    if let Some(protocol) = protocol {
        set_upgrade(headers, protocol);
    }
    *response.version_mut() = Version::HTTP_11;
}

/// The head of an interim response (RFC 9110, 15.2), which has no body.
pub fn interim(status: StatusCode, mut headers: HeaderMap) -> Vec<u8> {
    HopByHop::of(&headers).remove(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    let reason = status.canonical_reason().unwrap_or("Interim");
    let mut head = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in &headers {
        let name = title_case(name);
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// `content-type` as `Content-Type`, as most write it.
fn title_case(name: &HeaderName) -> String {
    let mut begins = true;
    let letter = |letter: char| {
        let written = match begins {
            true => letter.to_ascii_uppercase(),
            false => letter,
        };
        begins = letter == '-';
        written
    };
    name.as_str().chars().map(letter).collect()
}

/// Makes trailers fit to be passed on: what frames a message or concerns one connection has no place
/// there (RFC 9110, 6.5.1), and who merges them into the head would take it for a part of that.
pub fn trailers(trailers: &mut HeaderMap) {
    HopByHop::of(trailers).remove(trailers);
    for name in [header::CONTENT_LENGTH, header::HOST, header::TRAILER] {
        trailers.remove(name);
    }
}

fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

/// Removes the fields that `Connection` names.
fn remove_named(headers: &mut HeaderMap) {
    // These are removed in any case.
    let usual = |token: &[u8]| {
        ["keep-alive", "close", "upgrade", "te"]
            .iter()
            .any(|known| token.eq_ignore_ascii_case(known.as_bytes()))
    };
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter(|token| !usual(token))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .collect();
    for name in &named {
        // A client must not be able to take these away by naming them in Connection.
        if *name != header::HOST && *name != header::CONTENT_LENGTH {
            headers.remove(name);
        }
    }
}

/// The words of a list. One that is no text hides none of the others.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).into_iter();
    lines
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a request only reads (RFC 9110, 9.2.1), so that it may be sent once more.
pub fn safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

#[cfg(test)]
pub mod tests {
    use std::net::IpAddr;

    use super::*;

    pub fn map(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    pub const PEER: Peer = Peer::Tcp(IpAddr::V4(std::net::Ipv4Addr::new(10, 1, 2, 3)));

    #[test]
    fn trailers_keep_nothing_that_frames_a_message() {
        let mut fields = map(&[
            ("x-sum", "1"),
            ("connection", "close, x-mine"),
            ("x-mine", "1"),
            ("content-length", "5"),
            ("content_length", "5"),
            ("transfer-encoding", "chunked"),
            ("host", "evil"),
            ("trailer", "x"),
            ("upgrade", "x"),
        ]);
        trailers(&mut fields);
        assert_eq!(fields, map(&[("x-sum", "1")]));
    }

    #[test]
    fn hop_by_hop_fields_are_dropped_and_the_rest_untouched() {
        let mut headers = map(&[
            ("host", "example.org"),
            ("origin", "http://example.org"),
            ("connection", "keep-alive, x-secret, host"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers, deflate"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("content_length", "6"),
            ("transfer_encoding", "chunked"),
            ("trailer", "x-sum"),
        ]);
        to_upstream(&mut headers, None, PEER, &ForwardedPolicy::default(), false);
        assert_eq!(headers["host"], "example.org");
        assert_eq!(headers["origin"], "http://example.org");
        assert_eq!(headers["trailer"], "x-sum");
        assert_eq!(headers["te"], "trailers");
        for gone in [
            "x-secret",
            "keep-alive",
            "transfer-encoding",
            "content-length",
            "content_length",
            "transfer_encoding",
            "via",
        ] {
            assert!(!headers.contains_key(gone), "{gone}");
        }
    }

    #[test]
    fn via_is_added_on_request_and_a_101_keeps_its_protocol() {
        let mut headers = map(&[("host", "a"), ("via", "1.0 other")]);
        to_upstream(&mut headers, None, PEER, &ForwardedPolicy::default(), true);
        assert_eq!(headers["via"], "1.0 other, 1.1 gateway");
        let pass = |response: &mut Response<()>, via| {
            let hop_by_hop = HopByHop::of(response.headers());
            to_client(response, hop_by_hop, via);
        };
        let mut response = Response::new(());
        *response.headers_mut() = map(&[("upgrade", "websocket")]);
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        pass(&mut response, true);
        assert_eq!(response.headers()["upgrade"], "websocket");
        assert_eq!(response.headers()["connection"], "upgrade");
        assert_eq!(response.headers()["via"], "1.1 gateway");
        *response.status_mut() = StatusCode::OK;
        pass(&mut response, false);
        assert!(!response.headers().contains_key("upgrade"));
    }

    #[test]
    fn upgrades_are_websockets_and_the_like_but_not_http2() {
        let (websocket, h2c) = (("upgrade", "websocket"), ("upgrade", "h2c"));
        for (connection, upgrade, version, wanted) in [
            (
                Some("keep-alive, Upgrade"),
                websocket,
                Version::HTTP_11,
                true,
            ),
            (
                Some("keep-alive, Upgrade"),
                websocket,
                Version::HTTP_10,
                false,
            ),
            (None, websocket, Version::HTTP_11, false),
            (
                Some("upgrade, http2-settings"),
                h2c,
                Version::HTTP_11,
                false,
            ),
        ] {
            let connection = connection.map(|options| ("connection", options));
            let fields: Vec<_> = connection.into_iter().chain([upgrade]).collect();
            let protocol = wanted.then(|| HeaderValue::from_static(upgrade.1));
            let found = wants_upgrade(&map(&fields), version);
            assert_eq!(found, protocol, "{fields:?} {version:?}");
        }
    }

    #[test]
    fn keep_alive_by_version_and_word() {
        for (connection, version, keeps) in [
            (None, Version::HTTP_11, true),
            (Some("Close"), Version::HTTP_11, false),
            (None, Version::HTTP_10, false),
            (Some("keep-alive"), Version::HTTP_10, true),
        ] {
            let fields: Vec<_> = connection
                .map(|word| ("connection", word))
                .into_iter()
                .collect();
            let headers = map(&fields);
            let found = HopByHop::of(&headers).keeps_alive(&headers, version);
            assert_eq!(found, keeps, "{connection:?} {version:?}");
        }
    }
}
