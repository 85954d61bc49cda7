//! The gateway's own endpoints: `/healthz`, `/readyz`, `/_gateway/…`, and a word of welcome where no
//! backend is configured.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::{Body, Incoming};
use serde_json::json;

use super::forwarded::Peer;
use super::local_reply::{self, Form, Reason};
use super::response_body::ResponseBody;
use super::sidecar_gauges::{METRICS, SidecarGauges, Usage};
use super::{Front, RoutingTable, metrics};
use crate::control::access::TokenGrant;

/// The header by which the watchdog recognises a response of this very process.
pub const IDENTITY: &str = "x-gateway-identity";

/// The gateway's response, where the request is for the gateway itself. The metrics tell of these
/// `sidecars`.
pub fn respond(
    front: &Arc<Front>,
    table: &RoutingTable,
    peer: Peer,
    request: &Request<Incoming>,
    sidecars: &[(SidecarGauges, Usage)],
) -> Option<Response<ResponseBody>> {
    let path = request.uri().path();
    let ours = peer == Peer::Watchdog || table.settings.health_paths;
    let form = || Form::of(request.headers());
    let authorised = || access(front, request.headers()).is_some();
    let response = match path {
        "/healthz" if ours => health(front, peer),
        "/readyz" if ours => ready(front, authorised()),
        "/_gateway/healthz" => health(front, peer),
        "/_gateway/readyz" => ready(front, authorised()),
        _ if path == "/_gateway" || path.starts_with("/_gateway/") => {
            if !authorised() {
                return Some(without_token(form()));
            }
            match path {
                METRICS => metrics::page(front, table, request.headers(), sidecars),
                "/_gateway" | "/_gateway/" => page(front, table),
                _ => local_reply::failure(
                    StatusCode::NOT_FOUND,
                    "no such page; there is /_gateway/, /_gateway/metrics and /_gateway/ws",
                    form(),
                ),
            }
        }
        _ if request.method() == Method::CONNECT => {
            let reply = local_reply::failure(
                StatusCode::METHOD_NOT_ALLOWED,
                "CONNECT is for forward proxies",
                form(),
            );
            // Such a request has no body (RFC 9110, 9.3.6). Where it has one, another server could read
            // a request in it.
            match request.body().is_end_stream() {
                true => reply,
                false => local_reply::closing(reply),
            }
        }
        _ => return None,
    };
    Some(response)
}

fn health(front: &Front, peer: Peer) -> Response<ResponseBody> {
    let mut response = local_reply::json(StatusCode::OK, &json!({"ok": true, "status": "live"}));
    if peer == Peer::Watchdog
        && let Ok(identity) = HeaderValue::from_str(&front.identity)
    {
        response.headers_mut().insert(IDENTITY, identity);
    }
    response
}

/// Everybody is told in a word how things stand, and who has the token, in full.
fn ready(front: &Front, in_full: bool) -> Response<ResponseBody> {
    let told = |reasons: &[Reason]| -> Vec<String> {
        let mut told: Vec<String> = (reasons.iter())
            .map(|reason| match in_full {
                true => reason.why.clone(),
                false => reason.word.to_owned(),
            })
            .collect();
        told.dedup();
        told
    };
    let health = front.health();
    if health.is_empty() {
        let word = "a server does not answer";
        let stalled = front.stalled().into_iter();
        let mut degraded: Vec<Reason> = stalled.map(|why| Reason { word, why }).collect();
        degraded.extend(front.remark().map(|remark| (*remark).clone()));
        let body = match degraded.is_empty() {
            false => json!({"ready": true, "degraded": told(&degraded)}),
            true => json!({"ready": true}),
        };
        return local_reply::json(StatusCode::OK, &body);
    }
    let mut response = local_reply::json(
        StatusCode::SERVICE_UNAVAILABLE,
        &json!({"ready": false, "reasons": told(&health)}),
    );
    local_reply::set_retry_after(&mut response, front.refusal().as_deref());
    response
}

/// What everybody sees where nothing is behind the gateway.
pub fn welcome(form: Form) -> Response<ResponseBody> {
    let text = "the front door is open, and nothing is behind it yet";
    local_reply::message(StatusCode::OK, text, form)
}

fn page(front: &Front, table: &RoutingTable) -> Response<ResponseBody> {
    let stats = &front.stats;
    local_reply::json(
        StatusCode::OK,
        &json!({
            "gateway": env!("CARGO_PKG_VERSION"),
            "instance": front.instance,
            "generation": table.generation,
            "ready": front.health().is_empty(),
            "uptimeMs": front.started.elapsed().as_millis() as u64,
            "connections": stats.connections.load(Ordering::Relaxed),
        }),
    )
}

/// What the token opens that a client has given.
pub fn access(front: &Front, headers: &HeaderMap) -> Option<TokenGrant> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))?;
    let bearer = scheme.eq_ignore_ascii_case("bearer");
    bearer.then(|| front.control.access(token.trim())).flatten()
}

/// The reply to who has none.
pub fn without_token(form: Form) -> Response<ResponseBody> {
    let why = "this page needs the gateway's bearer token";
    let mut response = local_reply::failure(StatusCode::UNAUTHORIZED, why, form);
    let headers = response.headers_mut();
    headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}
