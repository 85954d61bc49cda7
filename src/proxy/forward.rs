//! One request: let in, sent to its backend, answered. What may be tried again, and when, stands
//! here.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tracing::debug;

use super::answer;
use super::backend::{Kind, Ticket, What};
use super::headers::{self, Peer};
use super::hold::{Admission, Refused};
use super::in_flight::InFlight;
use super::request_body::{ClientBody, RequestBody};
use super::response_body::{Lease, ResponseBody};
use super::tunnel::Tunnel;
use super::upstream::{Connection, Upstream};
use super::{Front, RoutingTable, endpoints};

/// How often one request is tried on connections that turn out dead; each further try is on a fresh
/// connection.
const TRIES: usize = 3;

/// What a request needs, to be sent once or again.
struct Head {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
}

/// Why one try did not bring an answer.
enum Failed {
    /// The connection was gone before the request was written; the head comes back.
    Unsent(Box<Head>, String),
    /// Sent, but nothing came back, and the client's body is untouched.
    Silent(String),
    /// Part of the work may be done.
    Midway(String),
}

/// Forwards a request that is not for the gateway itself.
pub(super) async fn forward(
    front: &Arc<Front>,
    table: &RoutingTable,
    peer: Peer,
    request: Request<Incoming>,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let limit = table.settings.body;
    let (mut parts, body) = body_of(request, limit);
    let refuse = |status, why: &str| answer::text(status, format!("gateway: {why}"));
    let host = match host_of(&parts.uri, &parts.headers, parts.version) {
        Ok(host) => host,
        Err(why) => {
            return refuse(StatusCode::BAD_REQUEST, why).map(|body| body.in_flight(in_flight));
        }
    };
    if parts
        .headers
        .get(header::TRANSFER_ENCODING)
        .is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"chunked"))
    {
        // The chunks are taken off here; what is under them would arrive as if it had no coding.
        let why = "no transfer coding but chunked is understood";
        return refuse(StatusCode::NOT_IMPLEMENTED, why).map(|body| body.in_flight(in_flight));
    }
    if limit > 0 && content_length(&parts.headers).is_some_and(|length| length > limit) {
        return GaveUp::TooLarge(limit)
            .response()
            .map(|body| body.in_flight(in_flight));
    }
    let upgrade = headers::wants_upgrade(&parts.headers, parts.version);
    let on_upgrade = upgrade
        .is_some()
        .then(|| parts.extensions.remove::<OnUpgrade>())
        .flatten();
    if parts.uri.authority().is_some() || !parts.headers.contains_key(header::HOST) {
        parts.headers.insert(header::HOST, host.clone());
    }
    let kind = if upgrade.is_some() {
        Kind::Tunnel
    } else {
        Kind::Request
    };
    headers::to_upstream(
        &mut parts.headers,
        upgrade,
        peer,
        &table.settings.trusted,
        table.settings.via,
    );
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let home = path.path() == "/";
    let head = Head {
        method: parts.method,
        uri: Uri::from(path),
        headers: parts.headers,
    };
    // Text: host_of saw to that.
    let host = host.to_str().unwrap_or_default();
    let exchange = Exchange {
        front,
        host,
        kind,
        body,
        via: table.settings.via,
    };
    match exchange.run(head).await {
        Ok(Answer {
            response,
            mut ticket,
            lease,
        }) => match (response.status(), on_upgrade) {
            (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
                tunnel(front, response, client, ticket, in_flight)
            }
            (StatusCode::SWITCHING_PROTOCOLS, None) => {
                answer::bad_gateway("the server switched protocols without being asked")
                    .map(|body| body.in_flight(in_flight))
            }
            _ => {
                ticket.is_request();
                response.map(|body| ResponseBody::proxied(body, lease, ticket, in_flight))
            }
        },
        Err(GaveUp::Refused(Refused::NoRoute)) if home && front.table().routes.is_empty() => {
            endpoints::page(front, &front.table()).map(|body| body.in_flight(in_flight))
        }
        Err(gave_up) => {
            if let GaveUp::BadGateway(why) = &gave_up {
                front.complaints.tell(why);
            }
            gave_up.response().map(|body| body.in_flight(in_flight))
        }
    }
}

/// Why a request gets an answer of ours instead of its server's.
enum GaveUp {
    /// It was not let through.
    Refused(Refused),
    /// The server failed, and trying again could do the work twice.
    BadGateway(String),
    /// Its body is longer than this many bytes.
    TooLarge(u64),
}

impl From<Refused> for GaveUp {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl GaveUp {
    fn response(self) -> Response<ResponseBody> {
        match self {
            Self::Refused(Refused::NoRoute) => {
                answer::text(StatusCode::NOT_FOUND, "gateway: no route leads here")
            }
            Self::Refused(Refused::Unavailable(why)) => answer::unavailable(&why),
            Self::Refused(Refused::Closed(refusal)) => answer::refused(&refusal),
            Self::BadGateway(why) => answer::bad_gateway(&why),
            Self::TooLarge(limit) => answer::text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("gateway: a request's body may have {limit} bytes here"),
            ),
        }
    }
}

struct Exchange<'a> {
    front: &'a Arc<Front>,
    host: &'a str,
    kind: Kind,
    body: ClientBody,
    via: bool,
}

struct Answer {
    response: Response<Incoming>,
    ticket: Ticket,
    lease: Option<Lease>,
}

impl Exchange<'_> {
    async fn run(&self, mut head: Head) -> Result<Answer, GaveUp> {
        let what = What::new(&head.method, &head.uri);
        let safe = headers::idempotent(&head.method);
        let mut admission = Admission::new(self.front, self.host, self.kind, &what);
        let mut tries = 0;
        loop {
            let (ticket, upstream) = admission.enter().await?;
            let connection = match upstream
                .connection(safe, tries > 0 || self.kind == Kind::Tunnel)
                .await
            {
                Ok(connection) => connection,
                Err(error) => {
                    let why = format!("{} refuses connections: {error}", ticket.backend().name());
                    drop(ticket);
                    if !upstream.is_sidecar() {
                        return Err(GaveUp::BadGateway(why));
                    }
                    admission.refused(&why).await?;
                    continue;
                }
            };
            // The connection may die after the head is gone with it.
            let spare = (safe && !self.body.taken()).then(|| head.copy());
            match self.attempt(&upstream, connection, head).await {
                Ok((response, lease)) => {
                    return Ok(Answer {
                        response,
                        ticket,
                        lease,
                    });
                }
                Err(failed) => {
                    tries += 1;
                    self.front.stats.retries.fetch_add(1, Ordering::Relaxed);
                    drop(ticket);
                    head = self.again(failed, spare, tries)?;
                }
            }
        }
    }

    /// The head for another try, where one is allowed.
    fn again(&self, failed: Failed, spare: Option<Head>, tries: usize) -> Result<Head, GaveUp> {
        if self.body.too_large() {
            return Err(GaveUp::TooLarge(self.front.table().settings.body));
        }
        let (head, why) = match failed {
            Failed::Unsent(head, why) if !self.body.taken() => (Some(*head), why),
            Failed::Silent(why) => (spare, why),
            Failed::Unsent(_, why) | Failed::Midway(why) => (None, why),
        };
        debug!("try {tries} failed: {why}");
        head.filter(|_| tries < TRIES)
            .ok_or(GaveUp::BadGateway(why))
    }

    async fn attempt(
        &self,
        upstream: &Arc<Upstream>,
        mut connection: Connection,
        head: Head,
    ) -> Result<(Response<Incoming>, Option<Lease>), Failed> {
        let before = connection.received();
        let bodiless = self.body.ended() && !self.body.taken();
        let body = if bodiless {
            RequestBody::empty()
        } else {
            self.body.offer()
        };
        let sent = connection
            .sender()
            .try_send_request(head.request(body))
            .await;
        let mut response = match sent {
            Ok(response) => response,
            Err(mut error) => {
                let unsent = error.take_message();
                let why = format!(
                    "{} broke off: {}",
                    upstream.address(),
                    in_full(&error.into_error())
                );
                return Err(match unsent {
                    Some(request) => Failed::Unsent(Box::new(Head::of(request)), why),
                    None if connection.received() == before && !self.body.taken() => {
                        Failed::Silent(why)
                    }
                    None => Failed::Midway(why),
                });
            }
        };
        if let Some(announced) = response
            .headers()
            .get("keep-alive")
            .and_then(|value| value.to_str().ok())
        {
            upstream.announced(announced);
        }
        // An answer before the end of the body, or an error about it: the server may never read the
        // rest, and the next request would wait behind it.
        let unread = !self.body.ended() || (!bodiless && response.status().as_u16() >= 400);
        let keeps = !unread && headers::keeps_alive(response.headers(), response.version());
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = response
            .headers_mut()
            .remove(header::UPGRADE)
            .filter(|_| switched);
        headers::to_client(response.headers_mut(), self.via);
        if let Some(protocol) = protocol {
            response.headers_mut().insert(header::UPGRADE, protocol);
            response
                .headers_mut()
                .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        }
        *response.version_mut() = Version::HTTP_11;
        let lease = (keeps && !switched).then(|| Lease {
            connection,
            upstream: Arc::clone(upstream),
            sent: self.body.clone(),
        });
        Ok((response, lease))
    }
}

impl Head {
    fn copy(&self) -> Self {
        Self {
            method: self.method.clone(),
            uri: self.uri.clone(),
            headers: self.headers.clone(),
        }
    }

    fn request(self, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }

    fn of(request: Request<RequestBody>) -> Self {
        let (parts, _) = request.into_parts();
        Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
        }
    }
}

/// Hands both sides of a 101 to a tunnel: no byte passes before the 101.
fn tunnel(
    front: &Arc<Front>,
    mut response: Response<Incoming>,
    client: OnUpgrade,
    ticket: Ticket,
    in_flight: InFlight,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(header::UPGRADE);
    let websocket =
        protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let tunnel = Tunnel {
        websocket,
        end: ticket.tunnel_end(),
        ticket,
        stats: Arc::clone(&front.stats),
    };
    tokio::spawn(tunnel.run(client, upstream));
    let (parts, _) = response.into_parts();
    in_flight.upgraded();
    Response::from_parts(parts, ResponseBody::own(""))
}

/// An error with its causes.
fn in_full(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// A request's head, and its body, which may have `limit` bytes; 0 means any.
pub(super) fn body_of(request: Request<Incoming>, limit: u64) -> (Parts, ClientBody) {
    let (parts, body) = request.into_parts();
    let awaits_word = parts.headers.contains_key(header::EXPECT);
    (parts, ClientBody::new(body, limit, awaits_word))
}

/// The host a request is for, as text: the authority of an absolute URI, else the one Host field
/// (RFC 9112, 3.2). Clients of before HTTP/1.1 may name none; what they ask for is here.
fn host_of(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<HeaderValue, &'static str> {
    if let Some(authority) = uri.authority() {
        // Without the user information, which a Host field cannot have.
        let host = authority
            .as_str()
            .rsplit_once('@')
            .map_or(authority.as_str(), |(_, host)| host);
        return HeaderValue::from_str(host).map_err(|_| "the URI's host is not text");
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok() => Ok(host.clone()),
        (Some(_), None) => Err("the Host field is not text"),
        (None, _) if version == Version::HTTP_11 => Err("an HTTP/1.1 request needs a Host field"),
        (None, _) => Ok(HeaderValue::from_static("localhost")),
        (Some(_), Some(_)) => Err("a request has one Host field"),
    }
}
