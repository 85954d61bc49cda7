//! What clients that send and read slowly do to the others: 100 requests a second beside two thousand
//! of them, and restarts meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::memory::{behind, doors, raise_descriptors};
use super::support::gateway::Setup;
use super::support::load::Load;
use super::support::report::{Part, Report};
use super::support::site::FRONT;
use super::support::{servers, wait};
use super::{Size, systemd};

/// How long a slow client pauses between two pieces: three within each limit of 15 s.
const PAUSE: Duration = Duration::from_secs(5);

/// Requests a second of the others.
const OTHERS: f64 = 100.0;

/// How long the work of slow clients may hold a restart: it never ends by itself.
const DRAIN: &str = "2s";

/// How a client is slow.
#[derive(Clone, Copy)]
enum Slow {
    Head,
    Body,
    Reader,
}

impl Slow {
    const ALL: [(&'static str, Self); 3] = [
        ("heads", Self::Head),
        ("bodies", Self::Body),
        ("readers", Self::Reader),
    ];

    fn begin(self, addr: SocketAddr) -> Option<TcpStream> {
        let mut stream = TcpStream::connect(addr).ok()?;
        let begin = match self {
            Self::Head => "GET / HTTP/1.1\r\nhost: a\r\n",
            Self::Body => "POST /wait HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n",
            Self::Reader => "GET /large HTTP/1.1\r\nhost: a\r\n\r\n",
        };
        stream.write_all(begin.as_bytes()).ok()?;
        stream.set_nonblocking(true).ok()?;
        Some(stream)
    }

    /// One piece; whether the connection is still there.
    fn go_on(self, stream: &mut TcpStream) -> bool {
        let mut buffer = [0; 1024];
        let done = match self {
            Self::Head => stream.write(b"x: y\r\n"),
            Self::Body => stream.write(b"x"),
            Self::Reader => stream.read(&mut buffer),
        };
        match done {
            Ok(count) => count > 0,
            Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        }
    }
}

/// Keeps `count` slow clients open while `meanwhile` runs. Returns how many were lost, too.
fn beside<T>(
    slow: Slow,
    count: usize,
    addr: SocketAddr,
    meanwhile: impl FnOnce() -> T,
) -> (T, u64) {
    let stop = AtomicBool::new(false);
    let ready = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let driver = scope.spawn(|| {
            let mut clients: Vec<_> = (0..count).filter_map(|_| slow.begin(addr)).collect();
            let mut lost = (count - clients.len()) as u64;
            ready.store(true, Ordering::Relaxed);
            let step = PAUSE / u32::try_from(count).unwrap();
            let mut next = Instant::now();
            'all: loop {
                for client in &mut clients {
                    if stop.load(Ordering::Relaxed) {
                        break 'all;
                    }
                    next += step;
                    wait::pause(next.saturating_duration_since(Instant::now()));
                    if !slow.go_on(client) {
                        lost += 1;
                        if let Some(new) = slow.begin(addr) {
                            *client = new;
                        }
                    }
                }
            }
            lost
        });
        wait::until("all are there", || {
            ready.load(Ordering::Relaxed).then_some(())
        });
        let result = meanwhile();
        stop.store(true, Ordering::Relaxed);
        (result, driver.join().unwrap())
    })
}

fn load(addr: SocketAddr, length: Duration) -> Report {
    let running = Load {
        new_per_second: OTHERS,
        ..Load::on(addr)
    }
    .start();
    running.flows(Part::New, 10);
    wait::pause(length);
    running.stop()
}

pub fn measure(size: Size) -> Value {
    if !servers::have("nginx") {
        return json!({ "skipped": "nginx is not installed" });
    }
    raise_descriptors();
    let length = Duration::from_secs(size.seconds * 2);
    let mut all = Map::new();
    let (sender, _gone) = std::sync::mpsc::channel();
    let upstream = behind(sender);
    for (name, door) in doors(upstream.addr(), ["", ""]) {
        let undisturbed = load(door.addr(), length);
        all.insert(format!("{name}, undisturbed"), figures(&undisturbed, 0));
        for (kind, slow) in Slow::ALL {
            let count = size.slow;
            let (report, lost) = beside(slow, count, door.addr(), || load(door.addr(), length));
            let text = figures(&report, lost);
            all.insert(format!("{name}, {count} slow {kind}"), text);
        }
    }
    for mode in ["in-process", "respawn"] {
        for (kind, slow) in Slow::ALL {
            let gateway = Setup::behind(servers::node())
                .config(format!("[restart]\n{}\n", keys(mode).join("\n")))
                .start();
            let text = restarts(gateway.addr(), slow, size, || drop(gateway.restart()));
            all.insert(format!("restarts {mode}, {} slow {kind}", size.slow), text);
        }
    }
    // Something else holds the socket and starts the next life: systemd.
    let Some(systemd) = systemd::installed() else {
        let skipped = json!("skipped: no systemd can be booted here");
        all.insert("restarts exit".to_owned(), skipped);
        return Value::Object(all);
    };
    let keys = keys("exit");
    systemd::restarts_with(&systemd, &keys.each_ref().map(String::as_str));
    for (kind, slow) in Slow::ALL {
        let restart = || drop(systemd.must(&["gatewayctl", "restart"]));
        let text = systemd.in_netns(|| restarts(FRONT, slow, size, restart));
        all.insert(format!("restarts exit, {} slow {kind}", size.slow), text);
    }
    Value::Object(all)
}

/// What a restart does, in `[restart]`.
fn keys(mode: &str) -> [String; 2] {
    [format!("mode = \"{mode}\""), format!("drain = \"{DRAIN}\"")]
}

fn figures(report: &Report, lost: u64) -> Value {
    let ms = |quantile| report.quantile(quantile).as_secs_f64() * 1000.0;
    json!(format!(
        "p99 {:.1} ms (p50 {:.1}, max {:.1}), {} requests, {} failed; slow ones lost: {lost}",
        ms(0.99),
        ms(0.5),
        ms(1.0),
        report.latency.len(),
        report.failures()
    ))
}

/// Restarts beside slow clients: the others lose nothing.
fn restarts(addr: SocketAddr, slow: Slow, size: Size, restart: impl Fn()) -> Value {
    let (report, lost) = beside(slow, size.slow, addr, || {
        let running = Load {
            new_per_second: OTHERS,
            ..Load::on(addr)
        }
        .start();
        running.flows(Part::New, 10);
        for _ in 0..size.restarts / 5 {
            restart();
        }
        running.flows(Part::New, 100);
        running.stop()
    });
    figures(&report, lost)
}
