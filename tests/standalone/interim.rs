//! Interim responses, such as 103 Early Hints: the client gets them before the response.

use crate::support::client::{Conn, block_on, within};
use crate::support::gateway::Setup;
use crate::support::upstream::{Upstream, receive};
use crate::support::wait::DEADLINE;

const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 9\r\n\r\n";

/// Answers each request in its own way: `/now` sends everything at once, `/later` the response when the
/// client has asked for it at `/go`, `/many` more hints than a client reads.
fn server() -> Upstream {
    let gone = std::sync::Arc::new(tokio::sync::Notify::new());
    Upstream::serve(move |mut conn| {
        let gone = std::sync::Arc::clone(&gone);
        async move {
            while let Ok(got) = receive(&mut conn).await {
                let hints = match got.target() {
                    "/later" | "/now" => {
                        format!("HTTP/1.1 100 Continue\r\n\r\n{HINTS}HTTP/1.1 199 Odd\r\n\r\n")
                    }
                    "/many" => HINTS.repeat(5_000),
                    _ => String::new(),
                };
                let target = got.target();
                let answer =
                    format!("HTTP/1.1 200 OK\r\nX-Target: {target}\r\nContent-Length: 2\r\n\r\nok");
                if target == "/later" {
                    let _ = conn.send(&hints).await;
                    gone.notified().await;
                    let _ = conn.send(&answer).await;
                    continue;
                }
                let _ = conn.send(format!("{hints}{answer}")).await;
                if target == "/go" {
                    gone.notify_one();
                }
            }
        }
    })
}

fn request(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")
}

#[test]
fn early_hints_come_before_the_response_and_on_their_own() {
    let server = server();
    let gateway = Setup::upstream(server.addr()).start();
    block_on(within(DEADLINE, async {
        let target = gateway.target();
        let mut conn = Conn::open(&target).await?;
        for path in ["/now", "/later", "/now"] {
            conn.send(request(path)).await?;
            let hints = conn.head().await?;
            assert_eq!(
                hints.first, "HTTP/1.1 103 Early Hints",
                "the server's 100 is not passed"
            );
            assert_eq!(hints.get("link"), Some("</a.css>; rel=preload"));
            assert_eq!(hints.headers.len(), 1, "{:?}", hints.headers);
            assert_eq!(conn.head().await?.status(), 199);
            if path == "/later" {
                let go = Conn::open(&target).await?.exchange(request("/go")).await?;
                assert_eq!(go.status(), 200);
            }
            let answer = conn.response(false).await?;
            assert_eq!(
                (answer.status(), answer.head.get("x-target")),
                (200, Some(path))
            );
        }
        Ok(())
    }))
    .unwrap();
}

#[test]
fn early_hints_of_pipelined_requests_keep_their_order() {
    let server = server();
    let gateway = Setup::upstream(server.addr()).start();
    block_on(within(DEADLINE, async {
        let mut conn = Conn::open(&gateway.target()).await?;
        let all: String = ["/now", "/plain", "/now"].map(request).concat();
        conn.send(all).await?;
        for expected in [103, 199, 200, 200, 103, 199, 200] {
            let head = conn.head().await?;
            assert_eq!(head.status(), expected);
            conn.body(head.framing(false)).await?;
        }
        Ok(())
    }))
    .unwrap();
}

#[test]
fn a_client_that_waits_for_100_gets_it_once_and_one_of_http_1_0_gets_no_hints() {
    let server = server();
    let gateway = Setup::upstream(server.addr()).start();
    block_on(within(DEADLINE, async {
        let mut conn = Conn::open(&gateway.target()).await?;
        conn.send(
            "POST /now HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        )
        .await?;
        assert_eq!(conn.head().await?.status(), 100);
        conn.send("hi").await?;
        for expected in [103, 199, 200] {
            assert_eq!(conn.head().await?.status(), expected);
        }
        let mut conn = Conn::open(&gateway.target()).await?;
        conn.send("GET /now HTTP/1.0\r\n\r\n").await?;
        assert_eq!(conn.head().await?.status(), 200);
        Ok(())
    }))
    .unwrap();
}

/// The client reads nothing until all hints are sent: some are dropped, and what comes is whole.
#[test]
fn hints_without_end_take_no_memory_and_break_no_response() {
    let server = server();
    let gateway = Setup::upstream(server.addr()).start();
    block_on(within(DEADLINE, async {
        let mut conn = Conn::open_narrow(&gateway.target()).await?;
        conn.send(request("/many")).await?;
        let mut hints = 0;
        loop {
            let head = conn.head().await?;
            match head.status() {
                103 => hints += 1,
                status => {
                    assert_eq!(status, 200);
                    break;
                }
            }
        }
        assert!((1..=5_000).contains(&hints), "{hints}");
        Ok(())
    }))
    .unwrap();
}
