//! Requests and answers that make no progress: each ends within the limit of the configuration,
//! with the status that says why, a line in the log and a number in the metrics.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::client::{self, Conn, Fault, block_on, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::handover::fresh;
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::DEADLINE;

/// Tells when its connections end; `serve` answers before.
fn upstream(answer: &'static str) -> (Upstream, mpsc::Receiver<()>) {
    let (sender, ended) = mpsc::channel();
    let upstream = Upstream::serve(move |mut conn| {
        let sender = sender.clone();
        async move {
            conn.head().await.unwrap();
            let _ = conn.send(answer).await;
            conn.drain().await;
            let _ = sender.send(());
        }
    });
    (upstream, ended)
}

fn reached(gateway: &Gateway, limit: &str, count: u64) {
    let name = format!("gateway_timeouts_total{{limit=\"{limit}\"}}");
    assert_eq!(gateway.metric(&name), count, "{limit}");
    if count > 0 {
        gateway.wait_line(&format!("(limits.{limit})"));
    }
}

#[test]
fn a_body_that_stops_is_answered_408_and_its_server_is_free() {
    let (behind, ended) = upstream("");
    let gateway = Setup::upstream(behind.addr())
        .config("[limits]\nbody_idle = \"500ms\"\n")
        .start();
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n",
    ] {
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let begun = Instant::now();
            let answer = within(DEADLINE, conn.exchange(request)).await.unwrap();
            assert_eq!(answer.status(), 408, "{request}");
            assert!(!answer.head.keeps());
            assert!(begun.elapsed() >= Duration::from_millis(400));
            ended.recv_timeout(DEADLINE).unwrap();
            let (more, end) = conn.drain().await;
            assert_eq!((more.len(), end), (0, Fault::Eof), "nothing comes after it");
        });
    }
    reached(&gateway, "body_idle", 4);
}

#[test]
fn a_body_that_drips_and_a_server_that_reads_late_are_no_stalled_body() {
    const LARGE: usize = 8 * 1024 * 1024;
    let behind = Upstream::serve(|mut conn| async move {
        let head = conn.head().await.unwrap();
        // Longer than the client may be silent.
        tokio::time::sleep(Duration::from_millis(1200)).await;
        let (body, _) = conn.body(head.framing(false)).await.unwrap();
        let answer = body.len().to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            answer.len()
        );
        conn.send(head + &answer).await.unwrap();
    });
    let gateway = Setup::upstream(behind.addr())
        .config("[limits]\nbody_idle = \"600ms\"\n")
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        let head = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n";
        conn.send(head).await.unwrap();
        for _ in 0..8 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            conn.send("x").await.unwrap();
        }
        let answer = within(DEADLINE, conn.response(false)).await.unwrap();
        assert_eq!(answer.text(), "8");
        let head = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {LARGE}\r\n\r\n");
        conn.send(head).await.unwrap();
        conn.send(vec![b'x'; LARGE]).await.unwrap();
        let answer = within(DEADLINE, conn.response(false)).await.unwrap();
        assert_eq!(answer.text(), LARGE.to_string());
    });
    reached(&gateway, "body_idle", 0);
}

#[test]
fn a_server_that_never_answers_is_504_where_a_limit_is_set() {
    let (behind, ended) = upstream("");
    let gateway = Setup::upstream(behind.addr())
        .config("[limits]\nanswer = \"500ms\"\n")
        .start();
    block_on(async {
        let answer = client::get(&gateway.target(), "/").await.unwrap();
        assert_eq!(answer.status(), 504);
        ended.recv_timeout(DEADLINE).unwrap();
        // The time counts from the end of the request.
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n")
            .await
            .unwrap();
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_millis(200)).await;
            conn.send("x").await.unwrap();
        }
        let sent = Instant::now();
        let answer = within(DEADLINE, conn.response(false)).await.unwrap();
        assert_eq!(answer.status(), 504);
        assert!(sent.elapsed() >= Duration::from_millis(400));
    });
    reached(&gateway, "answer", 2);
}

#[test]
fn a_client_that_reads_nothing_is_disconnected_and_one_that_reads_slowly_is_not() {
    const PIECE: usize = 256 * 1024;
    let (sender, ended) = mpsc::channel();
    let behind = Upstream::serve(move |mut conn| {
        let sender = sender.clone();
        async move {
            conn.head().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n";
            conn.send(head).await.unwrap();
            while conn.send(vec![b'x'; PIECE]).await.is_ok() {}
            let _ = sender.send(());
        }
    });
    let gateway = Setup::upstream(behind.addr())
        .unix_listener()
        .config("[limits]\nsend_idle = \"1s\"\n")
        .start();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    block_on(async {
        let mut slow = Conn::open_narrow(&gateway.target()).await.unwrap();
        slow.send(get).await.unwrap();
        let mut stalled = Vec::new();
        for target in [gateway.target(), gateway.unix_target()] {
            let mut conn = Conn::open_narrow(&target).await.unwrap();
            conn.send(get).await.unwrap();
            stalled.push(conn);
        }
        let begun = Instant::now();
        for _ in 0..20 {
            let read = within(DEADLINE, slow.take(16 * 1024)).await.unwrap();
            assert_eq!(read.len(), 16 * 1024);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
        assert!(begun.elapsed() > Duration::from_millis(2500));
        for _ in 0..2 {
            ended.recv_timeout(DEADLINE).unwrap();
        }
        assert!(ended.try_recv().is_err(), "the slow one is served");
        gateway.wait_status("only the slow one is left", |status| {
            status["connections"] == 1
        });
        drop((slow, stalled));
    });
    reached(&gateway, "send_idle", 2);
}

#[test]
fn a_client_gets_no_408_that_it_did_not_ask_for() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .env("GATEWAY_SUPERVISOR", "none")
        .config("[limits]\nheader_time = \"700ms\"\nbody = 1000\n")
        .start();
    let get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";
    block_on(async {
        // One that has said nothing.
        let mut silent = Conn::open(&gateway.target()).await.unwrap();
        let (said, end) = silent.drain().await;
        assert_eq!((said.len(), end), (0, Fault::Eof));
        // One whose body goes on after an early answer, or stops there.
        let mut goes_on = Conn::open(&gateway.target()).await.unwrap();
        let mut stops = Conn::open(&gateway.target()).await.unwrap();
        for conn in [&mut goes_on, &mut stops] {
            let request = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000\r\n\r\n";
            let answer = within(DEADLINE, conn.exchange(request)).await.unwrap();
            assert_eq!(answer.status(), 413);
        }
        // One that is kept.
        let mut kept = Conn::open(&gateway.target()).await.unwrap();
        assert_eq!(kept.exchange(get).await.unwrap().status(), 200);
        fresh(&gateway);
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            goes_on.send(vec![b'x'; 100]).await.unwrap();
        }
        let answer = within(DEADLINE, goes_on.exchange(get)).await.unwrap();
        assert_eq!(answer.status(), 200, "its body is at its end");
        let answer = within(DEADLINE, kept.exchange(get)).await.unwrap();
        assert_eq!(answer.status(), 200, "it was silent longer than a head");
        let (said, end) = within(DEADLINE, async { Ok(stops.drain().await) })
            .await
            .unwrap();
        assert_eq!((said.len(), end), (0, Fault::Eof));
    });
    reached(&gateway, "header_time", 0);
}

/// Switches protocols and sends back whatever comes.
fn mirror(protocol: &'static str) -> Upstream {
    Upstream::serve(move |mut conn| async move {
        conn.head().await.unwrap();
        let switched = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
        );
        let _ = conn.send(switched).await;
        while let Ok(bytes) = conn.some().await {
            if conn.send(bytes).await.is_err() {
                return;
            }
        }
    })
}

#[test]
fn a_tunnel_through_which_nothing_goes_is_closed_and_pings_go_through_it() {
    const LIMIT: Duration = Duration::from_secs(1);
    for (protocol, last) in [("websocket", &b"\x88\x06\x03\xe9idle"[..]), ("other", b"")] {
        let behind = mirror(protocol);
        let gateway = Setup::upstream(behind.addr())
            .config("[limits]\ntunnel_idle = \"1s\"\nidle = \"100ms\"\n")
            .start();
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let open = format!(
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            );
            conn.send(open).await.unwrap();
            assert_eq!(conn.head().await.unwrap().status(), 101);
            let ping = b"\x89\x84mask\x01\x02\x03\x04";
            let begun = Instant::now();
            while begun.elapsed() < 2 * LIMIT {
                conn.send(ping).await.unwrap();
                assert_eq!(conn.take(ping.len()).await.unwrap(), &ping[..]);
            }
            let quiet = Instant::now();
            let (rest, end) = within(DEADLINE, async { Ok(conn.drain().await) })
                .await
                .unwrap();
            // The mirror gets a masked Close frame, too, and sends it back after ours: nothing follows it.
            assert_eq!((&rest[..], end), (last, Fault::Eof), "{protocol}");
            assert!(quiet.elapsed() >= LIMIT / 2);
        });
        reached(&gateway, "tunnel_idle", 1);
    }
}
