//! What clients that stand still cost the front door, in memory and in time, beside nginx with two
//! workers in front of the same upstream.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Map, Value, json};

use super::nginx::Nginx;
use super::support::gateway::{Gateway, Setup, descendants, memory_kib};
use super::support::upstream::Upstream;
use super::support::{servers, wait};
use super::{Size, middle_and_most, tenths};

/// Until memory is looked at: the gateway gives it back a few seconds after a wave.
const SETTLE: Duration = Duration::from_secs(10);

/// Clients of the wave.
const WAVE: usize = 5000;

/// What nginx may have, for all that is measured here.
const DESCRIPTORS: u64 = 16_384;

/// How long anything may take that takes no time by itself.
const PATIENCE: Duration = Duration::from_secs(5);

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: a\r\n\r\n";
const LARGE: &str = "GET /large HTTP/1.1\r\nhost: a\r\n\r\n";
const UPLOAD: &str = "POST /stall HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000000\r\n\r\n";
const HALF_BODY: &str = "POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nhalf";
const HALF_HEAD: &str = "GET / HTTP/1.1\r\nhost: a\r\nx-half: ";
const TUNNEL: &str = "GET /ws HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Every limit of time set to a second, for both.
const SECOND: [&str; 2] = [
    "[limits]\nheader_time = \"1s\"\nbody_idle = \"1s\"\nanswer = \"1s\"\nsend_idle = \"1s\"\n",
    "client_header_timeout 1s; client_body_timeout 1s; proxy_read_timeout 1s; send_timeout 1s;",
];

/// An upstream that answers `/`, waits at `/wait`, sends without end at `/large`, reads nothing at
/// `/stall` and makes a tunnel of `/ws`. It tells when a client that waited or was sent to is gone.
pub fn behind(gone: Sender<Instant>) -> Upstream {
    Upstream::serve(move |mut conn| {
        let gone = gone.clone();
        async move {
            while let Ok(head) = conn.head().await {
                let target = head.first.split(' ').nth(1).unwrap_or_default().to_owned();
                match target.as_str() {
                    "/wait" => drop(conn.drain().await),
                    "/large" => {
                        let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
                        let mut sent = conn.send(head).await;
                        while sent.is_ok() {
                            sent = conn.send("x".repeat(64 * 1024)).await;
                        }
                    }
                    "/stall" => std::future::pending().await,
                    "/ws" => {
                        let head = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
                        let _ = conn.send(head).await;
                        drop(conn.drain().await);
                    }
                    _ => {
                        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                        if conn.send(answer).await.is_ok() {
                            continue;
                        }
                    }
                }
                let _ = gone.send(Instant::now());
                return;
            }
        }
    })
}

/// A front door, ours or nginx.
pub enum Door {
    Gateway(Box<Gateway>),
    Nginx(Nginx),
}

impl Door {
    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Gateway(gateway) => gateway.addr(),
            Self::Nginx(nginx) => ([127, 0, 0, 1], nginx.port).into(),
        }
    }

    /// Resident memory in KiB, of all its processes.
    fn memory(&self) -> f64 {
        let (pid, family) = match self {
            Self::Gateway(gateway) => (gateway.pid(), Vec::new()),
            Self::Nginx(nginx) => (nginx.child.id(), descendants(nginx.child.id())),
        };
        let all = family.iter().map(|(pid, _)| *pid).chain([pid]);
        all.map(|pid| memory_kib(pid).0 as f64).sum()
    }
}

/// Both, in front of `upstream`; `limits` for each, in its own language.
pub fn doors(upstream: SocketAddr, limits: [&str; 2]) -> [(&'static str, Door); 2] {
    let gateway = Setup::upstream(upstream).config(limits[0]).start();
    [
        ("gateway", Door::Gateway(Box::new(gateway))),
        ("nginx", Door::Nginx(nginx(upstream, limits[1]))),
    ]
}

fn nginx(upstream: SocketAddr, limits: &str) -> Nginx {
    Nginx::with_descriptors(
        2,
        DESCRIPTORS,
        &format!(
            "{limits}\nupstream up {{ server {upstream}; keepalive 64; }}\n\
             server {{ listen 127.0.0.1:PORT backlog=4096; client_max_body_size 0; location /healthz {{ return 200; }}\n\
             location / {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $http_host; \
             proxy_request_buffering off; proxy_max_temp_file_size 0; }}\n\
             location /ws {{ proxy_pass http://up; proxy_http_version 1.1; proxy_set_header Connection upgrade; proxy_set_header Upgrade $http_upgrade; }} }}"
        ),
    )
}

/// Clients have as many descriptors as the system allows.
pub fn raise_descriptors() -> u64 {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    hard
}

pub fn measure(size: Size) -> Value {
    if !servers::have("nginx") {
        return json!({ "skipped": "nginx is not installed" });
    }
    let hard = raise_descriptors();
    let mut all = Map::new();
    let mut add = |name: &str, figures: [Value; 2]| {
        let [ours, theirs] = figures.map(|figure| match figure {
            Value::String(text) => text,
            figure => figure.to_string(),
        });
        let text = format!("gateway {ours}, nginx {theirs}");
        drop(all.insert(name.to_owned(), Value::from(text)));
    };
    let (sender, gone) = mpsc::channel();
    let upstream = behind(sender);
    let upstream = upstream.addr();
    let few = size.standing;
    for (name, count, request) in [
        ("KiB per idle kept client", 4 * few, GET),
        ("KiB per unfinished head", 4 * few, HALF_HEAD),
        ("KiB per reader that stands still", few, LARGE),
        ("KiB per upload that stands still", few, UPLOAD),
        ("KiB per quiet tunnel", few, TUNNEL),
    ] {
        let figures = doors(upstream, ["", ""]).map(|(_, door)| per_client(&door, count, request));
        add(name, figures);
    }
    if hard > 2 * WAVE as u64 + 2000 {
        let figures = doors(upstream, ["", ""]).map(|(_, door)| wave(&door));
        add("MiB at start, with 5,000 clients, 10 s after", figures);
    }
    let cancelled = doors(upstream, ["", ""]).map(|(_, door)| cancelled(&door, &gone, size));
    add("ms until a gone client's request is cancelled", cancelled);
    for (name, request, upstream_tells) in [
        ("s until 504, limit 1 s", WAIT, false),
        ("s until 408 for a head, limit 1 s", HALF_HEAD, false),
        ("s until 408 for a body, limit 1 s", HALF_BODY, false),
        ("s until a reader is cut, limit 1 s", LARGE, true),
    ] {
        let figures = doors(upstream, SECOND)
            .map(|(_, door)| limited(&door, request, upstream_tells.then_some(&gone)));
        add(name, figures);
    }
    Value::Object(all)
}

fn connect(door: &Door) -> TcpStream {
    let stream = TcpStream::connect(door.addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE * 4)).unwrap();
    stream
}

fn asking(door: &Door, request: &str) -> TcpStream {
    let mut stream = connect(door);
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

/// Reads the head of an answer, and what came with it.
fn head(stream: &mut TcpStream) -> Option<String> {
    let mut buffer = [0; 1024];
    let count = stream.read(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

/// What the first clients take for all: connections to the upstream, arenas of the allocator.
fn warm(door: &Door) {
    let mut clients: Vec<_> = (0..200).map(|_| asking(door, GET)).collect();
    for client in &mut clients {
        head(client).unwrap();
    }
    drop(clients);
    wait::pause(SETTLE / 2);
}

fn per_client(door: &Door, count: usize, request: &str) -> Value {
    warm(door);
    let before = door.memory();
    let mut clients: Vec<_> = (0..count).map(|_| asking(door, request)).collect();
    if request == GET || request == TUNNEL {
        for client in &mut clients {
            head(client).unwrap();
        }
    }
    if request == UPLOAD {
        fill(&mut clients);
    }
    wait::pause(SETTLE);
    tenths((door.memory() - before) / count as f64)
}

/// Sends until nobody takes any more.
fn fill(clients: &mut [TcpStream]) {
    let piece = vec![b'x'; 64 * 1024];
    for client in clients.iter() {
        client.set_nonblocking(true).unwrap();
    }
    loop {
        let mut sent = 0;
        for client in clients.iter_mut() {
            while let Ok(count) = client.write(&piece) {
                sent += count;
            }
        }
        if sent == 0 {
            return;
        }
        wait::pause(Duration::from_millis(500));
    }
}

fn wave(door: &Door) -> Value {
    let mib = || (door.memory() / 102.4).round() / 10.0;
    let start = mib();
    let mut clients: Vec<_> = (0..WAVE).map(|_| asking(door, GET)).collect();
    for client in &mut clients {
        head(client).unwrap();
    }
    let most = mib();
    drop(clients);
    wait::pause(SETTLE);
    json!(format!("{start} / {most} / {}", mib()))
}

fn cancelled(door: &Door, gone: &Receiver<Instant>, size: Size) -> Value {
    let mut took: Vec<f64> = (0..size.starts)
        .map(|_| {
            // What an earlier measurement left.
            while gone.try_recv().is_ok() {}
            let client = asking(door, WAIT);
            wait::pause(Duration::from_millis(200));
            let left = Instant::now();
            drop(client);
            let at = gone.recv_timeout(PATIENCE).unwrap();
            at.duration_since(left).as_secs_f64() * 1000.0
        })
        .collect();
    let (middle, most) = middle_and_most(&mut took);
    json!(format!("{middle:.1} (max {most:.1})"))
}

/// How long a request that makes no progress lasts.
fn limited(door: &Door, request: &str, gone: Option<&Receiver<Instant>>) -> Value {
    let begun = Instant::now();
    let mut client = asking(door, request);
    match gone {
        Some(gone) => {
            while gone.try_recv().is_ok() {}
            if gone.recv_timeout(PATIENCE * 4).is_err() {
                return json!("never");
            }
        }
        None => drop(head(&mut client)),
    }
    tenths(begun.elapsed().as_secs_f64())
}
