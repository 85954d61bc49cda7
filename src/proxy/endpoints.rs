//! The gateway's own endpoints: `/healthz`, `/readyz`, `/_gateway/…`, and a page where no backend is
//! configured.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::json;

use super::forwarded::Peer;
use super::local_reply;
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
    let response = match path {
        "/healthz" if ours => health(front, peer),
        "/readyz" if ours => ready(front),
        _ if path == "/_gateway" || path.starts_with("/_gateway/") => {
            // The permissions of its file guard a unix listener.
            if matches!(peer, Peer::Tcp(_)) && !authorised(front, request.headers()) {
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

fn health(front: &Front, peer: Peer) -> Response<ResponseBody> {
    let mut response = local_reply::json(StatusCode::OK, &json!({"ok": true, "status": "live"}));
    if peer == Peer::Watchdog
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
    let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let mut text = MetricsText::default();
    let ready = u64::from(front.health().is_empty());
    let generation = table.generation;
    let connections = now(&stats.connections);
    let accepted = now(&stats.accepted);
    text.gauge(
        "generation",
        "The generation that serves new requests.",
        generation,
    );
    text.gauge("ready", "1 when /readyz answers 200.", ready);
    text.gauge("connections", "Client connections open now.", connections);
    text.counter(
        "connections_total",
        "Client connections accepted.",
        accepted,
    );
    text.gauge(
        "requests",
        "Requests being answered or held now.",
        now(&stats.requests),
    );
    text.gauge("tunnels", "Tunnels open now.", now(&stats.tunnels));
    text.gauge(
        "held",
        "Requests waiting for a sidecar now.",
        now(&stats.held),
    );
    let held = now(&stats.held_total);
    text.counter(
        "held_total",
        "Requests that had to wait for a sidecar.",
        held,
    );
    let retries = now(&stats.retries);
    text.counter(
        "retries_total",
        "Tries repeated on another upstream connection.",
        retries,
    );
    text.answers(&stats.answers);
    let mut response = local_reply::text(StatusCode::OK, "");
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4"),
    );
    response.map(|_| ResponseBody::local(text.0))
}

/// Metrics in the text format of Prometheus, version 0.0.4.
#[derive(Default)]
struct MetricsText(String);

impl MetricsText {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.metric("gauge", name, help, value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.metric("counter", name, help, value);
    }

    fn metric(&mut self, kind: &str, name: &str, help: &str, value: u64) {
        // Writing to a String cannot fail.
        let _ = write!(
            self.0,
            "# HELP gateway_{name} {help}\n# TYPE gateway_{name} {kind}\ngateway_{name} {value}\n"
        );
    }

    fn answers(&mut self, classes: &[AtomicU64; 5]) {
        self.0
            .push_str("# HELP gateway_answers_total Answers by class of status.\n");
        self.0.push_str("# TYPE gateway_answers_total counter\n");
        for (class, count) in (1..).zip(classes) {
            let count = count.load(Ordering::Relaxed);
            let _ = writeln!(
                self.0,
                "gateway_answers_total{{class=\"{class}xx\"}} {count}"
            );
        }
    }
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
