//! A request for the control protocol, `/_gateway/ws`: who may have a WebSocket, and its handshake.

use std::net::TcpStream as StdTcpStream;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Authority as HostName;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::{Body, Incoming};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::Front;
use super::client_io::ClientIo;
use super::endpoints;
use super::exchange_end::ExchangeEnd;
use super::exchange_record::ExchangeRecord;
use super::forward;
use super::forwarded::Peer;
use super::headers;
use super::local_reply::{self, Form};
use super::progress::InFlight;
use super::response_body::ResponseBody;
use crate::config::LimitsSection;
use crate::control::access::{Caller, TokenGrant};
use crate::control::counters::ControlRefusal;
use crate::control::server::Admission;

pub const PATH: &str = "/_gateway/ws";

/// The version of the protocol (RFC 6455, section 4.1).
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// The characters of a key: 16 bytes in Base64.
const KEY_LENGTH: usize = 24;

/// Answers the request, with the handshake if it is granted.
pub fn respond(
    front: &Arc<Front>,
    limits: &LimitsSection,
    peer: Peer,
    mut request: Request<Incoming>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let granted = key_of(&request)
        .and_then(|key| Ok((key, admit(front, peer, request.headers())?)))
        .and_then(|(key, admission)| match request.extensions_mut().remove() {
            Some(client) => Ok((key, admission, client)),
            None => Err(UpgradeRefusal::NoUpgrade),
        });
    match granted {
        Ok((key, admission, client)) => begin(front, &key, (admission, client), in_flight),
        Err(refusal) => {
            if let Some(what) = refusal.counts_as() {
                front.control.counters.refused(what);
            }
            let reply = refusal.reply(Form::of(request.headers()));
            // Its body is read and thrown away, as behind each answer of the gateway's own: until that is
            // known to be done, no limit on silence applies to the connection.
            drop(forward::body_of(front, request, limits, &in_flight));
            ResponseBody::of_request(reply, in_flight, ExchangeEnd::Refused)
        }
    }
}

/// Why a request has no WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum UpgradeRefusal {
    /// It does not ask for one.
    NoUpgrade,
    /// It asks for another version.
    Version,
    Key,
    Token,
    /// Its token opens the pages alone.
    PagesOnly,
    Origin,
    Crowded,
}

impl UpgradeRefusal {
    /// What it is counted as; none where it has been counted.
    fn counts_as(self) -> Option<ControlRefusal> {
        match self {
            Self::NoUpgrade | Self::Version | Self::Key => Some(ControlRefusal::Handshake),
            Self::Token | Self::PagesOnly => Some(ControlRefusal::Token),
            Self::Origin => Some(ControlRefusal::Origin),
            Self::Crowded => None,
        }
    }

    fn reply(self, form: Form) -> Response<ResponseBody> {
        let (status, why) = match self {
            Self::NoUpgrade => (
                StatusCode::UPGRADE_REQUIRED,
                "the control protocol is spoken over WebSocket here",
            ),
            Self::Version => (
                StatusCode::UPGRADE_REQUIRED,
                "only version 13 of WebSocket is spoken here",
            ),
            Self::Key => (
                StatusCode::BAD_REQUEST,
                "the Sec-WebSocket-Key is not 16 bytes in Base64",
            ),
            Self::Token => return endpoints::without_token(form),
            Self::PagesOnly => (
                StatusCode::FORBIDDEN,
                "this token opens the pages below /_gateway/ alone; the gateway's log says why",
            ),
            Self::Origin => (
                StatusCode::FORBIDDEN,
                "pages of other sites do not control this gateway",
            ),
            Self::Crowded => (
                StatusCode::SERVICE_UNAVAILABLE,
                "too many clients control this gateway now; try again soon",
            ),
        };
        let mut reply = local_reply::failure(status, why, form);
        match self {
            Self::NoUpgrade | Self::Version => {
                let headers = reply.headers_mut();
                headers.insert(header::SEC_WEBSOCKET_VERSION, VERSION);
                headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            }
            Self::Crowded => local_reply::set_retry_after(&mut reply, None),
            Self::Key | Self::Token | Self::PagesOnly | Self::Origin => {}
        }
        reply
    }
}

/// The key of a request for a WebSocket.
fn key_of(request: &Request<Incoming>) -> Result<HeaderValue, UpgradeRefusal> {
    let headers = request.headers();
    let upgrade = headers::wants_upgrade(headers, request.version());
    let websocket = upgrade.is_some_and(|protocol| {
        let mut offered = protocol.as_bytes().split(|byte| *byte == b',');
        offered.any(|one| one.trim_ascii().eq_ignore_ascii_case(b"websocket"))
    });
    let plain = request.method() == Method::GET && request.body().is_end_stream();
    if !websocket || !plain {
        return Err(UpgradeRefusal::NoUpgrade);
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION) != Some(&VERSION) {
        return Err(UpgradeRefusal::Version);
    }
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    match (keys.next(), keys.next()) {
        (Some(key), None) if is_key(key.as_bytes()) => Ok(key.clone()),
        _ => Err(UpgradeRefusal::Key),
    }
}

fn is_key(key: &[u8]) -> bool {
    let base64 = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == KEY_LENGTH && key.ends_with(b"==") && key[..KEY_LENGTH - 2].iter().all(base64)
}

/// Lets in who has a token, and comes from no page of another site.
fn admit(front: &Front, peer: Peer, headers: &HeaderMap) -> Result<Admission, UpgradeRefusal> {
    let authority = match endpoints::access(front, headers) {
        Some(TokenGrant::Control(authority)) => authority,
        Some(TokenGrant::Pages) => return Err(UpgradeRefusal::PagesOnly),
        None => return Err(UpgradeRefusal::Token),
    };
    if !same_site(headers) {
        return Err(UpgradeRefusal::Origin);
    }
    let caller = Caller::Remote {
        address: peer.address(),
        authority,
    };
    front.control.admit(caller).ok_or(UpgradeRefusal::Crowded)
}

/// Whether no page of another site asks: browsers send an Origin with each request for a WebSocket, other
/// clients none.
fn same_site(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(header::ORIGIN).iter();
    let (Some(origin), None) = (origins.next(), origins.next()) else {
        return headers.get(header::ORIGIN).is_none();
    };
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    let (Some(origin), Some(host)) = (origin.to_str().ok(), host) else {
        return false;
    };
    is_origin_of(origin, host)
}

/// Whether this origin is that of the pages at `host`. Where a proxy ends TLS, the host is that of https.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let (Ok(origin), Ok(host)) = (origin.parse::<Uri>(), host.parse::<HostName>()) else {
        return false;
    };
    let usual = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        _ => return false,
    };
    let bare = matches!(origin.path(), "" | "/") && origin.query().is_none();
    origin.authority().is_some_and(|origin| {
        let port = |of: &HostName| of.port_u16().unwrap_or(usual);
        bare && !origin.as_str().contains('@')
            && origin.host().eq_ignore_ascii_case(host.host())
            && port(origin) == port(&host)
    })
}

/// The handshake; behind it the client speaks to the control server.
fn begin(
    front: &Arc<Front>,
    key: &HeaderValue,
    (admission, client): (Admission, OnUpgrade),
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let mut record = in_flight.upgraded();
    let mut response = Response::new(ResponseBody::local(""));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&derive_accept_key(key.as_bytes())) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    record.answered(response.status());
    tokio::spawn(hand_over(Arc::clone(front), client, admission, record));
    response
}

/// Gives the client's socket to the control server: this thread may end before that has said goodbye.
async fn hand_over(
    front: Arc<Front>,
    client: OnUpgrade,
    admission: Admission,
    mut record: ExchangeRecord,
) {
    match client.await.ok().and_then(socket_of) {
        Some((socket, early, slot)) => {
            record.ends(ExchangeEnd::Done);
            front.control.enter(admission, (socket, early), slot);
        }
        None => record.ends(ExchangeEnd::Failed),
    }
}

/// The socket of a connection, what was read from it, and what it occupies.
fn socket_of(client: Upgraded) -> Option<(StdTcpStream, Vec<u8>, impl Send + 'static)> {
    let parts = client.downcast::<TokioIo<ClientIo>>().ok()?;
    let (socket, kept, slot) = parts.io.into_inner().into_socket().ok()?;
    let early = [&*parts.read_buf, &*kept].concat();
    Some((socket, early, slot))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_the_same_host_may_ask() {
        for (origin, host, same) in [
            ("http://gw.example:8080", "gw.example:8080", true),
            ("http://GW.example", "gw.example", true),
            ("http://gw.example", "gw.example:80", true),
            ("https://gw.example", "gw.example", true),
            ("https://gw.example:443", "gw.example", true),
            ("http://[::1]:8080", "[::1]:8080", true),
            ("http://gw.example:8080", "gw.example:8081", false),
            ("http://gw.example", "gw.example:8080", false),
            ("http://evil.example:8080", "gw.example:8080", false),
            ("http://gw.example.evil.example", "gw.example", false),
            ("http://gw.example@evil.example", "evil.example", false),
            ("http://gw.example/page", "gw.example", false),
            ("ftp://gw.example", "gw.example", false),
            ("null", "gw.example", false),
            ("", "gw.example", false),
            ("http://", "gw.example", false),
            ("gw.example", "gw.example", false),
        ] {
            assert_eq!(is_origin_of(origin, host), same, "{origin} at {host}");
        }
        let with = |origins: &[&'static str]| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, HeaderValue::from_static("a"));
            for origin in origins {
                headers.append(header::ORIGIN, HeaderValue::from_static(origin));
            }
            same_site(&headers)
        };
        assert!(with(&[]) && with(&["http://a"]));
        assert!(!with(&["http://b"]) && !with(&["http://a", "http://a"]));
    }

    #[test]
    fn a_key_is_sixteen_bytes() {
        assert!(is_key(b"dGhlIHNhbXBsZSBub25jZQ=="));
        for wrong in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZ Q=="] {
            assert!(!is_key(wrong.as_bytes()), "{wrong}");
        }
    }
}
