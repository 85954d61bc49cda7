//! One request that an upstream answers: checked, its head made fit for the upstream, sent, and the
//! response passed back. A request that cannot be forwarded gets a reply of the gateway's own.

use std::pin::pin;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderValue};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use hyper::body::{Body, Incoming};
use hyper::upgrade::OnUpgrade;

use super::address_limits::{AddressGuard, PerAddress};
use super::exchange_end::ExchangeEnd;
use super::forwarded::Peer;
use super::head_limits::HeadLimits;
use super::local_reply::{Form, NotForwarded};
use super::progress::InFlight;
use super::request_body::ClientBody;
use super::response_body::ResponseBody;
use super::retry::Exchange;
use super::socket_read::UPSTREAM_BUFFER_MAX;
use super::stats::Limit;
use super::stream_borders::StreamBorders;
use super::ticket::{Ticket, TicketKind};
use super::tunnel::{Tunnel, TunnelIdle};
use super::upstream_response::UpstreamResponse;
use super::{Front, RoutingTable, Settings, endpoints, headers, passage};
use crate::config::{LimitsSection, normal_form};

/// Forwards a request that is not for the gateway itself.
pub async fn forward(
    front: &Arc<Front>,
    table: &RoutingTable,
    peer: Peer,
    request: Request<Incoming>,
    mut in_flight: InFlight,
) -> Response<ResponseBody> {
    let settings = &table.settings;
    let (mut parts, body) = body_of(front, request, &settings.limits, &in_flight);
    match enter(front, settings, peer, &parts) {
        Ok(guard) => in_flight.address = guard,
        Err(too_many) => {
            let reply = too_many.reply(Form::of(&parts.headers));
            return ResponseBody::of_request(reply, in_flight, too_many.end());
        }
    }
    if settings.forwarded.drops_claims(peer) {
        body.drop_claims();
        front.proxies.look(&parts.headers, peer);
    }
    let checked = check(&parts, settings.limits.body).and_then(|host| {
        match front.hop.is_on(&parts.headers) {
            true => Err(came_back(table, &host.name, parts.uri.path())),
            false => Ok(host),
        }
    });
    let host = match checked {
        Ok(host) => host,
        Err(invalid) => {
            let id = in_flight.record.id();
            let reply = front.refuse_request(&invalid, Form::of(&parts.headers), id);
            return ResponseBody::of_request(reply, in_flight, invalid.end());
        }
    };
    // hyper has it where there is an Upgrade field.
    let client = parts.extensions.remove::<OnUpgrade>();
    let upgrade =
        (client.as_ref()).and_then(|_| headers::wants_upgrade(&parts.headers, parts.version));
    let (kind, client) = match upgrade {
        Some(_) => (TicketKind::Tunnel, client),
        None => (TicketKind::Request, None),
    };
    let accept = parts.headers.get(header::ACCEPT).cloned();
    let knows_interim = parts.version == Version::HTTP_11;
    let head = head_for_upstream(parts, &host, upgrade, peer, settings);
    let at_root = head.uri().path() == "/";
    let exchange = Exchange {
        front,
        table,
        // Text: host_of saw to that.
        host: host.name.to_str().unwrap_or_default(),
        kind,
        alone: peer == Peer::Passage,
        body,
        via: settings.via,
        answer: settings.limits.answer.0,
        heads: HeadLimits {
            size: UPSTREAM_BUFFER_MAX,
            lines: settings.limits.headers,
            keep_case: settings.keep_header_case,
        },
        interim: (in_flight.progress().filter(|_| knows_interim))
            .map(|client| Arc::clone(&client.interim)),
    };
    let answer = pin!(exchange.run(head, &mut in_flight.record)).await;
    let (error, in_flight) = match answer {
        Ok(response) => match pass_back(front, response, client, in_flight) {
            Ok(response) => return response,
            Err(error) => error,
        },
        Err(error) => (error, in_flight),
    };
    let form = Form::wanted(accept.as_ref());
    let nothing = at_root && front.table().routes.is_empty();
    let (reply, end) = match error {
        NotForwarded::NoRoute if nothing => (endpoints::welcome(form), ExchangeEnd::Done),
        error => {
            if matches!(error, NotForwarded::AnswerTimeout(_)) {
                front.stats.expired(Limit::Answer);
            }
            let id = in_flight.record.id();
            let mut reply = match error {
                NotForwarded::BodyInvalid | NotForwarded::TooLarge(_) => {
                    front.refuse_request(&error, form, id)
                }
                _ => {
                    front.errors.note(&error, id);
                    error.reply(form)
                }
            };
            if peer == Peer::Passage {
                passage::tell_cause(&mut reply, &error);
            }
            (reply, error.end())
        }
    };
    ResponseBody::of_request(reply, in_flight, end)
}

/// A request that was here before, and the route that it came back by.
fn came_back(table: &RoutingTable, host: &HeaderValue, path: &str) -> NotForwarded {
    let host = host.to_str().unwrap_or_default();
    let route = table.routes.find(host, path);
    let to = route.map_or("no server", |backend| backend.tickets.backend.as_str());
    NotForwarded::Loop(format!(
        "a request came back to this gateway: its route, to {to}, leads here again"
    ))
}

/// Counts a request for its client's address, if it has a limit.
fn enter(
    front: &Front,
    settings: &Settings,
    peer: Peer,
    parts: &Parts,
) -> Result<Option<AddressGuard>, NotForwarded> {
    let most = settings.limits.requests_per_address;
    let client = (most > 0)
        .then(|| settings.forwarded.client(peer, &parts.headers))
        .flatten();
    let Some(client) = client else {
        return Ok(None);
    };
    let guard = front.addresses.enter(PerAddress::Requests, client, most);
    if guard.is_none() {
        front.stats.limited(PerAddress::Requests);
        front.limited.log(format_args!(
            "answered 429: {client} has {most} requests in flight (limits.requests_per_address)"
        ));
    }
    guard.map(Some).ok_or(NotForwarded::TooMany)
}

/// The host of a request that may be forwarded; its body may have `limit` bytes, 0 means any.
fn check(parts: &Parts, limit: u64) -> Result<RequestHost, NotForwarded> {
    let host = host_of(&parts.uri, &parts.headers, parts.version).map_err(NotForwarded::Invalid)?;
    if limit > 0 && content_length(&parts.headers).is_some_and(|length| length > limit) {
        return Err(NotForwarded::TooLarge(limit));
    }
    Ok(host)
}

/// The host that a request is for.
#[derive(Debug)]
struct RequestHost {
    /// It is text.
    name: HeaderValue,
    /// Whether the Host field says it.
    in_field: bool,
}

/// The host a request is for: the authority of an absolute URI, else the one Host field (RFC 9112, 3.2),
/// which must be one in any case. A client that speaks an older HTTP than 1.1 may name none.
fn host_of(uri: &Uri, headers: &HeaderMap, version: Version) -> Result<RequestHost, &'static str> {
    let apart = |name| RequestHost {
        name,
        in_field: false,
    };
    let is_host = |field: &str| normal_form::is_host(field);
    let mut hosts = headers.get_all(header::HOST).iter();
    let field = match (hosts.next(), hosts.next()) {
        (Some(host), None) if host.to_str().is_ok_and(is_host) => Some(host),
        (Some(_), None) => return Err("the Host field is not a host with or without a port"),
        (Some(_), Some(_)) => return Err("a request has one Host field"),
        (None, _) => None,
    };
    if let Some(authority) = uri.authority() {
        // Without the user information, which a Host field cannot have.
        let host = authority
            .as_str()
            .rsplit_once('@')
            .map_or(authority.as_str(), |(_, host)| host);
        let text = Some(host).filter(|host| is_host(host));
        return text
            .and_then(|host| HeaderValue::from_str(host).ok())
            .map(apart)
            .ok_or("the URI has no host");
    }
    match field {
        Some(host) => Ok(RequestHost {
            name: host.clone(),
            in_field: true,
        }),
        None if version == Version::HTTP_11 => Err("an HTTP/1.1 request needs a Host field"),
        None => Ok(apart(HeaderValue::from_static("localhost"))),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers
        .get(header::CONTENT_LENGTH)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}

/// A request's head, and its body within `limits`.
pub fn body_of(
    front: &Arc<Front>,
    request: Request<Incoming>,
    limits: &LimitsSection,
    in_flight: &InFlight,
) -> (Parts, ClientBody) {
    let (parts, body) = request.into_parts();
    let expects_continue = !body.is_end_stream() && parts.headers.contains_key(header::EXPECT);
    let log = (&front.stats, &front.cuts);
    let body = ClientBody::new(body, limits, expects_continue, log, in_flight);
    (parts, body)
}

fn head_for_upstream(
    mut parts: Parts,
    host: &RequestHost,
    upgrade: Option<HeaderValue>,
    peer: Peer,
    settings: &Settings,
) -> Request<()> {
    if !host.in_field {
        parts.headers.insert(header::HOST, host.name.clone());
    }
    headers::to_upstream(
        &mut parts.headers,
        upgrade,
        peer,
        &settings.forwarded,
        settings.via,
    );
    let path = parts
        .uri
        .path_and_query()
        .cloned()
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    let mut head = Request::new(());
    *head.method_mut() = parts.method;
    *head.uri_mut() = Uri::from(path);
    *head.headers_mut() = parts.headers;
    // hyper keeps there how the names were written, where they keep that.
    *head.extensions_mut() = parts.extensions;
    head
}

/// The upstream's response, which may begin a tunnel to `client`.
fn pass_back(
    front: &Arc<Front>,
    mut upstream: UpstreamResponse,
    client: Option<OnUpgrade>,
    mut in_flight: InFlight,
) -> Result<Response<ResponseBody>, (NotForwarded, InFlight)> {
    match (upstream.response.status(), client) {
        (StatusCode::SWITCHING_PROTOCOLS, Some(client)) => {
            let UpstreamResponse {
                response, ticket, ..
            } = upstream;
            Ok(begin_tunnel(front, response, client, ticket, in_flight))
        }
        (StatusCode::SWITCHING_PROTOCOLS, None) => {
            let why = format!(
                "{} switched protocols without being asked",
                upstream.ticket.backend()
            );
            Err((NotForwarded::BadGateway(why), in_flight))
        }
        (status, _) => {
            upstream.ticket.becomes_request();
            if (upstream.borders.as_ref()).is_some_and(StreamBorders::completes) {
                in_flight.record.settles();
            }
            in_flight.record.answered(status);
            Ok(ResponseBody::proxied(upstream, in_flight))
        }
    }
}

/// Hands both sides of a 101 to a tunnel: no byte passes before the 101.
fn begin_tunnel(
    front: &Arc<Front>,
    mut response: Response<Incoming>,
    client: OnUpgrade,
    ticket: Ticket,
    mut in_flight: InFlight,
) -> Response<ResponseBody> {
    let upstream = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(header::UPGRADE);
    let websocket =
        protocol.is_some_and(|protocol| protocol.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let address = in_flight.address.take();
    let mut record = in_flight.upgraded();
    record.answered(response.status());
    record.settles();
    let tunnel = Tunnel {
        websocket,
        end: ticket.tunnel_end(),
        ticket,
        idle: TunnelIdle::new(front.table().settings.limits.tunnel_idle, &front.cuts),
        stats: Arc::clone(&front.stats),
        record,
        address,
    };
    tokio::spawn(tunnel.run(client, upstream));
    let (parts, _) = response.into_parts();
    Response::from_parts(parts, ResponseBody::local(""))
}
