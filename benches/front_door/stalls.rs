//! What stands still beside a gateway, and what those wait who ask it: for its status, for an answer
//! of a server behind it, for its end.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use super::support::gateway::{Gateway, Setup};
use super::support::hold::lease;
use super::support::site::{FRONT, Site, node, prepared};
use super::support::{servers, wait};
use super::{Size, tenths};

/// Between two questions: the gateway is asked, not loaded.
const PACE: Duration = Duration::from_millis(5);

/// A server beside a program that floods the log.
const FLOODING: &str = "yes & exec \"$@\"";

/// Listens, then waits in the kernel (state D) for the exec of a child.
const STUCK: &str = "import os, socket, sys\n\
    server = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
    os.posix_spawn(sys.argv[2], [sys.argv[2]], {})\n";

pub fn measure(size: Size) -> Value {
    let length = Duration::from_secs(size.seconds);
    let mut all = Map::new();
    let mut add = |name: &str, figures: Value| drop(all.insert(name.to_owned(), figures));
    add(
        "undisturbed",
        here(Setup::behind(servers::node()).start(), length),
    );
    add("standard error that nobody reads", unread(length));
    add("a sidecar that runs yes", flooded(length));
    add("a sidecar in state D", stuck(length));
    add(
        "a successor whose program is not loaded",
        not_loaded(length),
    );
    add("a journal that is stopped", journal(length));
    Value::Object(all)
}

fn flooding() -> Setup {
    let shell = ["sh", "-c", FLOODING, "sh"].map(str::to_owned);
    Setup::behind(shell.into_iter().chain(servers::node()))
}

fn unread(length: Duration) -> Value {
    let gateway = flooding().start();
    gateway.leave_stderr_unread(true);
    here(gateway, length)
}

/// Its log is taken as fast as it comes.
fn flooded(length: Duration) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("gateway");
    let text = format!(
        "#!/bin/sh\nexec {} \"$@\" 2> /dev/null\n",
        env!("CARGO_BIN_EXE_gateway")
    );
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let gateway = flooding().program(program).spawn();
    let control = gateway.state_dir().join("run/control.sock");
    wait::until("it is there", || control.exists().then_some(()));
    gateway.wait_status("it is ready", |status| status["stage"] == "ready");
    here(gateway, length)
}

fn stuck(length: Duration) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("true");
    fs::copy("/bin/true", &program).unwrap();
    let _held = lease(&program);
    let gateway = Setup::new()
        .config(format!(
            "[[route]]\nto = \"main\"\n\
             [sidecar.main]\ncommand = {:?}\n\
             [sidecar.stuck]\ncommand = {:?}\nready = \"tcp\"\n",
            servers::node(),
            ["python3", "-c", STUCK, "{port}", program.to_str().unwrap()],
        ))
        .start();
    let stuck = gateway.sidecar_pid("stuck");
    wait::until("it is in state D", || {
        let stat = fs::read_to_string(format!("/proc/{stuck}/stat")).ok()?;
        stat.contains(") D ").then_some(())
    });
    here(gateway, length)
}

fn not_loaded(length: Duration) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let (program, next) = (dir.path().join("gateway"), dir.path().join("next"));
    fs::copy(env!("CARGO_BIN_EXE_gateway"), &program).unwrap();
    let setup = Setup::behind(servers::node()).env("GATEWAY_SUPERVISOR", "none");
    let gateway = setup.program(&program).start();
    fs::copy(&program, &next).unwrap();
    fs::rename(&next, &program).unwrap();
    let _held = lease(&program);
    let restart = gateway.ctl_aside(["restart", "--fresh"]);
    gateway.wait_status("it restarts", |status| status["stage"] == "restarting");
    let figures = here(gateway, length);
    drop(restart.join());
    figures
}

fn journal(length: Duration) -> Value {
    let Some(systemd) = prepared("stalls") else {
        return json!("skipped: no systemd can be booted here");
    };
    let site = Site::of_machine(&systemd);
    let install = [
        "gatewayctl",
        "install",
        "--now",
        "--listen",
        "127.0.0.1:18789",
    ];
    let shell = ["--", "sh", "-c", FLOODING, "sh"];
    site.must(&[&install[..], &shell, &node()[1..]].concat());
    let journald = site.property("systemd-journald.service", "MainPID");
    site.must(&["kill", "-STOP", &journald]);
    let control = systemd.path("/run/gateway/gateway/control.sock");
    let asked = systemd.in_netns(|| ask(&control, FRONT, length));
    let begun = Instant::now();
    site.must(&["kill", "-TERM", &site.main_pid().to_string()]);
    wait::until("it ends", || {
        let state = site.property("gateway.service", "ActiveState");
        (state != "active" && state != "deactivating").then_some(())
    });
    let took = begun.elapsed();
    site.must(&["kill", "-CONT", &journald]);
    asked.figures(took)
}

fn here(mut gateway: Gateway, length: Duration) -> Value {
    let control = gateway.state_dir().join("run/control.sock");
    let asked = ask(&control, gateway.addr(), length);
    let begun = Instant::now();
    gateway.signal(Signal::SIGTERM);
    gateway.wait_exit(Duration::from_secs(60));
    asked.figures(begun.elapsed())
}

/// How long answers took, in milliseconds.
#[derive(Default)]
struct Asked {
    status: Vec<f64>,
    request: Vec<f64>,
}

fn ask(control: &Path, front: SocketAddr, length: Duration) -> Asked {
    let begun = Instant::now();
    let mut asked = Asked::default();
    while begun.elapsed() < length {
        asked.status.push(timed(|| status(control)));
        asked.request.push(timed(|| request(front)));
        wait::pause(PACE);
    }
    asked
}

fn timed(question: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    question();
    begun.elapsed().as_secs_f64() * 1000.0
}

fn status(control: &Path) {
    let mut stream = UnixStream::connect(control).unwrap();
    let question = b"{\"type\":\"req\",\"id\":\"1\",\"method\":\"status\"}\n";
    stream.write_all(question).unwrap();
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"ok\":true"), "{answer}");
}

fn request(front: SocketAddr) {
    let mut stream = TcpStream::connect(front).unwrap();
    let question = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(question).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

impl Asked {
    fn figures(mut self, end: Duration) -> Value {
        let questions = self.status.len();
        let (status, slowest) = p99_and_most(&mut self.status);
        let (request, _) = p99_and_most(&mut self.request);
        let end = tenths(end.as_secs_f64() * 1000.0);
        json!(format!(
            "status p99 {status} ms (max {slowest}), request p99 {request} ms, SIGTERM to exit {end} ms, of {questions}"
        ))
    }
}

fn p99_and_most(values: &mut [f64]) -> (Value, Value) {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    (tenths(values[last * 99 / 100]), tenths(values[last]))
}
