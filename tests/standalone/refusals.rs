//! What is refused: with a body, a line in the log and a count, and nothing that nginx lets through.

use crate::support::client::{Conn, Response, block_on, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{Recorder, Upstream, receive};
use crate::support::wait::{self, DEADLINE};

/// Sends these bytes, and reads one answer and whatever comes before the end of the connection.
fn send(gateway: &Gateway, bytes: &[u8]) -> (Response, usize) {
    let exchange = within(DEADLINE, async {
        let mut conn = Conn::open(&gateway.target()).await?;
        conn.send(bytes).await?;
        let answer = conn.response(bytes.starts_with(b"HEAD ")).await?;
        let (rest, _) = conn.drain().await;
        Ok((answer, rest.len()))
    });
    block_on(exchange).unwrap_or_else(|fault| panic!("{fault} after {:?}", text(bytes)))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(200).collect()
}

#[test]
fn what_is_refused_gets_a_body_a_line_and_a_count() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nheader_size = 16384")
        .start();
    let long = "a".repeat(20_000);
    let many = "X:1\r\n".repeat(1001);
    let many = format!("GET /many HTTP/1.1\r\nHost: h\r\n{many}\r\n");
    let about = "Connection: x\r\n".repeat(200);
    let about = format!("GET /about HTTP/1.1\r\nHost: h\r\n{about}\r\n");
    let wide = format!("GET /long HTTP/1.1\r\nHost: h\r\nX: {long}\r\n\r\n");
    let begun = format!("GET /{long}");
    let tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 \xff\n\x01";
    let rows: &[(&[u8], u16, &str)] = &[
        (many.as_bytes(), 431, "more header lines than limits.headers allows"),
        (about.as_bytes(), 431, "too many header lines about its connection and its body"),
        (wide.as_bytes(), 431, "limits.header_size allows"),
        (begun.as_bytes(), 431, "limits.header_size allows"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505, "this is HTTP/2, and HTTP/1.1 is spoken here"),
        (b"GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505, "HTTP/1.1 and HTTP/1.0 are spoken here"),
        (tls, 400, "this looks like TLS, and HTTP without it is spoken here"),
        (b"GET /\r\n", 400, "first line is not one of HTTP/1.1"),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400, "first line"),
        (b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400, "target is not valid"),
        (b"GET /secret?token=hush HTTP/1.1\r\nHost : h\r\n\r\n", 400, "no valid name"),
        (b"GET / HTTP/1.1\r\nHost: h\r\nX: a\x00b\r\n\r\n", 400, "a character that is not allowed"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501, "no transfer coding but chunked"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: smuggled\r\n\r\n", 400, "not both"),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400, "Content-Length is not valid"),
        (b"POST /chunks HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nnot a size\r\n", 400, "not what its coding says"),
    ];
    for &(bytes, status, why) in rows {
        let (answer, more) = send(&gateway, bytes);
        let what = text(bytes);
        assert_eq!((answer.status(), more), (status, 0), "{what}");
        let body = answer.text();
        assert!(
            body.starts_with("gateway: ") && body.contains(why),
            "{what}: {body}"
        );
        assert!(answer.head.has_token("connection", "close"), "{what}");
    }
    assert!(recorder.seen().is_empty(), "{:?}", recorder.seen());
    let refused = |status| gateway.metric(&format!("gateway_refused_total{{status=\"{status}\"}}"));
    assert_eq!([400, 431, 501, 505].map(refused), [9, 4, 1, 2]);
    assert_eq!(gateway.metric("gateway_answers_total{class=\"4xx\"}"), 13);
    assert_eq!(gateway.metric("gateway_answers_total{class=\"5xx\"}"), 3);
    gateway.wait_line("refused with 431: the request has more header lines than limits.headers allows: GET /many HTTP/1.1");
    assert!(!gateway.stderr().contains("hush"));
}

#[test]
fn a_thousand_header_lines_pass_both_ways() {
    let lines =
        |count: usize| -> String { (0..count).map(|n| format!("X-{n}: {n}\r\n")).collect() };
    let upstream = Upstream::serve(move |mut conn| async move {
        while let Ok(got) = receive(&mut conn).await {
            let count: usize = got.target()[1..].parse().unwrap();
            assert_eq!(got.head.headers.len(), 1000, "of the request");
            let fields = lines(count - 1);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{fields}\r\n");
            let _ = conn.send(answer).await;
        }
    });
    // One more line would be the gateway's own.
    let gateway = Setup::upstream(upstream.addr())
        .config("[gateway]\nrequest_id = false")
        .start();
    let ask = |count: usize| {
        let fields = lines(999);
        let request = format!("GET /{count} HTTP/1.1\r\nHost: h\r\n{fields}\r\n");
        block_on(request_once(&gateway, &request))
    };
    let answer = ask(1000);
    assert_eq!(answer.status(), 200);
    assert!(
        answer.head.headers.len() >= 1000,
        "{}",
        answer.head.headers.len()
    );
    assert_eq!(ask(1001).status(), 502);
    gateway.wait_line("answered 502: ");
}

/// It was booked as a failure of the server.
#[test]
fn an_upload_that_breaks_off_is_no_failure_of_the_server() {
    let upstream = Upstream::serve(|mut conn| async move { drop(receive(&mut conn).await) });
    let gateway = Setup::upstream(upstream.addr()).start();
    for head in [
        "Content-Length: 5\r\n\r\nhi",
        "Transfer-Encoding: chunked\r\n\r\n5\r\nhi",
    ] {
        block_on(within(DEADLINE, async {
            let mut conn = Conn::open(&gateway.target()).await?;
            conn.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{head}"))
                .await
        }))
        .unwrap();
    }
    wait::until("both are over", || {
        let refused = gateway.metric("gateway_answers_total{class=\"4xx\"}");
        let left = gateway.metric("gateway_clients_gone_total");
        (refused + left == 2).then_some(())
    });
    assert_eq!(gateway.metric("gateway_answers_total{class=\"5xx\"}"), 0);
}

async fn request_once(gateway: &Gateway, request: &str) -> Response {
    let exchange = async { Conn::open(&gateway.target()).await?.exchange(request).await };
    within(DEADLINE, exchange).await.unwrap()
}

#[test]
fn what_can_be_understood_is_written_as_a_server_reads_it() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).start();
    let rows: &[(&[u8], &str)] = &[
        (b"/a\"<>`?q=\"<x>`", "/a%22%3C%3E%60?q=%22%3Cx%3E%60"),
        (b"/{a}|b^c\\d", "/{a}|b^c\\d"),
        (b"/caf\xc3\xa9", "/caf\u{e9}"),
        (b"/caf\xe9", "/caf%E9"),
        (b"/a%zz%", "/a%zz%"),
        (b"http://other/p\"<", "/p%22%3C"),
    ];
    for &(target, _) in rows {
        let mut request = b"GET ".to_vec();
        request.extend_from_slice(target);
        request.extend_from_slice(b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(send(&gateway, &request).0.status(), 200, "{}", text(target));
    }
    for line in ["GET  /two   HTTP/1.1 ", "GET /minor HTTP/1.5"] {
        let request = format!("\r\n{line}\r\nHost: h\r\nConnection: close\r\n\r\n");
        assert_eq!(send(&gateway, request.as_bytes()).0.status(), 200, "{line}");
    }
    let seen = recorder.seen();
    let targets: Vec<&str> = seen.iter().map(|got| got.target()).collect();
    let expected: Vec<&str> = rows
        .iter()
        .map(|row| row.1)
        .chain(["/two", "/minor"])
        .collect();
    assert_eq!(targets, expected);
}
