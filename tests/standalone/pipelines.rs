//! Random pipelines of bodies and early answers while one fresh process after the other takes over:
//! no byte of a body becomes a request, and no answer goes to another request.
//!
//! `PIPELINES=100000` sets the number of exchanges, `PIPELINES_SEED` the seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::support::client::{Conn, Fault, Target, block_on, within};
use crate::support::gateway::{Setup, said};
use crate::support::random::Random;
use crate::support::upstream::Upstream;
use crate::support::wait::DEADLINE;

/// Exchanges in the suite.
const EXCHANGES: u64 = 4_000;

/// Clients at a time.
const CLIENTS: u64 = 12;

/// `limits.body`
const BODY_MAX: usize = 3_000;

/// One request, and what may answer it.
struct Request {
    bytes: Vec<u8>,
    /// The body of an answer by the upstream.
    id: String,
    /// The statuses that may answer it.
    statuses: &'static [u16],
    /// Whether the connection may end after this answer.
    may_end: bool,
}

impl Request {
    fn random(random: &mut Random, id: String) -> Self {
        let (path, early) = match random.below(10) {
            0 => ("/nowhere/", true),
            1 => ("/_gateway/metrics?", true),
            2 => ("/app/early/", true),
            3 => ("/app/refuse/", true),
            _ => ("/app/", false),
        };
        // An answer that the upstream has begun is not replaced by a 413.
        let large = !path.starts_with("/app/") || path == "/app/";
        let large = large && (random.below(6) == 0);
        let size = match large {
            true => BODY_MAX + 1 + random.below(9_000),
            false => random.below(BODY_MAX),
        };
        // Whatever is read in the middle of it is a request.
        let mut body = Vec::new();
        while body.len() < size {
            body.extend_from_slice(
                format!("GET /app/smuggled/{id} HTTP/1.1\r\nHost: h\r\n\r\n").as_bytes(),
            );
        }
        body.truncate(size);
        let mut bytes = format!("POST {path}{id} HTTP/1.1\r\nHost: h\r\n").into_bytes();
        if random.below(8) == 0 {
            body.clear();
            bytes = format!("GET {path}{id} HTTP/1.1\r\nHost: h\r\n\r\n").into_bytes();
        } else if random.below(2) == 0 {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(&body);
        } else {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            let mut rest = &body[..];
            while !rest.is_empty() {
                let (chunk, more) = rest.split_at(rest.len().min(1 + random.below(2_000)));
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
                rest = more;
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        let large = large && !body.is_empty();
        let statuses = match path {
            "/nowhere/" => &[404, 413][..],
            "/_gateway/metrics?" => &[401],
            "/app/refuse/" => &[403],
            "/app/" if large => &[413],
            _ => &[200],
        };
        Self {
            bytes,
            id,
            statuses,
            may_end: (early || large) && !body.is_empty(),
        }
    }
}

/// Answers with the id of a request: at its end or, below `/early` and `/refuse`, at once.
async fn upstream(mut conn: Conn, seen: Arc<Mutex<Vec<String>>>) {
    while let Ok(head) = conn.head().await {
        let target = head.first.split(' ').nth(1).unwrap_or_default().to_owned();
        let id = target.rsplit('/').next().unwrap_or_default().to_owned();
        let early = target.contains("/early/") || target.contains("/refuse/");
        let status = if target.contains("/refuse/") {
            403
        } else {
            200
        };
        seen.lock().unwrap().push(target);
        let answer = format!(
            "HTTP/1.1 {status} Answer\r\nContent-Length: {}\r\n\r\n{id}",
            id.len()
        );
        if early && conn.send(&answer).await.is_err() {
            return;
        }
        if conn.body(head.framing(false)).await.is_err() {
            return;
        }
        if !early && conn.send(&answer).await.is_err() {
            return;
        }
    }
}

/// Sends requests in pieces, one after the other or several at once, and checks each answer.
async fn client(target: Target, mut random: Random, name: u64, left: Arc<AtomicU64>) {
    let mut number = 0;
    while left.load(Ordering::Relaxed) > 0 {
        let mut conn = Conn::open(&target).await.unwrap();
        loop {
            let batch: Vec<Request> = (0..=random.below(3))
                .map(|at| Request::random(&mut random, format!("c{name}n{number}at{at}")))
                .collect();
            number += 1;
            let count = batch.len() as u64;
            let take = |left: u64| (left > 0).then(|| left.saturating_sub(count));
            let taken = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
            if taken.is_err() || !exchange(&mut conn, &batch, &mut random).await {
                break;
            }
        }
    }
}

/// Sends a batch and reads its answers. Returns whether the connection goes on.
async fn exchange(conn: &mut Conn, batch: &[Request], random: &mut Random) -> bool {
    let bytes: Vec<u8> = batch
        .iter()
        .flat_map(|request| request.bytes.iter().copied())
        .collect();
    let sent = send_in_pieces(conn, &bytes, random).await;
    let mut may_end = false;
    for request in batch {
        let id = &request.id;
        let answer = match within(DEADLINE, conn.response(false)).await {
            Ok(answer) => answer,
            Err(Fault::Eof | Fault::Reset) if may_end => return false,
            Err(fault) => panic!("{id}: {fault}; sent: {sent:?}"),
        };
        let status = answer.status();
        assert!(
            request.statuses.contains(&status),
            "{id}: {status} {}",
            answer.text()
        );
        if matches!(status, 200 | 403) {
            assert_eq!(&answer.text(), id);
        }
        may_end |= request.may_end;
        if !answer.head.keeps() {
            return false;
        }
    }
    assert!(sent.is_ok() || may_end, "{}: {sent:?}", batch[0].id);
    if random.below(4) == 0 {
        // What comes now was not asked for; the connection itself may be closed.
        let silence = Duration::from_millis(random.next() % 40);
        match tokio::time::timeout(silence, conn.ended()).await {
            Err(_) => {}
            Ok(Fault::Eof | Fault::Reset) if may_end => return false,
            Ok(end) => panic!("{}: {end}", batch[0].id),
        }
    }
    assert!(conn.buffered().is_empty(), "unasked: {:?}", conn.buffered());
    sent.is_ok()
}

async fn send_in_pieces(conn: &mut Conn, bytes: &[u8], random: &mut Random) -> Result<(), Fault> {
    let mut rest = bytes;
    // Some at once, some cut anywhere: in a head, in a chunk's size, in a body.
    let most = if random.below(3) == 0 {
        rest.len()
    } else {
        1 + random.below(3_000)
    };
    while !rest.is_empty() {
        let (piece, more) = rest.split_at(rest.len().min(1 + random.below(most)));
        conn.send(piece).await?;
        rest = more;
        if random.below(3) == 0 {
            tokio::time::sleep(Duration::from_millis(random.next() % 8)).await;
        }
    }
    Ok(())
}

#[test]
fn no_byte_of_a_body_becomes_a_request_while_fresh_processes_take_over() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let exchanges = number("PIPELINES").unwrap_or(EXCHANGES);
    let seed = number("PIPELINES_SEED").unwrap_or(11);
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let noted = Arc::clone(&seen);
    let behind = Upstream::serve(move |conn| upstream(conn, Arc::clone(&noted)));
    let gateway = Setup::new()
        .env("GATEWAY_SUPERVISOR", "none")
        .config(format!(
            "[limits]\nbody = {BODY_MAX}\n[[route]]\npath = \"/app\"\nto = \"http://{}\"\n",
            behind.addr()
        ))
        .start();
    let target = gateway.target();
    let clients = std::thread::spawn(move || {
        block_on(async {
            let left = Arc::new(AtomicU64::new(exchanges));
            let mut clients = tokio::task::JoinSet::new();
            for name in 0..CLIENTS {
                let random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(name));
                clients.spawn(client(target.clone(), random, name, Arc::clone(&left)));
            }
            // The first that fails ends all.
            while let Some(ended) = clients.join_next().await {
                ended.unwrap();
            }
        });
    });
    let mut restarts = 0;
    while !clients.is_finished() {
        // More than a few at once, and the oldest is cut.
        gateway.wait_status("few processes drain", |status| {
            let drainers = status["drainers"].as_array();
            drainers.is_some_and(|all| all.len() < 4)
        });
        let output = gateway.ctl(["restart", "--fresh"]);
        assert!(output.status.success(), "{}", said(&output));
        restarts += 1;
    }
    clients.join().unwrap();
    assert!(restarts > 2, "{restarts}");
    let seen = seen.lock().unwrap();
    let smuggled = seen.iter().find(|target| target.contains("smuggled"));
    assert_eq!(smuggled, None, "of {}", seen.len());
}
