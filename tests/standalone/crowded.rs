//! Too many clients, of the front door or of the control socket: whoever has to decide gets in.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Setup, ctl_in, memory_kib, said};
use crate::support::{nobody, port, servers, skip, wait};

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
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(memory < 100 * 1024, "{memory} KiB");
}

#[test]
fn clients_that_have_every_descriptor_lock_out_neither_gatewayctl_nor_a_restart() {
    if !servers::have("node") || !skip::unless_there("prlimit") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
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
