//! Limits for each client address: connections, and requests in flight.

use std::net::SocketAddr;
use std::sync::mpsc;

use crate::support::client::{Conn, Fault, Target, block_on, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::{Recorder, Upstream};
use crate::support::wait::{self, DEADLINE};
use crate::support::{namespace, port};

/// An address that is not of this machine's loopback, in a network of the test's own.
const OUTSIDE: &str = "10.77.0.3";

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

fn from_outside(setup: Setup, config: &str) -> (Gateway, Target) {
    let outside: SocketAddr = format!("{OUTSIDE}:{}", port::private()).parse().unwrap();
    let gateway = setup
        .config(config)
        .flag("--listen")
        .flag(outside.to_string())
        .start();
    (gateway, Target::Tcp(outside))
}

fn limited(gateway: &Gateway, limit: &str) -> u64 {
    gateway.metric(&format!("gateway_limited_total{{limit=\"{limit}\"}}"))
}

async fn open(target: &Target, first: &str) -> (Conn, u16) {
    let mut conn = Conn::open(target).await.unwrap();
    let answer = within(DEADLINE, conn.exchange(first)).await.unwrap();
    let retry = answer.head.get("retry-after").is_some();
    assert_eq!(retry, answer.status() == 429, "{:?}", answer.head);
    (conn, answer.status())
}

#[test]
fn one_address_has_so_many_connections_and_this_machine_any_number() {
    namespace::network(OUTSIDE, || {
        let recorder = Recorder::ok();
        let limits = "[limits]\nconnections_per_address = 2";
        let (gateway, target) = from_outside(Setup::upstream(recorder.addr()), limits);
        block_on(async {
            let (first, one) = open(&target, GET).await;
            let (mut second, two) = open(&target, GET).await;
            assert_eq!((one, two), (200, 200));
            let (mut third, three) = open(&target, GET).await;
            assert_eq!(three, 429);
            assert_eq!(third.ended().await, Fault::Eof, "and it is closed");
            assert_eq!(second.exchange(GET).await.unwrap().status(), 200);
            let mut here = Vec::new();
            for _ in 0..4 {
                here.push(open(&gateway.target(), GET).await);
            }
            assert!(here.iter().all(|(_, status)| *status == 200));
            drop(first);
        });
        wait::until("the place of the first is free", || {
            block_on(async { (open(&target, GET).await.1 == 200).then_some(()) })
        });
        assert!(limited(&gateway, "connections_per_address") >= 1);
        gateway.wait_line("10.77.0.3 is turned away with 429: it has 2 connections");
    });
}

#[test]
fn an_announced_client_counts_for_its_own_address() {
    let recorder = Recorder::ok();
    let announced: SocketAddr = ([127, 0, 0, 1], port::private()).into();
    let gateway = Setup::upstream(recorder.addr())
        .config(format!(
            "[gateway]\nproxy_protocol = [\"{announced}\"]\n[limits]\nconnections_per_address = 1"
        ))
        .flag("--listen")
        .flag(announced.to_string())
        .start();
    let target = Target::Tcp(announced);
    block_on(async {
        let mut open_now = Vec::new();
        for (client, expected) in [
            ("TCP4 203.0.113.7 127.0.0.1", 200),
            ("TCP4 203.0.113.8 127.0.0.1", 200),
            ("TCP4 203.0.113.7 127.0.0.1", 429),
            ("TCP6 2001:db8::1 ::1", 200),
            ("TCP6 2001:db8::2 ::1", 429),
            ("TCP6 2001:db8:0:1::1 ::1", 200),
        ] {
            let first = format!("PROXY {client} 1 2\r\n{GET}");
            let (conn, status) = open(&target, &first).await;
            assert_eq!(status, expected, "{client}");
            open_now.push(conn);
        }
    });
    assert_eq!(limited(&gateway, "connections_per_address"), 2);
}

/// An upstream that never answers, and tells of each request.
fn holding() -> (Upstream, mpsc::Receiver<()>) {
    let (sender, came) = mpsc::channel();
    let upstream = Upstream::serve(move |mut conn| {
        let sender = sender.clone();
        async move {
            let head = conn.head().await.unwrap();
            if head.first.contains("/hold") {
                let _ = sender.send(());
                conn.drain().await;
            } else {
                let _ = conn
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                    .await;
            }
        }
    });
    (upstream, came)
}

/// Sends a request that stays in flight, then others.
fn asks(target: &Target, came: &mpsc::Receiver<()>, held: &str, others: &[(&str, u16)]) {
    block_on(async {
        let mut conn = Conn::open(target).await.unwrap();
        let request = format!("GET /hold HTTP/1.1\r\nHost: h\r\n{held}\r\n");
        conn.send(request).await.unwrap();
        came.recv_timeout(DEADLINE).unwrap();
        for (headers, expected) in others {
            let request = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
            let (mut conn, status) = open(target, &request).await;
            assert_eq!(status, *expected, "{headers}");
            // The connection stays.
            let health = "GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n";
            assert_eq!(conn.exchange(health).await.unwrap().status(), 200);
        }
        drop(conn);
    });
}

#[test]
fn requests_count_for_the_address_that_a_trusted_proxy_tells() {
    namespace::network(OUTSIDE, || {
        const LIMIT: &str = "[limits]\nrequests_per_address = 1";
        let (upstream, came) = holding();
        let (gateway, stranger) = from_outside(Setup::upstream(upstream.addr()), LIMIT);
        // What a stranger claims counts for nothing.
        let (one, other) = (
            "X-Forwarded-For: 1.1.1.1\r\n",
            "X-Forwarded-For: 1.1.1.2\r\n",
        );
        asks(&stranger, &came, one, &[("", 429), (other, 429)]);
        gateway.wait_line("answered 429: 10.77.0.3 has 1 requests in flight");
        // Without the field this machine has no limit, and with it its proxy's clients have one each.
        asks(&gateway.target(), &came, "", &[("", 200), (one, 200)]);
        asks(
            &gateway.target(),
            &came,
            one,
            &[(one, 429), (other, 200), ("", 200)],
        );
        assert_eq!(limited(&gateway, "requests_per_address"), 3);
        let trusting =
            "[gateway]\ntrusted_proxies = [\"10.77.0.0/24\"]\n[limits]\nrequests_per_address = 1";
        let (_gateway, proxy) = from_outside(Setup::upstream(upstream.addr()), trusting);
        let v6 = |address: &str| format!("X-Forwarded-For: 6.6.6.6, {address}, 10.77.0.9\r\n");
        let (here, near, far) = (v6("2001:db8::1"), v6("2001:db8::2"), v6("2001:db9::1"));
        asks(
            &proxy,
            &came,
            &here,
            &[(&near, 429), (&far, 200), ("", 200)],
        );
    });
}

#[test]
fn a_tunnel_counts_as_a_request_until_it_ends() {
    let upstream = Upstream::serve(|mut conn| async move {
        let head = conn.head().await.unwrap();
        let switched = "HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n";
        let done = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        let upgrades = head.get("upgrade").is_some();
        let _ = conn.send(if upgrades { switched } else { done }).await;
        conn.drain().await;
    });
    let gateway = Setup::upstream(upstream.addr())
        .config("[limits]\nrequests_per_address = 1\n")
        .start();
    let target = gateway.target();
    let headers = "Host: h\r\nX-Forwarded-For: 1.1.1.1\r\n";
    let get = format!("GET / HTTP/1.1\r\n{headers}\r\n");
    let tunnel = block_on(async {
        let mut conn = Conn::open(&target).await.unwrap();
        let upgrade = "Connection: Upgrade\r\nUpgrade: other\r\n";
        let request = format!("GET / HTTP/1.1\r\n{headers}{upgrade}\r\n");
        conn.send(request).await.unwrap();
        assert_eq!(conn.head().await.unwrap().status(), 101);
        assert_eq!(open(&target, &get).await.1, 429);
        conn
    });
    drop(tunnel);
    wait::until("the tunnel is over", || {
        block_on(async { (open(&target, &get).await.1 == 200).then_some(()) })
    });
}
