//! What clients that stand still cost the gateway in memory. The bounds are twice what was measured,
//! and far below what it was without the small buffers.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::Upstream;
use crate::support::wait;

/// What a stalled reader or upload may take, in KiB.
const STALLED: u64 = 300;

/// What an idle kept client may take, in KiB.
const IDLE: u64 = 12;

/// For what is counted besides: the allocator's arenas, and up to 64 kept connections to the upstream
/// for each thread.
const SLACK: u64 = 10 * 1024;

/// So long nothing moves when all stand still.
const STILL: Duration = Duration::from_secs(1);

/// Memory of the gateway's own, in KiB: without the pages of its program, of which a build for
/// debugging has many.
fn memory(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.pid());
    let text = std::fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number.unwrap().parse().unwrap()
}

/// `/large` sends without end, `/stall` reads nothing, all else is answered at once. Counts what it
/// sends.
fn upstream(sent: &Arc<AtomicU64>) -> Upstream {
    let sent = Arc::clone(sent);
    Upstream::serve(move |mut conn| {
        let sent = Arc::clone(&sent);
        async move {
            while let Ok(head) = conn.head().await {
                if head.first.contains("/stall") {
                    std::future::pending::<()>().await;
                }
                if head.first.contains("/large") {
                    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n";
                    let mut going = conn.send(head).await;
                    let piece = "x".repeat(16 * 1024);
                    while going.is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                        going = conn.send(&piece).await;
                    }
                    return;
                }
                let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                let _ = conn.send(answer).await;
            }
        }
    })
}

fn ask(gateway: &Gateway, request: &str) -> TcpStream {
    let mut client = TcpStream::connect(gateway.addr()).unwrap();
    client.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    client.write_all(request.as_bytes()).unwrap();
    client
}

fn idle(gateway: &Gateway, count: u64) -> Vec<TcpStream> {
    (0..count)
        .map(|_| {
            let mut client = ask(gateway, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
            let mut answer = [0; 512];
            assert!(client.read(&mut answer).unwrap() > 0);
            client
        })
        .collect()
}

/// Waits until a number has not changed for [`STILL`].
fn until_still(mut number: impl FnMut() -> u64) {
    let (mut last, mut since) = (number(), Instant::now());
    wait::until("nothing moves", || {
        let now = number();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        (since.elapsed() >= STILL).then_some(())
    });
}

fn within(gateway: &Gateway, most: u64) {
    let mut now = 0;
    let small = wait::within(wait::DEADLINE, || {
        now = memory(gateway);
        (now <= most).then_some(())
    });
    assert!(small.is_some(), "{now} KiB, and {most} are allowed");
}

#[test]
fn idle_clients_are_small_and_what_they_took_comes_back() {
    const CLIENTS: u64 = 900;
    let behind = upstream(&Arc::default());
    let gateway = Setup::upstream(behind.addr()).start();
    drop(idle(&gateway, 20));
    let before = memory(&gateway);
    let mut clients = idle(&gateway, CLIENTS);
    within(&gateway, before + CLIENTS * IDLE);
    for client in &mut clients {
        let request = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n";
        client.write_all(request).unwrap();
        let mut answer = [0; 512];
        let count = client.read(&mut answer).unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 200"));
    }
    drop(clients);
    within(&gateway, before + SLACK);
}

#[test]
fn readers_and_uploads_that_stand_still_take_little() {
    const CLIENTS: u64 = 40;
    let sent = Arc::default();
    let behind = upstream(&sent);
    let gateway = Setup::upstream(behind.addr()).start();
    drop(idle(&gateway, 20));
    let before = memory(&gateway);
    let readers: Vec<_> = (0..CLIENTS)
        .map(|_| ask(&gateway, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"))
        .collect();
    until_still(|| sent.load(Ordering::Relaxed));
    let took = memory(&gateway).saturating_sub(before);
    assert!(took < CLIENTS * STALLED + SLACK, "readers: {took} KiB");
    drop(readers);
    let before = memory(&gateway);
    let head = "POST /stall HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";
    let mut uploads: Vec<_> = (0..CLIENTS).map(|_| ask(&gateway, head)).collect();
    let (piece, mut total) = ([b'x'; 16 * 1024], 0);
    for upload in &uploads {
        upload.set_nonblocking(true).unwrap();
    }
    until_still(|| {
        for upload in &mut uploads {
            while let Ok(count) = upload.write(&piece) {
                total += count as u64;
            }
        }
        total
    });
    let took = memory(&gateway).saturating_sub(before);
    assert!(took < CLIENTS * STALLED + SLACK, "uploads: {took} KiB");
}
