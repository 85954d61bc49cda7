//! Clients that leave while they wait: the server behind is told, and nothing is kept or done for
//! them any more.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::client::{Conn, Target, block_on, within};
use crate::support::gateway::{Setup, said};
use crate::support::servers;
use crate::support::upstream::Upstream;
use crate::support::wait::{self, DEADLINE};

/// A second is promised; a busy machine may take another.
const SOON: Duration = Duration::from_secs(2);

const GET: &str = "GET /wait HTTP/1.1\r\nHost: h\r\n\r\n";

/// What the server behind saw.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Request,
    End,
}

/// Takes requests, answers none of them, and tells when its connections end.
fn silent() -> (Upstream, mpsc::Receiver<Seen>) {
    let (sender, seen) = mpsc::channel();
    let upstream = Upstream::serve(move |mut conn| {
        let sender = sender.clone();
        async move {
            conn.head().await.unwrap();
            sender.send(Seen::Request).unwrap();
            conn.drain().await;
            let _ = sender.send(Seen::End);
        }
    });
    (upstream, seen)
}

/// How a client leaves.
#[derive(Clone, Copy, Debug)]
enum Leave {
    Close,
    HalfClose,
}

#[test]
fn a_client_that_leaves_while_it_waits_is_gone_within_a_second() {
    let (upstream, seen) = silent();
    let gateway = Setup::upstream(upstream.addr()).unix_listener().start();
    let upload = "POST /wait HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf";
    let ahead = format!("{GET}{GET}");
    let mut count = 0;
    for target in [gateway.target(), gateway.unix_target()] {
        for leave in [Leave::Close, Leave::HalfClose] {
            for request in [GET, upload, &ahead] {
                let what = format!("{target:?} {leave:?} {request:?}");
                block_on(async {
                    let mut conn = Conn::open(&target).await.unwrap();
                    conn.send(request).await.unwrap();
                    assert_eq!(seen.recv_timeout(DEADLINE), Ok(Seen::Request), "{what}");
                    let left = Instant::now();
                    let half = match leave {
                        Leave::Close => {
                            drop(conn);
                            None
                        }
                        Leave::HalfClose => {
                            conn.finish().await.unwrap();
                            Some(conn)
                        }
                    };
                    assert_eq!(seen.recv_timeout(DEADLINE), Ok(Seen::End), "{what}");
                    assert!(left.elapsed() < SOON, "{what}: {:?}", left.elapsed());
                    drop(half);
                });
                count += 1;
            }
        }
    }
    gateway.wait_status("nothing is left", |status| {
        status["requests"] == 0 && status["connections"] == 0
    });
    assert!(seen.try_recv().is_err(), "nothing was asked for nobody");
    assert_eq!(gateway.metric("gateway_clients_gone_total"), count);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_is_gone() {
    let (sender, ended) = mpsc::channel();
    let upstream = Upstream::serve(move |mut conn| {
        let sender = sender.clone();
        async move {
            conn.head().await.unwrap();
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n";
            conn.send(head).await.unwrap();
            conn.drain().await;
            let _ = sender.send(());
        }
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(GET).await.unwrap();
        within(DEADLINE, conn.head()).await.unwrap();
        drop(conn);
        let left = Instant::now();
        ended.recv_timeout(DEADLINE).unwrap();
        assert!(left.elapsed() < SOON, "{:?}", left.elapsed());
    });
}

#[test]
fn a_client_that_leaves_while_it_is_held_gives_up_its_place() {
    // The server never becomes ready.
    let gateway = Setup::behind(["sleep", "1000"]).unix_listener().spawn();
    gateway.wait_line("http server listening");
    let held = |count: u64| move |status: &serde_json::Value| status["held"] == count;
    for target in [gateway.target(), gateway.unix_target()] {
        block_on(async {
            let mut clients = Vec::new();
            for _ in 0..5 {
                let mut conn = Conn::open(&target).await.unwrap();
                conn.send(GET).await.unwrap();
                clients.push(conn);
            }
            gateway.wait_status("they wait", held(5));
            let mut stays = clients.pop().unwrap();
            clients[0].finish().await.unwrap();
            clients.truncate(1);
            let left = Instant::now();
            gateway.wait_status("their places are free", held(1));
            assert!(left.elapsed() < SOON, "{:?}", left.elapsed());
            assert!(
                tokio::time::timeout(Duration::from_millis(100), stays.more())
                    .await
                    .is_err()
            );
        });
        gateway.wait_status("the last place is free", held(0));
    }
}

#[test]
fn a_drain_does_not_wait_for_a_client_that_has_left() {
    if !servers::have("node") {
        return;
    }
    for args in [
        &["restart", "--drained"][..],
        &["restart", "--fresh", "--drained"],
    ] {
        let gateway = Setup::behind(servers::node())
            .env("GATEWAY_SUPERVISOR", "none")
            .start();
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            conn.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: h\r\n\r\n")
                .await
                .unwrap();
            gateway.wait_status("the request is under way", |status| status["requests"] == 1);
            let restart = gateway.ctl_aside(args.iter().copied());
            wait::until("the old one drains", || {
                let drainers = &gateway.status()["drainers"];
                drainers
                    .as_array()
                    .is_some_and(|all| !all.is_empty())
                    .then_some(())
            });
            drop(conn);
            let left = Instant::now();
            let output = restart.join().unwrap();
            assert!(output.status.success(), "{}", said(&output));
            // The old server has its own time for its end.
            assert!(
                left.elapsed() < Duration::from_secs(8),
                "{args:?}: {:?}",
                left.elapsed()
            );
        });
    }
}

#[test]
fn with_half_close_a_client_that_only_stopped_sending_gets_its_answer() {
    let (sender, ended) = mpsc::channel();
    let upstream = Upstream::serve(move |mut conn| {
        let sender = sender.clone();
        async move {
            let head = conn.head().await.unwrap();
            if head.first.contains("/wait") {
                conn.drain().await;
                let _ = sender.send(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
            let _ = conn.send(answer).await;
        }
    });
    let gateway = Setup::upstream(upstream.addr())
        .unix_listener()
        .config("[limits]\nhalf_close = true\n")
        .start();
    let ask = async |target: &Target, path: &str| {
        let mut conn = Conn::open(target).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n");
        conn.send(request).await.unwrap();
        conn.finish().await.unwrap();
        conn
    };
    block_on(async {
        for target in [gateway.target(), gateway.unix_target()] {
            let mut conn = ask(&target, "/").await;
            let answer = within(DEADLINE, conn.response(false)).await.unwrap();
            assert_eq!(answer.text(), "ok", "{target:?}");
        }
        // The other end of a unix socket is gone for good.
        let conn = ask(&gateway.unix_target(), "/wait").await;
        gateway.wait_status("it waits", |status| status["requests"] == 1);
        drop(conn);
        ended.recv_timeout(SOON + SOON).unwrap();
    });
}
