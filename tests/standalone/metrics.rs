//! The page of metrics, read by Prometheus' own parsers.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::client::{self, block_on, request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::Recorder;
use crate::support::{skip, wait};

/// Reads a page from standard input and prints its samples as JSON.
const PARSE: &str = "
import json, sys
from prometheus_client.parser import text_string_to_metric_families as text
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
parse = {'text': text, 'openmetrics': openmetrics}[sys.argv[1]]
families = list(parse(sys.stdin.read()))
names = [family.name for family in families]
assert len(names) == len(set(names)), names
for family in families:
    assert family.type in ('counter', 'gauge', 'histogram'), family
    assert family.documentation, family
print(json.dumps([[s.name, s.labels, s.value] for f in families for s in f.samples]))
";

/// The Python that has prometheus-client; none where the test is skipped.
fn python() -> Option<&'static str> {
    let has = |python: &&str| {
        let mut command = Command::new(python);
        command.args(["-c", "import prometheus_client.openmetrics.parser"]);
        command.stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    let found = ["python3", "/usr/bin/python3"].into_iter().find(has);
    if found.is_none() {
        skip::because("python3-prometheus-client is not installed");
    }
    found
}

struct Samples(Vec<(String, Value, f64)>);

impl Samples {
    /// Parses the page that is served for this Accept.
    fn read(gateway: &Gateway, python: &str, accept: &str, parser: &str) -> Self {
        let token = std::fs::read_to_string(gateway.state_dir().join("token")).unwrap();
        let text = format!(
            "GET /_gateway/metrics HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {}\r\nAccept: {accept}\r\nConnection: close\r\n\r\n",
            token.trim()
        );
        let answer = block_on(request(&gateway.target(), &text)).unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let kind = answer.head.get("content-type").unwrap();
        let wanted = match parser {
            "text" => "text/plain; version=0.0.4",
            _ => "application/openmetrics-text; version=1.0.0",
        };
        assert!(kind.starts_with(wanted), "{kind}");
        let mut parse = Command::new(python)
            .args(["-c", PARSE, parser])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let page = answer.text();
        parse
            .stdin
            .take()
            .unwrap()
            .write_all(page.as_bytes())
            .unwrap();
        let output = parse.wait_with_output().unwrap();
        assert!(output.status.success(), "{parser} is not valid:\n{page}");
        Self(serde_json::from_slice(&output.stdout).unwrap())
    }

    /// The value of the only sample with this name and these labels among its own.
    fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let fits = |sample: &&(String, Value, f64)| {
            sample.0 == name && labels.iter().all(|(label, text)| sample.1[label] == *text)
        };
        let found: Vec<_> = self.0.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{name} {labels:?}: {found:?}");
        found[0].2
    }
}

#[test]
fn the_parsers_of_prometheus_read_the_page() {
    let Some(python) = python() else { return };
    let (upstream, silent) = (Recorder::ok(), Recorder::answering(|_| Vec::new()));
    let gateway = Setup::new()
        .config(format!(
            "[[route]]\nto = \"http://{}\"\n[[route]]\nhost = \"b.example\"\npath = \"/silent\"\nto = \"http://{}\"\n",
            upstream.addr(),
            silent.addr()
        ))
        .start();
    for path in ["/", "/x", "/y?z"] {
        block_on(client::get(&gateway.target(), path)).unwrap();
    }
    let text = "POST /silent/x HTTP/1.1\r\nHost: b.example\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    assert_eq!(
        block_on(request(&gateway.target(), text)).unwrap().status(),
        502
    );
    let (to, nowhere) = (
        format!("http://{}", upstream.addr()),
        format!("http://{}", silent.addr()),
    );
    let prometheus =
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1";
    for (accept, parser) in [("*/*", "text"), (prometheus, "openmetrics")] {
        let samples = wait::until("all requests are counted", || {
            let samples = Samples::read(&gateway, python, accept, parser);
            let failed = [("sidecar", &*nowhere), ("end", "failed")];
            (samples.get("gateway_route_ends_total", &failed) == 1.0).then_some(samples)
        });
        let labels = [("sidecar", &*to), ("route", "/")];
        let with = |label: (&'static str, &'static str)| [labels[0], labels[1], label];
        assert_eq!(
            samples.get("gateway_route_answers_total", &with(("class", "2xx"))),
            3.0
        );
        assert_eq!(
            samples.get("gateway_route_ends_total", &with(("end", "done"))),
            3.0
        );
        assert_eq!(
            samples.get("gateway_request_duration_seconds_count", &labels),
            3.0
        );
        let bucket = "gateway_request_duration_seconds_bucket";
        assert_eq!(samples.get(bucket, &with(("le", "+Inf"))), 3.0);
        assert!(samples.get("gateway_request_duration_seconds_sum", &labels) > 0.0);
        let failed = [
            ("sidecar", &*nowhere),
            ("route", "b.example/silent"),
            ("class", "5xx"),
        ];
        assert_eq!(samples.get("gateway_route_answers_total", &failed), 1.0);
        assert_eq!(samples.get("gateway_generation", &[]), 1.0);
        assert!(samples.get("gateway_connections_accepted_total", &[]) >= 4.0);
    }
}

#[test]
fn counts_of_a_route_outlive_a_restart_and_clients_add_none() {
    let upstream = Recorder::ok();
    let gateway = Setup::upstream(upstream.addr()).start();
    for number in 0..20 {
        block_on(client::get(&gateway.target(), &format!("/{number}"))).unwrap();
    }
    gateway.restart();
    block_on(client::get(&gateway.target(), "/after")).unwrap();
    let to = format!("http://{}", upstream.addr());
    let name = format!("gateway_route_answers_total{{sidecar=\"{to}\",route=\"/\",class=\"2xx\"}}");
    wait::until("all are counted", || {
        (gateway.metric(&name) == 21).then_some(())
    });
    let page = block_on(client::get(&gateway.target(), "/_gateway/metrics")).unwrap();
    assert_eq!(page.status(), 401, "for the token only");
}
