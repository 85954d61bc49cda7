//! 10,000 clients of a front door that may have 4,096 descriptors, and whoever has to decide: /healthz
//! and `gatewayctl status` meanwhile, beside nginx with as many in two workers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::memory::{behind, raise_descriptors};
use super::nginx::Nginx;
use super::support::gateway::Setup;
use super::support::{servers, wait};
use super::{Size, middle_and_most};

const CLIENTS: usize = 10_000;
const DESCRIPTORS: u64 = 4096;

/// One that waits longer is counted as not answered.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long all clients may take to connect: where the queue of a listener is full, each takes as long as
/// it may.
const COMING: Duration = Duration::from_secs(120);

/// How long they stay once all have come.
const STAY: Duration = Duration::from_secs(10);

/// Between two questions.
const PACE: Duration = Duration::from_millis(20);

const WAIT: &str = "GET /wait HTTP/1.1\r\nhost: a\r\n\r\n";

pub fn measure(_size: Size) -> Value {
    if !servers::have("nginx") {
        return json!({ "skipped": "nginx is not installed" });
    }
    // Each client, and connections at the upstream.
    let needed = CLIENTS as u64 + 2 * DESCRIPTORS;
    if raise_descriptors() < needed {
        return json!({ "skipped": format!("{needed} descriptors are needed (ulimit -Hn)") });
    }
    let (sender, _gone) = std::sync::mpsc::channel();
    let upstream = behind(sender);
    let mut all = BTreeMap::new();
    gateway(upstream.addr(), &mut all);
    nginx(upstream.addr(), &mut all);
    json!(all)
}

fn gateway(upstream: SocketAddr, all: &mut BTreeMap<&str, String>) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("gateway");
    let text = format!(
        "#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec {} \"$@\"\n",
        env!("CARGO_BIN_EXE_gateway")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let gateway = Setup::upstream(upstream).program(program).start();
    let (addr, stop) = (gateway.addr(), AtomicBool::new(false));
    let status = || match gateway.ctl(["status", "--json"]).status.code() {
        Some(0) => Ok(()),
        _ => Err("failed"),
    };
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let health = scope.spawn(|| asked(&stop, || healthz(addr)));
        let status = scope.spawn(|| asked(&stop, status));
        all.insert("gateway, clients", many(addr));
        drop(stops);
        all.insert("gateway, /healthz", health.join().unwrap());
        all.insert("gateway, status", status.join().unwrap());
    });
}

fn nginx(upstream: SocketAddr, all: &mut BTreeMap<&str, String>) {
    let door = Nginx::with_descriptors(
        2,
        DESCRIPTORS / 2,
        &format!(
            "server {{ listen 127.0.0.1:PORT backlog=4096; location /healthz {{ return 200; }} location / {{ proxy_pass http://{upstream}; }} }}"
        ),
    );
    let addr = SocketAddr::from(([127, 0, 0, 1], door.port));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let stops = Stops(&stop);
        let health = scope.spawn(|| asked(&stop, || healthz(addr)));
        all.insert("nginx, clients", many(addr));
        drop(stops);
        all.insert("nginx, /healthz", health.join().unwrap());
    });
}

/// Sets it when dropped, so that those who ask end in any case.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How long the answers took to a question that is asked again and again until `stop`, and why there was
/// none.
fn asked(stop: &AtomicBool, mut question: impl FnMut() -> Result<(), &'static str>) -> String {
    let mut took = Vec::new();
    let mut without: BTreeMap<_, usize> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let begun = Instant::now();
        match question() {
            Ok(()) => took.push(begun.elapsed().as_secs_f64() * 1000.0),
            Err(why) => *without.entry(why).or_default() += 1,
        }
        wait::pause(PACE);
    }
    let mut text = match took.len() {
        0 => "none answered".to_owned(),
        answered => {
            let (middle, most) = middle_and_most(&mut took);
            format!("{answered} answered in {middle:.1} ms (max {most:.1})")
        }
    };
    for (why, count) in without {
        text.push_str(&format!(", {count} {why}"));
    }
    text
}

fn healthz(addr: SocketAddr) -> Result<(), &'static str> {
    let connected = TcpStream::connect_timeout(&addr, PATIENCE);
    let mut stream = connected.map_err(|_| "not connected")?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = b"GET /healthz HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request).map_err(|_| "closed")?;
    let mut buffer = [0; 1024];
    match stream.read(&mut buffer) {
        Ok(0) => Err("closed"),
        Ok(count) if buffer[..count].starts_with(b"HTTP/1.1 200") => Ok(()),
        Ok(_) => Err("refused"),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err("without an answer"),
        Err(_) => Err("reset"),
    }
}

/// Many clients that wait, and what became of them.
fn many(addr: SocketAddr) -> String {
    let begun = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        let left = COMING.saturating_sub(begun.elapsed());
        if left.is_zero() {
            break;
        }
        if let Ok(mut stream) = TcpStream::connect_timeout(&addr, left.min(PATIENCE)) {
            let _ = stream.write_all(WAIT.as_bytes());
            clients.push(stream);
        }
    }
    let came = begun.elapsed().as_secs_f64();
    wait::pause(STAY);
    let (mut waiting, mut refused, mut closed) = (0, 0, 0);
    for client in &mut clients {
        client.set_nonblocking(true).unwrap();
        let mut buffer = [0; 64];
        match client.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => waiting += 1,
            Ok(count) if buffer[..count].starts_with(b"HTTP/1.1 5") => refused += 1,
            _ => closed += 1,
        }
    }
    let missing = CLIENTS - clients.len();
    format!(
        "{waiting} wait, {refused} got 50x, {closed} closed without a word, {missing} not connected; all within {came:.1} s"
    )
}
