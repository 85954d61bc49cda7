//! Bodies far larger than memory should hold, in both directions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::client::{Conn, block_on, within};
use crate::support::gateway::{Gateway, Setup, memory_kib};
use crate::support::upstream::Upstream;
use crate::support::wait;
use tokio_util::sync::CancellationToken;

const HUGE: u64 = 512 * 1024 * 1024;
/// Half a gigabyte passes through two sockets in a debug build on a shared machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// What the gateway may grow by, whatever passes through it.
const GROWTH_KIB: u64 = 20 * 1024;
/// Whoever is not read from may have this much on the way: the kernel's buffers at four ends, and
/// ours.
const UNDERWAY: u64 = 32 * 1024 * 1024;

static PIECE: [u8; 256 * 1024] = [b'g'; 256 * 1024];

/// Swallows uploads and counts them; sends `HUGE` to who asks.
fn upstream(
    received: &Arc<AtomicU64>,
    sent: &Arc<AtomicU64>,
    reads: &CancellationToken,
) -> Upstream {
    let (received, sent, reads) = (Arc::clone(received), Arc::clone(sent), reads.clone());
    Upstream::serve(move |mut conn| {
        let (received, sent, reads) = (Arc::clone(&received), Arc::clone(&sent), reads.clone());
        async move {
            let Ok(head) = conn.head().await else { return };
            if head.first.starts_with("GET") {
                conn.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {HUGE}\r\n\r\n"))
                    .await
                    .unwrap();
                while sent.load(Ordering::Relaxed) < HUGE {
                    if conn.send(&PIECE).await.is_err() {
                        return;
                    }
                    sent.fetch_add(PIECE.len() as u64, Ordering::Relaxed);
                }
                conn.ended().await;
                return;
            }
            reads.cancelled().await;
            let counted = conn.body_into(head.framing(false), |piece| {
                received.fetch_add(piece.len() as u64, Ordering::Relaxed);
            });
            if counted.await.is_ok() {
                let _ = conn
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngot ")
                    .await;
            }
        }
    })
}

/// Watches the memory of a gateway while something goes on; gives the growth of its peak in KiB.
fn growth_of<T>(gateway: &Gateway, what: impl FnOnce() -> T) -> (T, u64) {
    let pid = gateway.pid();
    let (before, _) = memory_kib(pid);
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let watcher = std::thread::spawn(move || {
        let mut most = before;
        while !stop.load(Ordering::Relaxed) {
            most = most.max(memory_kib(pid).0);
            wait::pause(Duration::from_millis(20));
        }
        most
    });
    let result = what();
    done.store(true, Ordering::Relaxed);
    (result, watcher.join().unwrap() - before)
}

/// Waits until a counter stands still.
fn settled(counter: &AtomicU64) -> u64 {
    const STILL: Duration = Duration::from_millis(500);
    let mut last = counter.load(Ordering::Relaxed);
    loop {
        wait::pause(STILL);
        let now = counter.load(Ordering::Relaxed);
        if now == last && now > 0 {
            return now;
        }
        last = now;
    }
}

#[test]
fn half_a_gigabyte_down_passes_through_without_being_kept() {
    let (received, sent) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
    let upstream = upstream(&received, &sent, &CancellationToken::new());
    let gateway = Setup::upstream(upstream.addr()).start();
    let (got, growth) = growth_of(&gateway, || {
        block_on(async {
            let mut conn = Conn::open_narrow(&gateway.target()).await.unwrap();
            conn.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                .await
                .unwrap();
            let head = conn.head().await.unwrap();
            // A client that pauses is felt by the upstream.
            let underway = settled(&sent);
            assert!(
                underway < UNDERWAY,
                "the upstream could send {underway} bytes to a client that does not read"
            );
            let mut got = 0;
            let body = conn.body_into(head.framing(false), |piece| got += piece.len() as u64);
            within(PATIENCE, body).await.unwrap();
            got
        })
    });
    assert_eq!(got, HUGE);
    assert!(growth < GROWTH_KIB, "the gateway grew by {growth} KiB");
}

#[test]
fn half_a_gigabyte_up_passes_through_without_being_kept() {
    for chunked in [false, true] {
        let (received, sent) = <(Arc<AtomicU64>, Arc<AtomicU64>)>::default();
        let reads = CancellationToken::new();
        let upstream = upstream(&received, &sent, &reads);
        let gateway = Setup::upstream(upstream.addr()).start();
        let written = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&written);
        let target = gateway.target();
        let (answer, growth) = growth_of(&gateway, || {
            let client = std::thread::spawn(move || {
                block_on(async {
                    let mut conn = Conn::open(&target).await.unwrap();
                    let framing = if chunked {
                        "Transfer-Encoding: chunked".to_owned()
                    } else {
                        format!("Content-Length: {HUGE}")
                    };
                    conn.send(format!("POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"))
                        .await
                        .unwrap();
                    while counter.load(Ordering::Relaxed) < HUGE {
                        if chunked {
                            conn.send(format!("{:x}\r\n", PIECE.len())).await.unwrap();
                        }
                        conn.send(&PIECE).await.unwrap();
                        if chunked {
                            conn.send("\r\n").await.unwrap();
                        }
                        counter.fetch_add(PIECE.len() as u64, Ordering::Relaxed);
                    }
                    if chunked {
                        conn.send("0\r\n\r\n").await.unwrap();
                    }
                    within(PATIENCE, conn.response(false)).await.unwrap()
                })
            });
            // An upstream that does not read is felt by the client.
            let underway = settled(&written);
            assert!(
                underway < UNDERWAY,
                "the client could send {underway} bytes to an upstream that does not read"
            );
            reads.cancel();
            client.join().unwrap()
        });
        assert_eq!(
            (answer.status(), received.load(Ordering::Relaxed)),
            (200, HUGE),
            "chunked {chunked}"
        );
        assert!(
            growth < GROWTH_KIB,
            "chunked {chunked}: the gateway grew by {growth} KiB"
        );
    }
}

#[test]
fn a_body_over_the_limit_is_413_and_one_below_it_passes() {
    let recorder = crate::support::upstream::Recorder::ok();
    let gateway = Setup::upstream(recorder.addr())
        .config("[limits]\nbody = 1000\n")
        .start();
    block_on(async {
        for (length, chunked, status) in [
            (1000, false, 200),
            (1000, true, 200),
            (1001, false, 413),
            (1001, true, 413),
        ] {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let body = "x".repeat(length);
            let text = if chunked {
                format!(
                    "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n"
                )
            } else {
                format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
            };
            let answer = within(wait::DEADLINE, conn.exchange(text)).await.unwrap();
            assert_eq!(answer.status(), status, "{length} bytes, chunked {chunked}");
        }
    });
    assert_eq!(
        recorder.seen().len(),
        2,
        "what is too large never arrives whole"
    );
}
