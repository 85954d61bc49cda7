//! The page `/_gateway/metrics`, in the text format of Prometheus or, for those who ask for it, of
//! OpenMetrics 1.0.

use std::fmt::{Display, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::header::{self, HeaderMap};
use http::{Response, StatusCode};

use super::response_body::ResponseBody;
use super::route_stats::RouteStats;
use super::sidecar_gauges::{SidecarGauges, Usage};
use super::{Front, RoutingTable, local_reply};
use crate::text::words::Words;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    OpenMetrics,
}

impl Format {
    /// The format for who sends these headers: Prometheus lists OpenMetrics first, and text/plain with
    /// a lower quality.
    fn of(headers: &HeaderMap) -> Self {
        let accept = headers.get(header::ACCEPT);
        let accept = accept.and_then(|accept| accept.to_str().ok()).unwrap_or("");
        match accept.contains("application/openmetrics-text") {
            true => Self::OpenMetrics,
            false => Self::Text,
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page under construction. Writing to a String cannot fail.
struct Page {
    format: Format,
    text: String,
}

impl Page {
    /// Begins a family of metrics. A counter's name has no `_total` here.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let suffix = match (self.format, kind) {
            (Format::Text, "counter") => "_total",
            _ => "",
        };
        let _ = writeln!(self.text, "# HELP gateway_{name}{suffix} {help}");
        let _ = writeln!(self.text, "# TYPE gateway_{name}{suffix} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let _ = write!(self.text, "gateway_{name}");
        for (index, (label, text)) in labels.iter().enumerate() {
            let mark = if index == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{mark}{label}=\"{}\"", escaped(text));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{end} {value}");
    }

    fn of_route(
        &mut self,
        name: &str,
        route: &RouteStats,
        more: Option<(&str, &str)>,
        value: impl Display,
    ) {
        let labels = [("sidecar", &*route.sidecar), ("route", &*route.route)];
        match more {
            Some(more) => self.sample(name, &[labels[0], labels[1], more], value),
            None => self.sample(name, &labels, value),
        }
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    fn counter(&mut self, name: &str, help: &str, value: &AtomicU64) {
        self.family(name, "counter", help);
        let value = value.load(Ordering::Relaxed);
        self.sample(&format!("{name}_total"), &[], value);
    }

    /// A counter with one label.
    fn counters<'a>(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        counts: impl Iterator<Item = (std::borrow::Cow<'a, str>, u64)>,
    ) {
        self.family(name, "counter", help);
        for (text, count) in counts {
            self.sample(&format!("{name}_total"), &[(label, &text)], count);
        }
    }
}

/// The text of a label, as both formats want it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// The page.
pub fn page(
    front: &Front,
    table: &RoutingTable,
    headers: &HeaderMap,
    sidecars: &[(SidecarGauges, Usage)],
) -> Response<ResponseBody> {
    let format = Format::of(headers);
    let mut page = Page {
        format,
        text: String::new(),
    };
    process(&mut page, front, table);
    routes(&mut page, table);
    self::sidecars(&mut page, sidecars);
    if format == Format::OpenMetrics {
        page.text.push_str("# EOF\n");
    }
    local_reply::typed(StatusCode::OK, format.content_type(), page.text)
}

/// What concerns the front door as a whole.
fn process(page: &mut Page, front: &Front, table: &RoutingTable) {
    let stats = &front.stats;
    let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    for (name, help, value) in [
        (
            "generation",
            "The generation that serves new requests.",
            table.generation,
        ),
        (
            "ready",
            "1 when /readyz answers 200.",
            u64::from(front.health().is_empty()),
        ),
        (
            "connections",
            "Client connections open now.",
            now(&stats.connections),
        ),
        (
            "requests",
            "Requests being answered or held now.",
            now(&stats.requests),
        ),
        ("tunnels", "Tunnels open now.", now(&stats.tunnels)),
        (
            "control_subscribers",
            "Control connections that follow events now.",
            now(&front.control.counters.subscribers),
        ),
        (
            "control_websockets",
            "Control connections over WebSocket open now.",
            now(&front.control.counters.websockets),
        ),
        (
            "held",
            "Requests waiting for a sidecar now.",
            now(&stats.held),
        ),
    ] {
        page.gauge(name, help, value);
    }
    for (name, help, value) in [
        (
            "connections_accepted",
            "Client connections accepted.",
            &stats.accepted,
        ),
        (
            "requests_held",
            "Requests that had to wait for a sidecar.",
            &stats.held_total,
        ),
        (
            "retries",
            "Requests sent once more, on another upstream connection.",
            &stats.retries,
        ),
        (
            "clients_gone",
            "Clients that left before the end of their answer.",
            &stats.left,
        ),
        (
            "clients_crowded",
            "Clients answered 503 because limits.connections were open.",
            &stats.crowded,
        ),
        (
            "clients_displaced",
            "Silent clients disconnected to make room for others.",
            &stats.displaced,
        ),
        (
            "control_dropped",
            "Control connections ended because nothing was read.",
            &front.control.counters.dropped,
        ),
        (
            "access_log_lost",
            "Lines of the access log that could not be written in time, or at all.",
            &front.access_log.lost,
        ),
    ] {
        page.counter(name, help, value);
    }
    let answers = (1..).zip(&stats.answers);
    let answers = answers.map(|(class, count)| (format!("{class}xx").into(), now(count)));
    page.counters("answers", "Answers by class of status.", "class", answers);
    let refused = stats.refusals();
    let refused = refused.map(|(status, count)| (status.as_str().to_owned().into(), count));
    let help = "Requests refused for what they are, by status.";
    page.counters("refused", help, "status", refused);
    let refused = front.control.counters.refusals();
    let refused = refused.map(|(what, count)| (what.word().into(), count));
    let help = "What was refused on control connections, or ended them.";
    page.counters("control_refused", help, "reason", refused);
    let limited = stats.limited_total();
    let limited = limited.map(|(what, count)| (what.key().into(), count));
    let help = "Clients turned away because their address has too much open, by key of [limits].";
    page.counters("limited", help, "limit", limited);
    let reached = stats.limits_reached();
    let reached = reached.map(|(limit, count)| (limit.key().into(), count));
    let help = "Requests and answers that made no progress, by key of [limits].";
    page.counters("timeouts", help, "limit", reached);
}

/// A value of a sidecar.
type GaugeOf = fn(&SidecarGauges) -> u64;

/// What concerns each sidecar. A copy begins its counts at 0.
fn sidecars(page: &mut Page, all: &[(SidecarGauges, Usage)]) {
    let gauges: [(&str, &str, GaugeOf); 3] = [
        (
            "sidecar_ready",
            "1 when requests can be sent to the sidecar.",
            |one| one.ready.into(),
        ),
        (
            "sidecar_failing",
            "1 when the sidecar ends again and again.",
            |one| one.failing.into(),
        ),
        (
            "sidecar_generation",
            "The generation for which the sidecar was started or restarted last.",
            |one| one.generation,
        ),
    ];
    for (name, help, value) in gauges {
        page.family(name, "gauge", help);
        for (one, _) in all {
            page.sample(name, &[("sidecar", &one.name)], value(one));
        }
    }
    let help = "How often this copy of the sidecar was started again because it had ended.";
    page.family("sidecar_restarts", "counter", help);
    for (one, _) in all {
        let labels = [("sidecar", &*one.name)];
        page.sample("sidecar_restarts_total", &labels, one.restarts);
    }
    let help = "Resident memory of the processes of the sidecar; what they share counts for each.";
    page.family("sidecar_memory_bytes", "gauge", help);
    for (one, usage) in all {
        if let Some(memory) = usage.memory_bytes {
            page.sample("sidecar_memory_bytes", &[("sidecar", &one.name)], memory);
        }
    }
    let help = "Processor time that the processes of the sidecar have used, and children that they reaped.";
    page.family("sidecar_cpu_seconds", "counter", help);
    for (one, usage) in all {
        if let Some(millis) = usage.cpu_ms {
            let seconds = Duration::from_millis(millis).as_secs_f64();
            page.sample(
                "sidecar_cpu_seconds_total",
                &[("sidecar", &one.name)],
                seconds,
            );
        }
    }
}

/// What concerns each route.
fn routes(page: &mut Page, table: &RoutingTable) {
    let all: Vec<&RouteStats> = table.routes.stats().collect();
    let help = "Answers by route and class of status.";
    page.family("route_answers", "counter", help);
    for route in &all {
        for (class, count) in route.answers() {
            let class = format!("{class}xx");
            page.of_route("route_answers_total", route, Some(("class", &class)), count);
        }
    }
    let help = "How requests ended, by route; see gateway-logs(7).";
    page.family("route_ends", "counter", help);
    for route in &all {
        for (end, count) in route.ends() {
            page.of_route("route_ends_total", route, Some(("end", end.word())), count);
        }
    }
    let help = "Requests sent once more, by route.";
    page.family("route_retries", "counter", help);
    for route in &all {
        page.of_route("route_retries_total", route, None, route.retries());
    }
    let help = "Seconds from the head of a request to the end of its answer, by route; tunnels are left out.";
    page.family("request_duration_seconds", "histogram", help);
    for route in &all {
        let durations = route.durations();
        let buckets = durations.buckets.iter();
        let bounds = buckets.map(|(bound, count)| (format!("{bound:?}"), *count));
        let bucket = "request_duration_seconds_bucket";
        for (bound, count) in bounds.chain([("+Inf".to_owned(), durations.count)]) {
            page.of_route(bucket, route, Some(("le", &bound)), count);
        }
        let (sum, count) = (durations.seconds, durations.count);
        page.of_route("request_duration_seconds_sum", route, None, sum);
        page.of_route("request_duration_seconds_count", route, None, count);
    }
}
