//! The gateway's own endpoints: `/healthz`, `/readyz`, `/_gateway/…`, and a page where no backend is
//! configured.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::local_reply;
use super::response_body::ResponseBody;
use super::{ClientInfo, Front, RoutingTable};

/// The header by which the watchdog recognises a response of this very process.
pub const IDENTITY: &str = "x-gateway-identity";

/// The gateway's response, where the request is for the gateway itself.
pub fn respond(
    front: &Arc<Front>,
    table: &RoutingTable,
    client: &ClientInfo,
    request: &Request<Incoming>,
) -> Option<Response<ResponseBody>> {
    let path = request.uri().path();
    let ours = client.internal || table.settings.health_paths;
    let response = match path {
        "/healthz" if ours => health(front, client),
        "/readyz" if ours => ready(front),
        _ if path == "/_gateway" || path.starts_with("/_gateway/") => {
            if !client.unix && !authorised(front, request.headers()) {
                let mut response = local_reply::text(
                    StatusCode::UNAUTHORIZED,
                    "gateway: this page needs the bearer token of the state directory",
                );
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                return Some(response);
            }
            match path {
                "/_gateway/metrics" => metrics(front, table),
                "/_gateway" | "/_gateway/" => page(front, table),
                _ => local_reply::text(
                    StatusCode::NOT_FOUND,
                    "gateway: no such page; there is /_gateway/ and /_gateway/metrics",
                ),
            }
        }
        _ if request.method() == Method::CONNECT => local_reply::text(
            StatusCode::METHOD_NOT_ALLOWED,
            "gateway: CONNECT is for forward proxies",
        ),
        _ => return None,
    };
    Some(response)
}

fn health(front: &Front, client: &ClientInfo) -> Response<ResponseBody> {
    let mut response = local_reply::json(StatusCode::OK, &json!({"ok": true, "status": "live"}));
    if client.internal
        && let Ok(identity) = HeaderValue::from_str(&front.identity)
    {
        response.headers_mut().insert(IDENTITY, identity);
    }
    response
}

fn ready(front: &Front) -> Response<ResponseBody> {
    let health = front.health();
    if health.is_empty() {
        return match front.remark() {
            Some(remark) => local_reply::json(
                StatusCode::OK,
                &json!({"ready": true, "degraded": [*remark]}),
            ),
            None => local_reply::json(StatusCode::OK, &json!({"ready": true})),
        };
    }
    let mut response = match front.refusal() {
        Some(refusal) => local_reply::refused(&refusal),
        None => local_reply::unavailable(""),
    };
    let (parts, _) = local_reply::json(StatusCode::SERVICE_UNAVAILABLE, &json!({})).into_parts();
    response.headers_mut().extend(parts.headers);
    response
        .map(|_| ResponseBody::local(format!("{}\n", json!({"ready": false, "reasons": *health}))))
}

pub fn page(front: &Front, table: &RoutingTable) -> Response<ResponseBody> {
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
            "next": if table.routes.is_empty() { "nothing is behind this gateway yet: gateway run -- COMMAND --port {port}" } else { "" },
        }),
    )
}

fn metrics(front: &Front, table: &RoutingTable) -> Response<ResponseBody> {
    let stats = &front.stats;
    let mut text = String::new();
    let mut line = |name: &str, kind: &str, help: &str, value: u64| {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "# HELP gateway_{name} {help}\n# TYPE gateway_{name} {kind}\ngateway_{name} {value}\n"
        );
    };
    let now = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    line(
        "generation",
        "gauge",
        "The generation that serves new requests.",
        table.generation,
    );
    line(
        "ready",
        "gauge",
        "1 when /readyz answers 200.",
        u64::from(front.health().is_empty()),
    );
    line(
        "connections",
        "gauge",
        "Client connections open now.",
        now(&stats.connections),
    );
    line(
        "connections_total",
        "counter",
        "Client connections accepted.",
        now(&stats.accepted),
    );
    line(
        "requests",
        "gauge",
        "Requests being answered or held now.",
        now(&stats.requests),
    );
    line("tunnels", "gauge", "Tunnels open now.", now(&stats.tunnels));
    line(
        "held",
        "gauge",
        "Requests waiting for a sidecar now.",
        now(&stats.held),
    );
    line(
        "held_total",
        "counter",
        "Requests that had to wait for a sidecar.",
        now(&stats.held_total),
    );
    line(
        "retries_total",
        "counter",
        "Tries repeated on another upstream connection.",
        now(&stats.retries),
    );
    text.push_str("# HELP gateway_answers_total Answers by class of status.\n# TYPE gateway_answers_total counter\n");
    for (class, count) in stats.answers.iter().enumerate() {
        let _ = writeln!(
            text,
            "gateway_answers_total{{class=\"{}xx\"}} {}",
            class + 1,
            now(count)
        );
    }
    let mut response = local_reply::text(StatusCode::OK, "");
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    response.map(|_| ResponseBody::local(text))
}

fn authorised(front: &Front, headers: &HeaderMap) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    match (front.token(), given) {
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
