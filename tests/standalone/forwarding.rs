//! What passes through the front door, and what does not, message by message.

use std::time::Duration;

use crate::support::client::{Conn, Fault, Response, block_on, request, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{Recorder, Upstream, receive};
use crate::support::wait::DEADLINE;
use crate::support::ws::handshake;

/// How long something that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(300);

fn before(recorder: &Recorder) -> Gateway {
    Setup::upstream(recorder.addr()).start()
}

fn ask(gateway: &Gateway, text: &str) -> Response {
    block_on(request(&gateway.target(), text))
        .unwrap_or_else(|fault| panic!("{fault} in answer to {text:?}"))
}

#[test]
fn host_origin_path_and_repeated_headers_pass_untouched() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nServer: mine/1\r\nDate: Tue, 01 Jan 2030 00:00:00 GMT\r\n\r\nok\n".to_vec()
    });
    let gateway = before(&recorder);
    let path = "/a%2Fb//c;p=1/..%2e/?q=a%20b&&c=%C3%BC";
    let answer = ask(
        &gateway,
        &format!(
            "GET {path} HTTP/1.1\r\nHost: Example.ORG:8080\r\nOrigin: https://Other.example\r\nCookie: x=1\r\nAccept: a\r\nAccept: b\r\nX-Empty:\r\nUser-Agent: me\r\nConnection: close\r\n\r\n"
        ),
    );
    let got = recorder.only();
    assert_eq!(got.target(), path);
    assert_eq!(
        got.head.all("host").collect::<Vec<_>>(),
        ["Example.ORG:8080"]
    );
    assert_eq!(got.head.get("origin"), Some("https://Other.example"));
    assert_eq!(got.head.get("user-agent"), Some("me"));
    assert_eq!(got.head.get("x-empty"), Some(""));
    assert_eq!(got.head.all("accept").collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(got.head.get("via"), None, "no Via unless it is asked for");
    assert_eq!(
        answer.head.all("set-cookie").collect::<Vec<_>>(),
        ["a=1", "b=2"]
    );
    assert_eq!(answer.head.all("server").collect::<Vec<_>>(), ["mine/1"]);
    assert_eq!(
        answer.head.all("date").collect::<Vec<_>>(),
        ["Tue, 01 Jan 2030 00:00:00 GMT"]
    );
    assert_eq!(answer.head.get("via"), None);
}

#[test]
fn headers_of_one_connection_stay_on_it() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: X-Up, keep-alive\r\nX-Up: 1\r\nKeep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nX-Stays: 2\r\n\r\nok\n"
            .to_vec()
    });
    let gateway = before(&recorder);
    let answer = ask(
        &gateway,
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: timeout=9\r\nProxy-Connection: keep-alive\r\nTE: gzip\r\nUpgrade: h2c\r\nX-Stays: 2\r\n\r\n",
    );
    let got = recorder.only().head;
    for name in ["x-mine", "keep-alive", "proxy-connection", "upgrade", "te"] {
        assert_eq!(got.get(name), None, "{name} went on: {got:?}");
    }
    assert!(!got.has_token("connection", "x-mine"), "{got:?}");
    assert_eq!(got.get("x-stays"), Some("2"));
    for name in ["x-up", "keep-alive"] {
        assert_eq!(
            answer.head.get(name),
            None,
            "{name} came back: {:?}",
            answer.head
        );
    }
    assert!(
        !answer.head.has_token("connection", "x-up"),
        "{:?}",
        answer.head
    );
    assert_eq!(answer.head.get("x-stays"), Some("2"));
}

#[test]
fn via_is_added_both_ways_when_asked_for() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nVia: 1.1 up\r\n\r\n".to_vec()
    });
    let gateway = Setup::upstream(recorder.addr())
        .config("[gateway]\nvia = true\n")
        .start();
    let answer = ask(
        &gateway,
        "GET / HTTP/1.1\r\nHost: h\r\nVia: 1.0 fred\r\nConnection: close\r\n\r\n",
    );
    for (head, first) in [
        (&recorder.only().head, "1.0 fred"),
        (&answer.head, "1.1 up"),
    ] {
        let list: Vec<&str> = head
            .all("via")
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .collect();
        assert_eq!((list.len(), list[0]), (2, first), "{head:?}");
        assert!(list[1].starts_with("1.1 "), "{head:?}");
    }
}

#[test]
fn trailers_pass_in_both_directions() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n3\r\nok\n\r\n0\r\nX-Sum: 42\r\n\r\n".to_vec()
    });
    let gateway = before(&recorder);
    let answer = ask(
        &gateway,
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nTrailer: X-Check\r\nTE: trailers\r\nConnection: close, TE\r\n\r\n5\r\nhello\r\n0\r\nX-Check: 7\r\n\r\n",
    );
    let got = recorder.only();
    assert_eq!(got.body, "hello");
    assert_eq!(got.trailers.len(), 1, "{got:?}");
    assert!(
        got.trailers[0].0.eq_ignore_ascii_case("x-check") && got.trailers[0].1 == "7",
        "{got:?}"
    );
    assert_eq!(answer.text(), "ok\n");
    assert_eq!(answer.trailers.len(), 1, "{answer:?}");
    assert!(
        answer.trailers[0].0.eq_ignore_ascii_case("x-sum") && answer.trailers[0].1 == "42",
        "{answer:?}"
    );
}

#[test]
fn answers_without_a_body_end_where_they_should_and_the_connection_serves_on() {
    let recorder = Recorder::answering(|received| {
        match received.target() {
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: 1\r\n\r\n",
            "/head-chunked" => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 1234\r\nETag: \"x\"\r\n\r\n",
            "/empty" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast",
        }
        .into()
    });
    let gateway = before(&recorder);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for round in 0..3 {
            for (method, path, status, length) in [
                ("HEAD", "/head", 200, Some("1234")),
                ("HEAD", "/head-chunked", 200, None),
                ("GET", "/204", 204, None),
                ("GET", "/304", 304, Some("1234")),
                ("GET", "/empty", 200, Some("0")),
                ("DELETE", "/204", 204, None),
                ("GET", "/last", 200, Some("4")),
            ] {
                let answer = within(
                    DEADLINE,
                    conn.exchange(format!("{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n")),
                )
                .await;
                let answer = answer
                    .unwrap_or_else(|fault| panic!("round {round}, {method} {path}: {fault}"));
                assert_eq!(answer.status(), status, "{method} {path}");
                // A 304 may leave the length out; another one would be a lie.
                assert!(
                    answer.head.get("content-length") == length
                        || (status == 304 && answer.head.get("content-length").is_none()),
                    "{method} {path}: {:?}",
                    answer.head
                );
                assert!(answer.head.keeps(), "{method} {path}: {:?}", answer.head);
            }
        }
    });
    assert_eq!(recorder.seen().len(), 21);
}

#[test]
fn methods_nobody_knows_pass_and_connect_does_not() {
    let recorder = Recorder::ok();
    let gateway = before(&recorder);
    for method in ["PROPFIND", "PATCH", "OPTIONS", "FOO-BAR"] {
        let answer = ask(
            &gateway,
            &format!(
                "{method} /x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"
            ),
        );
        assert_eq!(answer.status(), 200, "{method}");
    }
    let firsts: Vec<String> = recorder
        .seen()
        .iter()
        .map(|got| got.head.first.clone())
        .collect();
    assert_eq!(
        firsts,
        [
            "PROPFIND /x HTTP/1.1",
            "PATCH /x HTTP/1.1",
            "OPTIONS /x HTTP/1.1",
            "FOO-BAR /x HTTP/1.1"
        ]
    );
    assert!(recorder.seen().iter().all(|got| got.body == "hi"));
    let answer = ask(
        &gateway,
        "CONNECT example.org:443 HTTP/1.1\r\nHost: example.org:443\r\nConnection: close\r\n\r\n",
    );
    assert!((400..600).contains(&answer.status()), "{:?}", answer.head);
    assert_eq!(
        recorder.seen().len(),
        4,
        "the upstream never heard of CONNECT"
    );
}

#[test]
fn an_old_client_gets_a_body_it_understands() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
            .to_vec()
    });
    let gateway = before(&recorder);
    let answer = ask(&gateway, "GET / HTTP/1.0\r\nHost: h\r\n\r\n");
    assert_eq!(answer.text(), "abcdef");
    assert_eq!(
        answer.head.get("transfer-encoding"),
        None,
        "HTTP/1.0 knows no chunks: {:?}",
        answer.head
    );
}

#[test]
fn an_old_upstream_serves_a_kept_connection() {
    let recorder =
        Recorder::answering(|_| b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nto the end".to_vec());
    let gateway = before(&recorder);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for _ in 0..5 {
            let answer = within(DEADLINE, conn.exchange("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
                .await
                .unwrap();
            assert_eq!(
                (answer.status(), answer.text().as_str()),
                (200, "to the end")
            );
            assert!(answer.head.keeps(), "{:?}", answer.head);
        }
    });
}

#[test]
fn an_upload_waits_for_the_go_ahead_it_asked_for() {
    let recorder = Recorder::ok();
    let gateway = before(&recorder);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(
            "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
        )
        .await
        .unwrap();
        assert_eq!(within(DEADLINE, conn.head()).await.unwrap().status(), 100);
        conn.send("hello").await.unwrap();
        assert_eq!(
            within(DEADLINE, conn.response(false))
                .await
                .unwrap()
                .status(),
            200
        );
    });
    assert_eq!(recorder.only().body, "hello");
}

#[test]
fn early_hints_do_not_disturb_the_answer() {
    let recorder = Recorder::answering(|_| {
        b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            .to_vec()
    });
    let gateway = before(&recorder);
    for _ in 0..3 {
        let answer = ask(
            &gateway,
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        );
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_their_order() {
    let recorder = Recorder::answering(|received| {
        let body = format!(
            "{} {}",
            received.target(),
            String::from_utf8_lossy(&received.body)
        );
        format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    });
    let gateway = before(&recorder);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        let all: String = (0..20)
            .map(|number| match number % 2 {
                0 => format!("GET /{number} HTTP/1.1\r\nHost: h\r\n\r\n"),
                _ => format!("POST /{number} HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody"),
            })
            .collect();
        conn.send(all).await.unwrap();
        for number in 0..20 {
            let answer = within(DEADLINE, conn.response(false)).await.unwrap();
            let body = if number % 2 == 0 { "" } else { "body" };
            assert_eq!(answer.text(), format!("/{number} {body}"));
        }
    });
}

#[test]
fn a_request_with_two_lengths_reaches_the_upstream_in_one_way_or_not_at_all() {
    for (name, text) in [
        (
            "chunked and a length",
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        ),
        (
            "two different lengths",
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nContent-Length: 30\r\n\r\nhi",
        ),
        (
            "a list of different lengths",
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2, 30\r\n\r\nhi",
        ),
        (
            "a length with a sign",
            "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: +2\r\n\r\nhi",
        ),
        (
            "chunked that is not last",
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        ),
        (
            "a coding nobody knows",
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\nContent-Length: 2\r\n\r\nhi",
        ),
        (
            "a space before the colon",
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nhi",
        ),
        (
            "a chunk size that is none",
            "POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nhi\r\n0\r\n\r\n",
        ),
    ] {
        let recorder = Recorder::ok();
        let gateway = before(&recorder);
        let answers = block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            conn.send(text).await.unwrap();
            conn.finish().await.unwrap();
            let (bytes, _) = tokio::time::timeout(DEADLINE, conn.drain())
                .await
                .expect("the connection ends");
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let status: u16 = answers
            .split(' ')
            .nth(1)
            .and_then(|code| code.parse().ok())
            .unwrap_or(0);
        let seen = recorder.seen();
        // Whatever it made of the request, the upstream must not be able to read it in another way.
        match status {
            200 => {
                assert_eq!(name, "chunked and a length", "accepted: {name}: {seen:?}");
                assert_eq!(seen.len(), 1, "{name}: {seen:?}");
                assert_eq!(seen[0].body, "hi", "{name}: {seen:?}");
                let head = &seen[0].head;
                assert!(
                    head.get("content-length").is_none() || head.get("transfer-encoding").is_none(),
                    "{name}: {head:?}"
                );
            }
            400 | 501 | 502 => assert!(
                seen.is_empty(),
                "{name}: refused, yet the upstream got {seen:?}"
            ),
            // Closing without a word is also safe.
            0 => assert!(
                seen.is_empty() && answers.is_empty(),
                "{name}: {answers:?} {seen:?}"
            ),
            other => panic!("{name}: answered {other}: {answers}"),
        }
    }
}

#[test]
fn an_answer_with_two_lengths_reaches_the_client_in_one_way_or_not_at_all() {
    for text in [
        "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 30\r\n\r\nhi",
    ] {
        let recorder = Recorder::answering(move |_| text.as_bytes().to_vec());
        let gateway = before(&recorder);
        let answer = ask(
            &gateway,
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        );
        match answer.status() {
            200 => {
                assert_eq!(answer.text(), "hi", "{text:?}");
                let head = &answer.head;
                assert!(
                    head.all("content-length").count() <= 1,
                    "{text:?}: {head:?}"
                );
                assert!(
                    head.get("content-length").is_none() || head.get("transfer-encoding").is_none(),
                    "{text:?}: {head:?}"
                );
            }
            status => assert_eq!(status, 502, "{text:?}"),
        }
    }
}

#[test]
fn a_request_without_a_host_is_refused() {
    let recorder = Recorder::ok();
    let gateway = before(&recorder);
    for text in [
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n",
    ] {
        assert_eq!(ask(&gateway, text).status(), 400, "{text:?}");
    }
    assert!(recorder.seen().is_empty(), "{:?}", recorder.seen());
}

#[test]
fn a_whole_url_in_the_request_line_is_forwarded_as_a_path() {
    let recorder = Recorder::ok();
    let gateway = before(&recorder);
    let answer = ask(
        &gateway,
        "GET http://example.org/x?y=1 HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answer.status(), 200);
    let got = recorder.only();
    assert_eq!(got.target(), "/x?y=1");
    assert_eq!(got.head.all("host").collect::<Vec<_>>(), ["example.org"]);
}

#[test]
fn the_longest_path_and_the_nearest_host_decide_where_a_request_goes() {
    let name = |name: &'static str| {
        Recorder::answering(move |_| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}",
                name.len()
            )
            .into_bytes()
        })
    };
    let (root, api, deep, shop) = (name("root"), name("api"), name("deep"), name("shop"));
    let route = |path: &str, host: Option<&str>, to: &Recorder| {
        let host = host
            .map(|host| format!("host = \"{host}\"\n"))
            .unwrap_or_default();
        format!(
            "[[route]]\npath = \"{path}\"\n{host}to = \"http://{}\"\n",
            to.addr()
        )
    };
    let gateway = Setup::new()
        .config(route("/", None, &root))
        .config(route("/api", None, &api))
        .config(route("/api/deep/", None, &deep))
        .config(route("/", Some("*.shop.example"), &shop))
        .start();
    for (host, path, expected) in [
        ("h", "/", "root"),
        ("h", "/apix", "root"),
        ("h", "/api", "api"),
        ("h", "/api?x=/api/deep/", "api"),
        ("h", "/api/", "api"),
        ("h", "/api/deeper", "api"),
        ("h", "/api/deep/x", "deep"),
        ("www.shop.example", "/", "shop"),
        ("WWW.Shop.Example:8080", "/x", "shop"),
        ("notshop.example", "/x", "root"),
    ] {
        let answer = ask(
            &gateway,
            &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"),
        );
        assert_eq!(answer.text(), expected, "{host}{path}");
    }
}

#[test]
fn a_path_without_a_route_is_404() {
    let recorder = Recorder::ok();
    let gateway = Setup::new()
        .config(format!(
            "[[route]]\npath = \"/only\"\nto = \"http://{}\"\n",
            recorder.addr()
        ))
        .start();
    assert_eq!(
        ask(
            &gateway,
            "GET /other HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
        )
        .status(),
        404
    );
    assert!(recorder.seen().is_empty());
}

#[test]
fn a_refused_upgrade_is_an_answer_like_any_other() {
    let recorder = Recorder::answering(|received| match received.target() {
        "/ws" => b"HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\n\r\nno entry".to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext".to_vec(),
    });
    let gateway = before(&recorder);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for _ in 0..3 {
            let answer = within(DEADLINE, conn.exchange(handshake("/ws")))
                .await
                .unwrap();
            assert_eq!((answer.status(), answer.text().as_str()), (403, "no entry"));
            let answer = within(
                DEADLINE,
                conn.exchange("GET /next HTTP/1.1\r\nHost: h\r\n\r\n"),
            )
            .await
            .unwrap();
            assert_eq!((answer.status(), answer.text().as_str()), (200, "next"));
        }
    });
    let got = &recorder.seen()[0].head;
    assert_eq!(
        got.get("upgrade"),
        Some("websocket"),
        "the upstream is asked: {got:?}"
    );
    assert!(got.has_token("connection", "upgrade"), "{got:?}");
}

#[test]
fn nothing_is_tunnelled_to_an_upstream_that_did_not_agree() {
    let recorder = Recorder::answering(|received| match received.target() {
        "/ws" => b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nno tunnel"
            .get(..47)
            .unwrap()
            .to_vec(),
        _ => b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext".to_vec(),
    });
    let gateway = Setup::new()
        .config(format!(
            "[[route]]\npath = \"/ws\"\nto = \"http://{}\"\n",
            recorder.addr()
        ))
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        // What a tunnel would carry to the upstream unseen is to the gateway just a request without
        // a route.
        conn.send(format!(
            "{}GET /admin HTTP/1.1\r\nHost: h\r\n\r\n",
            handshake("/ws")
        ))
        .await
        .unwrap();
        let answer = within(DEADLINE, conn.response(false)).await.unwrap();
        assert_eq!(answer.status(), 200);
        match within(DEADLINE, conn.response(false)).await {
            Ok(answer) => assert_eq!(answer.status(), 404),
            Err(fault) => assert!(matches!(fault, Fault::Eof | Fault::Reset), "{fault}"),
        }
    });
    let targets: Vec<String> = recorder
        .seen()
        .iter()
        .map(|got| got.target().to_owned())
        .collect();
    assert_eq!(
        targets,
        ["/ws"],
        "the upstream got what was meant for a tunnel"
    );
}

#[test]
fn bytes_sent_too_early_wait_for_the_101() {
    let (agree, agreed) = tokio::sync::watch::channel(false);
    let (told, mut early) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::serve(move |mut conn| {
        let (mut agreed, told) = (agreed.clone(), told.clone());
        async move {
            let Ok(_) = receive(&mut conn).await else {
                return;
            };
            let before = tokio::time::timeout(SILENCE, conn.more()).await;
            told.send(before.is_ok()).unwrap();
            agreed.wait_for(|agreed| *agreed).await.unwrap();
            conn.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n",
            )
            .await
            .unwrap();
            while let Ok(bytes) = conn.some().await {
                if bytes.is_empty() || conn.send(bytes).await.is_err() {
                    return;
                }
            }
        }
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nearly")
            .await
            .unwrap();
        assert_eq!(
            early.recv().await,
            Some(false),
            "the upstream got bytes before it agreed"
        );
        agree.send(true).unwrap();
        let head = within(DEADLINE, conn.head()).await.unwrap();
        assert_eq!(head.status(), 101, "{head:?}");
        assert_eq!(head.get("upgrade"), Some("echo"));
        assert_eq!(within(DEADLINE, conn.take(5)).await.unwrap(), "early");
        conn.send("late").await.unwrap();
        assert_eq!(within(DEADLINE, conn.take(4)).await.unwrap(), "late");
        conn.finish().await.unwrap();
        assert_eq!(
            within(DEADLINE, async { Ok(conn.ended().await) })
                .await
                .unwrap(),
            Fault::Eof,
            "the end passes through too"
        );
    });
    gateway.wait_status("the tunnel is gone", |status| status["tunnels"] == 0);
}

#[test]
fn the_bytes_after_the_101_are_the_first_of_the_tunnel() {
    let upstream = Upstream::serve(|mut conn| async move {
        let Ok(_) = receive(&mut conn).await else {
            return;
        };
        conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nwelcome").await.unwrap();
        conn.ended().await;
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
            .await
            .unwrap();
        assert_eq!(within(DEADLINE, conn.head()).await.unwrap().status(), 101);
        assert_eq!(within(DEADLINE, conn.take(7)).await.unwrap(), "welcome");
    });
}

#[test]
fn a_switch_that_nobody_asked_for_is_an_error_of_the_upstream() {
    let upstream = Upstream::serve(|mut conn| async move {
        let Ok(_) = receive(&mut conn).await else {
            return;
        };
        let _ = conn.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nsurprise").await;
        conn.ended().await;
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    let answer = ask(
        &gateway,
        "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
    );
    assert_eq!(answer.status(), 502, "{:?}", answer.head);
    assert_eq!(gateway.status()["tunnels"], 0);
}

/// A server that reads an underscore as a hyphen, as CGI does, took a body for the next request.
#[test]
fn what_servers_could_read_as_another_length_or_host_does_not_pass() {
    let recorder = Recorder::ok();
    let gateway = before(&recorder);
    let answer = ask(
        &gateway,
        "POST / HTTP/1.1\r\nHost: h\r\nContent_Length: 0\r\nTransfer_Encoding: chunked\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi",
    );
    assert_eq!(answer.status(), 200);
    for order in [
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 3"],
    ] {
        let [one, two] = order;
        let answer = ask(
            &gateway,
            &format!(
                "POST / HTTP/1.1\r\nHost: h\r\n{one}\r\n{two}\r\nConnection: close\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
            ),
        );
        assert_eq!(answer.status(), 400, "as nginx");
    }
    let received = recorder.only();
    let head = &received.head;
    assert_eq!(received.body.as_ref(), b"hi", "{received:?}");
    assert_eq!(head.get("content-length"), Some("2"), "{received:?}");
    assert!(
        head.get("content_length").is_none() && head.get("transfer_encoding").is_none(),
        "{received:?}"
    );
    for host in [
        "a@b", "a@b/c", "a/b", "a b", "a?b", "a#b", "a\\b", "a,b@c", "",
    ] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(&gateway, &text).status(), 400, "{host}");
    }
    for host in ["a_b.example:80", "[::1]:80", "127.0.0.1"] {
        let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(ask(&gateway, &text).status(), 200, "{host}");
    }
}

/// It stayed under way after its client had left, and cost half a processor.
#[test]
fn a_server_that_only_ever_promises_an_answer_is_given_up() {
    let upstream = Upstream::serve(|mut conn| async move {
        let _ = receive(&mut conn).await;
        let promises = "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(1000);
        while conn.send(&promises).await.is_ok() {}
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    let text = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    assert_eq!(ask(&gateway, text).status(), 502);
    assert_eq!(gateway.status()["requests"], 0);
}

/// gatewayctl refused a status of more than a megabyte, and restart, reload and update with it.
#[test]
fn methods_that_fill_a_head_take_no_status_away() {
    let upstream = Upstream::serve(|mut conn| async move {
        let _ = receive(&mut conn).await;
        std::future::pending::<()>().await;
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    block_on(async {
        let mut open = Vec::new();
        for _ in 0..8 {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let text = format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(60_000));
            conn.send(text).await.unwrap();
            open.push(conn);
        }
        let status =
            gateway.wait_status("the requests are there", |status| status["requests"] == 8);
        assert!(status.to_string().len() < 100_000);
    });
}
