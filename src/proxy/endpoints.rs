//! The gateway's own endpoints: `/healthz`, `/readyz`, `/_gateway/…`, and a word of welcome where no
//! backend is configured.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::forwarded::Peer;
use super::local_reply::{self, Form, Reason};
use super::response_body::ResponseBody;
use super::{Front, RoutingTable};

/// The header by which the watchdog recognises a response of this very process.
pub const IDENTITY: &str = "x-gateway-identity";

/// The gateway's response, where the request is for the gateway itself.
pub fn respond(
    front: &Arc<Front>,
    table: &RoutingTable,
    peer: Peer,
    request: &Request<Incoming>,
) -> Option<Response<ResponseBody>> {
    let path = request.uri().path();
    let ours = peer == Peer::Watchdog || table.settings.health_paths;
    let form = || Form::of(request.headers());
    let authorised = || authorised(front, request.headers());
    let response = match path {
        "/healthz" if ours => health(front, peer),
        "/readyz" if ours => ready(front, authorised()),
        "/_gateway/healthz" => health(front, peer),
        "/_gateway/readyz" => ready(front, authorised()),
        _ if path == "/_gateway" || path.starts_with("/_gateway/") => {
            if !authorised() {
                let mut response = local_reply::failure(
                    StatusCode::UNAUTHORIZED,
                    "this page needs the gateway's bearer token",
                    form(),
                );
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return Some(response);
            }
            match path {
                "/_gateway/metrics" => metrics(front, table),
                "/_gateway" | "/_gateway/" => page(front, table),
                _ => local_reply::failure(
                    StatusCode::NOT_FOUND,
                    "no such page; there is /_gateway/ and /_gateway/metrics",
                    form(),
                ),
            }
        }
        _ if request.method() == Method::CONNECT => local_reply::failure(
            StatusCode::METHOD_NOT_ALLOWED,
            "CONNECT is for forward proxies",
            form(),
        ),
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

fn metrics(front: &Front, table: &RoutingTable) -> Response<ResponseBody> {
    let stats = &front.stats;
    let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = format!(
        "\
# HELP gateway_generation The generation that serves new requests.
# TYPE gateway_generation gauge
gateway_generation {generation}
# HELP gateway_ready 1 when /readyz answers 200.
# TYPE gateway_ready gauge
gateway_ready {ready}
# HELP gateway_connections Client connections open now.
# TYPE gateway_connections gauge
gateway_connections {connections}
# HELP gateway_connections_total Client connections accepted.
# TYPE gateway_connections_total counter
gateway_connections_total {accepted}
# HELP gateway_requests Requests being answered or held now.
# TYPE gateway_requests gauge
gateway_requests {requests}
# HELP gateway_tunnels Tunnels open now.
# TYPE gateway_tunnels gauge
gateway_tunnels {tunnels}
# HELP gateway_held Requests waiting for a sidecar now.
# TYPE gateway_held gauge
gateway_held {held}
# HELP gateway_held_total Requests that had to wait for a sidecar.
# TYPE gateway_held_total counter
gateway_held_total {held_total}
# HELP gateway_retries_total Requests sent once more, on another upstream connection.
# TYPE gateway_retries_total counter
gateway_retries_total {retries}
# HELP gateway_clients_gone_total Clients that left before the end of their answer.
# TYPE gateway_clients_gone_total counter
gateway_clients_gone_total {left}
# HELP gateway_clients_crowded_total Clients answered 503 because limits.connections were open.
# TYPE gateway_clients_crowded_total counter
gateway_clients_crowded_total {crowded}
# HELP gateway_clients_displaced_total Silent clients disconnected to make room for others.
# TYPE gateway_clients_displaced_total counter
gateway_clients_displaced_total {displaced}
# HELP gateway_access_log_lost_total Lines of the access log that could not be written in time, or at all.
# TYPE gateway_access_log_lost_total counter
gateway_access_log_lost_total {lost}
# HELP gateway_answers_total Answers by class of status.
# TYPE gateway_answers_total counter
",
        generation = table.generation,
        ready = u64::from(front.health().is_empty()),
        connections = now(&stats.connections),
        accepted = now(&stats.accepted),
        requests = now(&stats.requests),
        tunnels = now(&stats.tunnels),
        held = now(&stats.held),
        held_total = now(&stats.held_total),
        retries = now(&stats.retries),
        left = now(&stats.left),
        crowded = now(&stats.crowded),
        displaced = now(&stats.displaced),
        lost = front.access_log.lost(),
    );
    for (class, answers) in (1..).zip(&stats.answers) {
        let answers = now(answers);
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "gateway_answers_total{{class=\"{class}xx\"}} {answers}"
        );
    }
    text.push_str(
        "\
# HELP gateway_refused_total Requests refused for what they are, by status.
# TYPE gateway_refused_total counter
",
    );
    for (status, count) in stats.refusals() {
        let status = status.as_u16();
        let _ = writeln!(text, "gateway_refused_total{{status=\"{status}\"}} {count}");
    }
    text.push_str(
        "\
# HELP gateway_timeouts_total Requests and answers that made no progress, by key of [limits].
# TYPE gateway_timeouts_total counter
",
    );
    for (limit, count) in stats.limits_reached() {
        let key = limit.key();
        let _ = writeln!(text, "gateway_timeouts_total{{limit=\"{key}\"}} {count}");
    }
    text.push_str(
        "\
# HELP gateway_limited_total Clients turned away because their address has too much open, by key of [limits].
# TYPE gateway_limited_total counter
",
    );
    for (what, count) in stats.limited_total() {
        let key = what.key();
        let _ = writeln!(text, "gateway_limited_total{{limit=\"{key}\"}} {count}");
    }
    local_reply::typed(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn authorised(front: &Front, headers: &HeaderMap) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
        .map(|(_, token)| token);
    match (front.token.get(), given) {
        (Some(token), Some(given)) => same(token.as_bytes(), given.trim().as_bytes()),
        _ => false,
    }
}

/// Compares in constant time.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
}
