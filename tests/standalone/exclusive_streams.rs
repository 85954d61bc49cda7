//! Restarts of a server that can run only once, while clients have answers of it that never end: the
//! others wait no longer for that than the hold allows.

use std::thread::JoinHandle;
use std::time::Duration;

use crate::support::client::{self, Conn, Fault, Framing, Target, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::servers;

/// The fade takes half of the drain; without an end of its own, a stream would hold the others for the
/// other half, which is longer than they wait.
const DRAIN: &str = "40s";
const HOLD: &str = "19s";

/// How long a client may wait, the start of a server on a busy machine included.
const PATIENCE: Duration = Duration::from_secs(90);

/// The bytes of a chunk of streams.py's /export.
const CHUNK: usize = 100_000;

fn exclusive(command: Vec<String>, hold: &str) -> Gateway {
    Setup::new()
        .flag("--exclusive")
        .config(format!("[restart]\ndrain = \"{DRAIN}\"\ntunnel_drain = \"1s\"\nhold = {{ time = \"{hold}\" }}\n"))
        .command(command)
        .start()
}

fn load(gateway: &Gateway) -> Load {
    Load {
        new_per_second: 20.0,
        kept: 4,
        patience: PATIENCE,
        ..Load::on(gateway.target())
    }
}

/// The text of a stream whose answer came whole, read to its end.
fn whole_stream(target: Target, path: &'static str) -> JoinHandle<Result<String, Fault>> {
    std::thread::spawn(move || {
        let text = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        let answer = block_on(client::within(PATIENCE, async {
            Conn::open(&target).await?.exchange(text).await
        }))?;
        Ok(answer.text())
    })
}

/// What came of a stream until it broke off, and how it did.
fn broken_stream(target: Target, path: &'static str) -> JoinHandle<(Vec<u8>, Fault)> {
    std::thread::spawn(move || {
        block_on(async {
            let mut conn = Conn::open(&target).await.unwrap();
            let text = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
            conn.send(text).await.unwrap();
            let head = conn.head().await.unwrap();
            assert_eq!(head.framing(false), Framing::Chunked);
            let mut body = Vec::new();
            let reading = conn.body_into(Framing::Chunked, |data| body.extend_from_slice(data));
            let fault = reading.await.expect_err("the stream was not complete");
            (body, fault)
        })
    })
}

/// Whole events and nothing else, of the number that streams.py and node-app.mjs count.
fn assert_whole_events(text: &str) {
    assert!(text.ends_with("\n\n"), "it ends within an event: {text:?}");
    for (number, event) in text.trim_end().split("\n\n").enumerate() {
        let begin = format!("id: {number}\ndata: event {number}");
        assert!(event.starts_with(&begin), "{event:?} instead of {begin:?}");
    }
}

fn named(output: &std::process::Output, gateway: &Gateway, lines: &[&str]) {
    let log = gateway.wait_line("is replaced; ended ");
    let history = said(&gateway.ctl(["history"]));
    let status = said(&gateway.ctl(["status"]));
    for line in lines {
        for (place, text) in [
            ("verdict", &said(output)),
            ("log", &log),
            ("history", &history),
            ("status", &status),
        ] {
            assert!(text.contains(line), "{line} is not in the {place}: {text}");
        }
    }
    let all = [said(output), log, history, status].concat();
    assert!(!all.contains("secret"), "queries are not shown: {all}");
}

#[test]
fn an_exclusive_restart_ends_an_event_stream_after_a_whole_event_and_nobody_fails() {
    if !servers::have("node") {
        return;
    }
    let gateway = exclusive(servers::node(), HOLD);
    let events = whole_stream(gateway.target(), "/events?token=secret");
    gateway.wait_status("the stream is open", |status| status["requests"] == 1);
    let load = load(&gateway).start();
    load.flows(Part::New, 20);
    let output = gateway.restart();
    load.flows(Part::New, 20);
    load.stop()
        .assert_clean(&[(Part::New, 100), (Part::Busy, 10)]);
    assert_whole_events(&events.join().unwrap().unwrap());
    named(&output, &gateway, &["GET /events for "]);
    assert_eq!(
        gateway.metric("gateway_route_ends_total{sidecar=\"main\",route=\"/\",end=\"ended\"}"),
        1
    );
}

#[test]
fn an_exclusive_restart_breaks_off_an_endless_download_after_a_chunk_and_nobody_else_fails() {
    if !servers::have("python3") {
        return;
    }
    let gateway = exclusive(servers::python_streams(), HOLD);
    let target = gateway.target();
    let export = broken_stream(target.clone(), "/export?token=secret");
    let events = whole_stream(target.clone(), "/events");
    gateway.wait_status("both streams are open", |status| status["requests"] == 2);
    let load = load(&gateway).start();
    load.flows(Part::New, 20);
    let output = gateway.ctl(["restart"]);
    // The download is the one that failed.
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let counted = "1 request failed (1 broken off)";
    assert!(said(&output).contains(counted), "{}", said(&output));
    assert!(
        said(&output).contains("1 stream ended"),
        "{}",
        said(&output)
    );
    load.flows(Part::New, 20);
    load.stop()
        .assert_clean(&[(Part::New, 100), (Part::Busy, 10)]);
    let (body, fault) = export.join().unwrap();
    assert!(
        matches!(fault, Fault::Truncated | Fault::Eof),
        "a client sees that the download is not complete: {fault:?}"
    );
    assert!(
        !body.is_empty() && body.len() % CHUNK == 0,
        "{} bytes are no whole chunks",
        body.len()
    );
    assert_whole_events(&events.join().unwrap().unwrap());
    named(&output, &gateway, &["GET /export for ", "GET /events for "]);
}

#[test]
fn who_waits_for_an_answer_when_the_hold_begins_has_half_of_its_time() {
    if !servers::have("python3") {
        return;
    }
    let gateway = exclusive(servers::python_streams(), "36s");
    // Longer than `tunnel_drain` after the hold has begun, and shorter than the time of the hold.
    let ask = |method: &'static str, path: &'static str| {
        let target = gateway.target();
        std::thread::spawn(move || {
            let text =
                format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
            block_on(client::within(PATIENCE, async {
                Conn::open(&target).await?.exchange(text).await
            }))
        })
    };
    let begun = ask("POST", "/slow?24");
    gateway.wait_status("it is under way", |status| status["requests"] == 1);
    let old = gateway.sidecar_pid("main");
    let load = load(&gateway).start();
    let restart = gateway.ctl_aside(["restart"]);
    let endless = ask("POST", "/slow?600");
    load.flows(Part::New, 20);
    let output = restart.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let counted = "1 request failed (1 502)";
    assert!(said(&output).contains(counted), "{}", said(&output));
    load.flows(Part::New, 20);
    load.stop()
        .assert_clean(&[(Part::New, 100), (Part::Busy, 10)]);
    assert_eq!(begun.join().unwrap().unwrap().text(), format!("{old}\n"));
    assert_eq!(endless.join().unwrap().unwrap().status(), 502);
    assert!(
        said(&output).contains("cut: POST /slow for "),
        "{}",
        said(&output)
    );
}
