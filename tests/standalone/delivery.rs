//! Connections that end at the wrong moment: what is sent again, what never is, and what each side
//! is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::client::{Conn, Fault, Framing, Target, block_on, request, within};
use crate::support::gateway::Setup;
use crate::support::upstream::{Recorder, Upstream, receive};
use crate::support::wait::{self, DEADLINE};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

/// What the upstream announces, and after which it closes.
const UPSTREAM_IDLE: Duration = Duration::from_secs(1);

/// A busy upstream decides to close a little before it does: what comes in between is lost.
const UPSTREAM_LAG: Duration = Duration::from_millis(5);

/// An upstream that closes a kept connection when it said it would, and counts how often each path
/// came.
fn closes_when_idle(counts: &Arc<Mutex<HashMap<String, usize>>>) -> Upstream {
    let counts = Arc::clone(counts);
    Upstream::serve(move |mut conn| {
        let counts = Arc::clone(&counts);
        async move {
            let mut idle = Duration::from_secs(60);
            while let Ok(Ok(received)) = timeout(idle, receive(&mut conn)).await {
                *counts
                    .lock()
                    .unwrap()
                    .entry(received.target().to_owned())
                    .or_default() += 1;
                let seconds = UPSTREAM_IDLE.as_secs();
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout={seconds}\r\n\r\nok"
                );
                if conn.send(answer).await.is_err() {
                    return;
                }
                idle = UPSTREAM_IDLE;
            }
            // Nothing is read any more; then the connection goes, with what nobody read.
            tokio::time::sleep(UPSTREAM_LAG).await;
        }
    })
}

/// One connection after another: a request, then silence until the upstream is about to close, then
/// `text`.
async fn at_the_edge(
    target: Target,
    worker: u64,
    tries: u64,
    text: impl Fn(u64) -> String,
) -> Vec<(u64, Fault)> {
    let mut lost = Vec::new();
    for number in 0..tries {
        let mut conn = Conn::open(&target).await.unwrap();
        let primed = within(
            DEADLINE,
            conn.exchange("GET /prime HTTP/1.1\r\nHost: h\r\n\r\n"),
        )
        .await
        .unwrap();
        assert_eq!(primed.status(), 200);
        // From 4 ms before to 5 ms after the end of the upstream's patience.
        let offset = (worker + number) % 10;
        sleep_until(
            Instant::now() + UPSTREAM_IDLE + Duration::from_millis(offset)
                - Duration::from_millis(4),
        )
        .await;
        let id = worker * tries + number;
        match within(DEADLINE, conn.exchange(text(id))).await {
            Ok(answer) if answer.status() == 200 => {}
            Ok(answer) => lost.push((
                id,
                Fault::Garbage(format!("{}: {}", answer.head.first, answer.text())),
            )),
            Err(fault) => lost.push((id, fault)),
        }
    }
    lost
}

fn at_every_edge(
    target: &Target,
    workers: u64,
    tries: u64,
    text: impl Fn(u64) -> String + Copy + Send + 'static,
) -> Vec<(u64, Fault)> {
    block_on(async {
        let mut tasks = JoinSet::new();
        for worker in 0..workers {
            tasks.spawn(at_the_edge(target.clone(), worker, tries, text));
        }
        tasks.join_all().await.concat()
    })
}

fn post(id: u64) -> String {
    format!("POST /post/{id} HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")
}

#[test]
fn posts_at_the_edge_of_an_idle_close_all_arrive_once() {
    let counts = Arc::default();
    let upstream = closes_when_idle(&counts);
    // The edge is real: who talks to this upstream directly and keeps its connection falls over it.
    let direct = at_every_edge(&Target::Tcp(upstream.addr()), 50, 1, post);
    assert!(
        !direct.is_empty(),
        "no direct client met the close, so the edge was missed"
    );
    counts.lock().unwrap().clear();
    let gateway = Setup::upstream(upstream.addr()).start();
    let lost = at_every_edge(&gateway.target(), 50, 10, post);
    assert!(
        lost.is_empty(),
        "{} of 500 posts failed: {lost:?}",
        lost.len()
    );
    let counts = counts.lock().unwrap();
    for id in 0..500 {
        assert_eq!(counts.get(&format!("/post/{id}")), Some(&1), "post {id}");
    }
}

#[test]
fn gets_at_the_edge_of_an_idle_close_are_sent_again_when_need_be() {
    let counts = Arc::default();
    let upstream = closes_when_idle(&counts);
    let gateway = Setup::upstream(upstream.addr()).start();
    let lost = at_every_edge(&gateway.target(), 50, 4, |id| {
        format!("GET /get/{id} HTTP/1.1\r\nHost: h\r\n\r\n")
    });
    assert!(
        lost.is_empty(),
        "{} of 200 gets failed: {lost:?}",
        lost.len()
    );
}

#[test]
fn kept_upstream_connections_are_used_again() {
    let accepted = Arc::new(AtomicUsize::new(0));
    let ours = Arc::clone(&accepted);
    let upstream = Upstream::serve(move |mut conn| {
        ours.fetch_add(1, Ordering::Relaxed);
        async move {
            while receive(&mut conn).await.is_ok()
                && conn
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .await
                    .is_ok()
            {}
        }
    });
    let gateway = Setup::upstream(upstream.addr())
        .config("[gateway]\nworkers = 1\n")
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        for number in 0..100 {
            let text = if number % 2 == 0 {
                "GET / HTTP/1.1\r\nHost: h\r\n\r\n".to_owned()
            } else {
                post(number)
            };
            assert_eq!(
                within(DEADLINE, conn.exchange(text))
                    .await
                    .unwrap()
                    .status(),
                200
            );
        }
    });
    let used = accepted.load(Ordering::Relaxed);
    assert!(
        used <= 3,
        "100 requests one after the other took {used} connections"
    );
}

/// How an upstream that has no wish for a body goes on after its answer.
#[derive(Clone, Copy, Debug)]
enum After {
    /// Closes at once: what it did not read makes the kernel send a reset.
    Close,
    /// Ends its side, then reads the rest.
    Linger,
    /// Neither reads nor closes.
    Stay,
}

fn too_large(after: After) -> Upstream {
    Upstream::serve(move |mut conn| async move {
        let Ok(_) = conn.head().await else { return };
        let _ = conn.send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large").await;
        match after {
            After::Close => {}
            After::Linger => {
                let _ = conn.finish().await;
                conn.drain().await;
            }
            After::Stay => {
                let _ = timeout(DEADLINE, std::future::pending::<()>()).await;
            }
        }
    })
}

/// Uploads 1 MiB while it reads the answer; whether the connection was reset after the answer is
/// told too.
async fn upload(target: Target, chunked: bool) -> Result<(u16, String), Fault> {
    const PIECE: [u8; 16 * 1024] = [b'x'; 16 * 1024];
    const PIECES: usize = 64;
    let (io, _) = Conn::open(&target).await?.into_inner();
    let (read, write) = tokio::io::split(io);
    let writer = tokio::spawn(async move {
        let mut write = Conn::over(tokio::io::join(tokio::io::empty(), write));
        let framing = if chunked {
            "Transfer-Encoding: chunked".to_owned()
        } else {
            format!("Content-Length: {}", PIECE.len() * PIECES)
        };
        write
            .send(format!(
                "POST /upload HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"
            ))
            .await?;
        for _ in 0..PIECES {
            if chunked {
                write.send(format!("{:x}\r\n", PIECE.len())).await?;
            }
            write.send(PIECE).await?;
            if chunked {
                write.send("\r\n").await?;
            }
        }
        if chunked {
            write.send("0\r\n\r\n").await?;
        }
        Ok::<_, Fault>(write)
    });
    let mut read = Conn::over(tokio::io::join(read, tokio::io::sink()));
    let answer = within(DEADLINE, read.response(false)).await?;
    writer.abort();
    Ok((answer.status(), answer.text()))
}

fn early_answers(after: After, tries: usize) {
    let upstream = too_large(after);
    let gateway = Setup::upstream(upstream.addr()).start();
    let lost = block_on(async {
        let mut lost = Vec::new();
        for wave in 0..tries / 10 {
            let mut tasks = JoinSet::new();
            for number in 0..10 {
                tasks.spawn(upload(gateway.target(), (wave + number) % 2 == 0));
            }
            for answer in tasks.join_all().await {
                if answer != Ok((413, "too large".to_owned())) {
                    lost.push(answer);
                }
            }
        }
        lost
    });
    assert!(
        lost.is_empty(),
        "{after:?}: {} of {tries} early answers were lost: {:?}",
        lost.len(),
        &lost[..lost.len().min(5)]
    );
    gateway.wait_status("nothing is left of them", |status| status["requests"] == 0);
}

#[test]
fn an_answer_before_the_end_of_the_body_is_forwarded_though_the_upstream_resets() {
    early_answers(After::Close, 300);
}

#[test]
fn an_answer_before_the_end_of_the_body_is_forwarded_when_the_upstream_reads_on() {
    early_answers(After::Linger, 100);
}

#[test]
fn an_answer_before_the_end_of_the_body_is_forwarded_when_the_upstream_stays_silent() {
    early_answers(After::Stay, 100);
}

#[test]
fn an_upload_that_its_client_abandons_never_looks_whole_to_the_upstream() {
    for chunked in [false, true] {
        let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
        let upstream = Upstream::serve(move |mut conn| {
            let (told, begun) = (told.clone(), begun.clone());
            async move {
                let Ok(head) = conn.head().await else { return };
                let mut first = true;
                let end = conn
                    .body_into(head.framing(false), |_| {
                        if std::mem::take(&mut first) {
                            begun.send(()).unwrap();
                        }
                    })
                    .await;
                let _ = told.send(end);
            }
        });
        let gateway = Setup::upstream(upstream.addr()).start();
        block_on(async {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            let framing = if chunked {
                "Transfer-Encoding: chunked"
            } else {
                "Content-Length: 100"
            };
            let body = if chunked { "5\r\nhello\r\n" } else { "hello" };
            conn.send(format!(
                "POST / HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n{body}"
            ))
            .await
            .unwrap();
            timeout(DEADLINE, begins.recv())
                .await
                .expect("the upload is under way")
                .unwrap();
            drop(conn);
            let end = timeout(DEADLINE, ends.recv())
                .await
                .expect("the upstream hears of it")
                .unwrap();
            assert!(
                matches!(end, Err(Fault::Truncated | Fault::Reset | Fault::Eof)),
                "chunked {chunked}: {end:?}"
            );
        });
        gateway.wait_status("nothing is left of it", |status| {
            status["requests"] == 0 && status["connections"] == 0
        });
    }
}

/// Closes with a reset.
fn reset(stream: TcpStream) {
    stream.set_zero_linger().unwrap();
    drop(stream);
}

#[test]
fn an_upstream_stops_working_for_a_client_that_is_gone() {
    let (told, mut ends) = tokio::sync::mpsc::unbounded_channel();
    let upstream = Upstream::serve(move |mut conn| {
        let told = told.clone();
        async move {
            let Ok(received) = receive(&mut conn).await else {
                return;
            };
            if received.target() == "/download" {
                let _ = conn
                    .send("HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
                    .await;
                while conn.send([b'x'; 65_536]).await.is_ok() {}
                let _ = told.send(());
            } else {
                conn.ended().await;
                let _ = told.send(());
            }
        }
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    block_on(async {
        for path in ["/download", "/wait"] {
            let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
            stream
                .write_all(format!("GET {path} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes())
                .await
                .unwrap();
            gateway.wait_status("the request is under way", |status| status["requests"] == 1);
            reset(stream);
            timeout(DEADLINE, ends.recv())
                .await
                .unwrap_or_else(|_| panic!("{path}: the upstream works on for nobody"))
                .unwrap();
            gateway.wait_status("nothing is left of it", |status| {
                status["requests"] == 0 && status["connections"] == 0
            });
        }
    });
}

#[test]
fn an_answer_that_breaks_off_never_looks_whole_to_the_client() {
    for (name, text) in [
        (
            "a length",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n",
        ),
        (
            "half a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this",
        ),
    ] {
        for with_reset in [false, true] {
            let upstream = Upstream::serve_raw(move |mut stream| async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n")
                    && stream.read_buf(&mut head).await.is_ok_and(|read| read > 0)
                {}
                let _ = stream.write_all(text.as_bytes()).await;
                if with_reset {
                    // The reset must not overtake what was sent.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    reset(stream);
                }
            });
            let gateway = Setup::upstream(upstream.addr()).start();
            block_on(async {
                let mut conn = Conn::open(&gateway.target()).await.unwrap();
                conn.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
                    .await
                    .unwrap();
                let head = within(DEADLINE, conn.head()).await.unwrap();
                assert_eq!(
                    head.status(),
                    200,
                    "{name}, reset {with_reset}: {:?}",
                    conn.buffered()
                );
                assert_ne!(
                    head.framing(false),
                    Framing::Close,
                    "{name}: the client cannot see where it ends: {head:?}"
                );
                let mut body = Vec::new();
                let end = within(
                    DEADLINE,
                    conn.body_into(head.framing(false), |piece| body.extend_from_slice(piece)),
                )
                .await;
                assert!(
                    matches!(end, Err(Fault::Truncated | Fault::Reset)),
                    "{name}, reset {with_reset}: {end:?}"
                );
                assert!(b"only this".starts_with(&body), "{name}: {body:?}");
            });
            gateway.wait_status("nothing is left of it", |status| {
                status["requests"] == 0 && status["connections"] == 0
            });
        }
    }
}

/// An upstream that reads requests and ends the connection without a word; how many came.
fn speechless() -> Recorder {
    Recorder::answering(|_| Vec::new())
}

#[test]
fn a_post_without_an_answer_is_502_and_was_sent_once() {
    let recorder = speechless();
    let gateway = Setup::upstream(recorder.addr()).start();
    for id in 0..20 {
        // With and without a body: it is the method that forbids a second try.
        let text = if id % 2 == 0 {
            post(id)
        } else {
            post(id).replace("Length: 5\r\n\r\nhello", "Length: 0\r\n\r\n")
        };
        let answer = block_on(request(
            &gateway.target(),
            &text.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
        ))
        .unwrap();
        assert_eq!(answer.status(), 502, "{}", answer.text());
    }
    let mut targets: Vec<String> = recorder
        .seen()
        .iter()
        .map(|got| got.target().to_owned())
        .collect();
    targets.sort();
    targets.dedup();
    assert_eq!(
        (targets.len(), recorder.seen().len()),
        (20, 20),
        "each post once"
    );
}

#[test]
fn an_upstream_that_breaks_off_in_the_middle_of_an_upload_is_502() {
    let upstream = Upstream::serve(|mut conn| async move {
        let _ = conn.head().await;
        let _ = conn.take(10_000).await;
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    block_on(async {
        for number in 0..20 {
            let answer = upload(gateway.target(), number % 2 == 0).await;
            assert!(matches!(answer, Ok((502, _))), "{answer:?}");
        }
    });
    gateway.wait_status("nothing is left of them", |status| status["requests"] == 0);
}

#[test]
fn an_upstream_that_is_not_there_is_502_and_named_in_the_log() {
    let addr = std::net::SocketAddr::from(([127, 0, 0, 1], crate::support::port::private()));
    let gateway = Setup::upstream(addr).start();
    let answer = block_on(request(
        &gateway.target(),
        &post(1).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"),
    ))
    .unwrap();
    assert_eq!(answer.status(), 502, "{}", answer.text());
    let line = gateway.wait_line("answered 502: ");
    assert!(line.contains(&addr.to_string()), "{line}");
}

#[test]
fn garbage_from_an_upstream_is_502() {
    for text in [
        "SSH-2.0-OpenSSH_9.2\r\n\r\n",
        "HTTP/1.1 banana\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ] {
        let recorder =
            Recorder::answering(move |_| format!("{text}connection: close").into_bytes());
        let gateway = Setup::upstream(recorder.addr()).start();
        let answer = block_on(request(
            &gateway.target(),
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        ))
        .unwrap();
        assert_eq!(answer.status(), 502, "{text:?}: {}", answer.text());
    }
}

#[test]
fn two_hundred_abandoned_clients_leave_no_descriptor_behind() {
    let upstream = Upstream::serve(|mut conn| async move {
        let _ = receive(&mut conn).await;
        conn.ended().await;
    });
    let gateway = Setup::upstream(upstream.addr()).start();
    let before = gateway.fds();
    block_on(async {
        let mut streams = Vec::new();
        for number in 0..200 {
            let mut stream = TcpStream::connect(gateway.addr()).await.unwrap();
            // A quarter says nothing, one half a head, one half a body, one a whole request.
            let text = [
                "",
                "GET / HT",
                "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
                "GET / HTTP/1.1\r\nHost: h\r\n\r\n",
            ];
            stream.write_all(text[number % 4].as_bytes()).await.unwrap();
            streams.push((number, stream));
        }
        gateway.wait_status("all are there", |status| {
            status["connections"] == 200 && status["requests"] == 100
        });
        for (number, stream) in streams {
            // After a whole request an orderly end may mean that the client still listens; a reset
            // never does.
            if number % 4 == 3 || number % 8 == 0 {
                reset(stream);
            }
        }
    });
    gateway.wait_status("all are gone", |status| {
        status["connections"] == 0 && status["requests"] == 0
    });
    let left = wait::within(DEADLINE, || (gateway.fds() <= before + 2).then_some(()));
    assert!(
        left.is_some(),
        "{before} descriptors before, {} after",
        gateway.fds()
    );
}
