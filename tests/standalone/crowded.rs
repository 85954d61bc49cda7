//! Too many clients, of the front door or of the control socket: whoever has to decide gets in.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::client::{self, Conn, Fault, block_on};
use crate::support::gateway::{Gateway, Setup, ctl_in, memory_kib, said};
use crate::support::upstream::Upstream;
use crate::support::{handover, nobody, port, servers, skip, wait};

/// The system's, which every user may run.
const PYTHON: &str = "/usr/bin/python3";

/// 200 connections to a control socket: half of them idle, the others with requests whose answers
/// nobody reads. Says so after a second, and goes on.
const FLOOD: &str = r#"
import socket, sys, time
requests = b'{"type":"req","id":"1","method":"status"}\n' * 1000
connections = []
for _ in range(200):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    connection.setblocking(False)
    connections.append(connection)
begun, said = time.monotonic(), False
while True:
    for connection in connections[::2]:
        try:
            connection.send(requests)
        except OSError:
            pass
    if not said and time.monotonic() - begun > 1:
        print("flooded", flush=True)
        said = True
"#;

/// A process that ends with the test.
struct Child(std::process::Child);

impl Child {
    fn of(command: &mut Command) -> Self {
        Self(command.spawn().unwrap())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_control_socket_that_its_own_user_floods_answers_root_and_takes_no_memory() {
    if !nobody::can_be() || !skip::unless_there(PYTHON) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    nobody::copy_programs(dir.path());
    let state = dir.path().join("state");
    std::fs::create_dir(&state).unwrap();
    nobody::own(&state);
    let listen = format!("127.0.0.1:{}", port::private());
    let gateway = Child::of(nobody::gateway(dir.path(), &state, &listen).stderr(Stdio::null()));
    let control = state.join("run/control.sock");
    wait::until("the control socket is there", || {
        control.exists().then_some(())
    });
    let script = ["-c", FLOOD, control.to_str().unwrap()];
    let mut flood = Child::of(nobody::command(Path::new(PYTHON), &script).stdout(Stdio::piped()));
    let mut said_so = String::new();
    BufReader::new(flood.0.stdout.take().unwrap())
        .read_line(&mut said_so)
        .unwrap();
    assert_eq!(said_so, "flooded\n");
    let asked = Instant::now();
    let output = ctl_in(&state).arg("status").output().unwrap();
    let (took, memory) = (asked.elapsed(), memory_kib(gateway.0.id()).0);
    let text = said(&output);
    assert!(text.contains(&gateway.0.id().to_string()), "{text}");
    // That it is answered at all: a busy machine alone may take some seconds.
    assert!(took < wait::DEADLINE, "{took:?}");
    assert!(memory < 100 * 1024, "{memory} KiB");
}

/// A server whose gateway may have 256 descriptors, and clients that have all of them that clients
/// may have.
fn crowded(setup: &Setup) -> (Gateway, Vec<TcpStream>) {
    let gateway = setup.start();
    let pid = gateway.pid().to_string();
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, "--nofile=256:"])
        .status();
    assert!(limited.unwrap().success());
    let hold = || {
        let mut client = TcpStream::connect(gateway.addr()).unwrap();
        let request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nx";
        client.write_all(request).unwrap();
        client
    };
    let held: Vec<TcpStream> = (0..300).map(|_| hold()).collect();
    gateway.wait_line("they have every descriptor that clients may have");
    let health = block_on(client::get(&gateway.target(), "/healthz")).unwrap();
    assert_eq!(health.status(), 200);
    (gateway, held)
}

fn behind_node() -> Option<Setup> {
    let there = servers::have("node") && skip::unless_there("prlimit");
    there.then(|| Setup::behind(servers::node()))
}

#[test]
fn clients_that_have_every_descriptor_lock_out_neither_gatewayctl_nor_a_restart() {
    let Some(setup) = behind_node() else { return };
    let (gateway, held) = crowded(&setup);
    assert_eq!(gateway.status()["stage"], "ready");
    // Clients may have been turned away meanwhile, of which gatewayctl complains.
    let output = gateway.ctl(["restart"]);
    assert_eq!(gateway.status()["generation"], 2, "{}", said(&output));
    drop(held);
    wait::until("clients are served again", || {
        let got = block_on(client::get(&gateway.target(), "/"));
        got.ok().filter(|got| got.status() == 200).map(drop)
    });
}

#[test]
fn clients_that_have_every_descriptor_starve_neither_the_watchdog_nor_a_server_that_dies() {
    let Some(setup) = behind_node() else { return };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(wait::DEADLINE)).unwrap();
    let setup = setup
        .env("GATEWAY_SUPERVISOR", "none")
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "400000");
    let (gateway, held) = crowded(&setup);
    let watched = |times: usize| {
        // What came before says nothing about now.
        manager.set_nonblocking(true).unwrap();
        while manager.recv(&mut [0; 4096]).is_ok() {}
        manager.set_nonblocking(false).unwrap();
        let mut buffer = [0; 4096];
        let mut heard = 0;
        while heard < times {
            let length = manager
                .recv(&mut buffer)
                .unwrap_or_else(|error| panic!("{error}\n{}", gateway.stderr()));
            heard += usize::from(buffer[..length].starts_with(b"WATCHDOG=1"));
        }
    };
    watched(5);
    let pid = gateway.sidecar_pid("main");
    handover::signal(pid, Signal::SIGKILL);
    gateway.wait_status("the server runs again", |status| {
        let sidecar = &status["sidecars"][0];
        sidecar["pid"] != pid && sidecar["state"] == "ready"
    });
    watched(5);
    drop(held);
}

/// A server that answers at once, except for `/wait`, in front of which `connections` clients fit.
fn narrow(connections: usize) -> (Upstream, Gateway) {
    let behind = Upstream::serve(|mut conn| async move {
        while let Ok(head) = conn.head().await {
            if head.first.contains("/wait") {
                conn.drain().await;
            }
            let _ = conn
                .send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
        }
    });
    let gateway = Setup::upstream(behind.addr())
        .config(format!("[limits]\nconnections = {connections}\n"))
        .start();
    (behind, gateway)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

#[test]
fn clients_that_wait_keep_new_ones_from_the_server_but_not_from_an_answer() {
    let (_behind, gateway) = narrow(20);
    let mut waiting: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut client = TcpStream::connect(gateway.addr()).unwrap();
            let request = b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n";
            client.write_all(request).unwrap();
            client
        })
        .collect();
    gateway.wait_status("all wait", |status| status["requests"] == 20);
    for request in [
        GET,
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello",
    ] {
        let answer = block_on(client::request(&gateway.target(), request)).unwrap();
        assert_eq!(answer.status(), 503, "{}", answer.text());
        assert_eq!(answer.head.get("retry-after"), Some("2"));
        assert!(!answer.head.keeps());
    }
    gateway.wait_line("20 clients are connected (limits.connections), and none of them is idle");
    for path in ["/healthz", "/readyz", "/_gateway/healthz"] {
        let answer = block_on(client::get(&gateway.target(), path)).unwrap();
        assert_eq!(answer.status(), 200, "{path}");
    }
    assert_eq!(gateway.metric("gateway_clients_crowded_total"), 2);
    assert_eq!(gateway.metric("gateway_clients_displaced_total"), 0);
    drop(waiting.pop());
    wait::until("there is a place again", || {
        let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
        (answer.status() == 200).then_some(())
    });
}

#[test]
fn the_client_that_is_silent_for_longest_gives_way_to_a_new_one() {
    let (_behind, gateway) = narrow(3);
    block_on(async {
        let mut kept = Vec::new();
        for _ in 0..3 {
            let mut conn = Conn::open(&gateway.target()).await.unwrap();
            assert_eq!(conn.exchange(GET).await.unwrap().status(), 200);
            kept.push(conn);
        }
        // Now the second is silent for longest.
        assert_eq!(kept[0].exchange(GET).await.unwrap().status(), 200);
        let mut new = Conn::open(&gateway.target()).await.unwrap();
        assert_eq!(new.exchange(GET).await.unwrap().status(), 200);
        let (rest, end) = kept.remove(1).drain().await;
        assert_eq!((rest.len(), end), (0, Fault::Eof));
        for conn in kept.iter_mut().chain([&mut new]) {
            assert_eq!(conn.exchange(GET).await.unwrap().status(), 200);
        }
    });
    assert_eq!(gateway.metric("gateway_clients_crowded_total"), 0);
}

#[test]
fn silent_clients_beyond_the_limit_lose_their_places_to_new_ones() {
    let (_behind, gateway) = narrow(1);
    let mut waiting = TcpStream::connect(gateway.addr()).unwrap();
    waiting
        .write_all(b"GET /wait HTTP/1.1\r\nHost: h\r\n\r\n")
        .unwrap();
    gateway.wait_status("it waits", |status| status["requests"] == 1);
    let silent: Vec<TcpStream> = (0..200)
        .map(|_| TcpStream::connect(gateway.addr()).unwrap())
        .collect();
    let answer = block_on(client::get(&gateway.target(), "/healthz")).unwrap();
    assert_eq!(answer.status(), 200);
    for mut client in silent {
        client.set_read_timeout(Some(wait::DEADLINE)).unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        // The last ones had their time.
        let turned_away =
            answer.starts_with("HTTP/1.1 503 ") && answer.contains("\r\nRetry-After: 2\r\n");
        assert!(turned_away || answer.is_empty(), "{answer}");
    }
    assert!(gateway.metric("gateway_clients_crowded_total") > 0);
}
