//! Servers that the gateway does not start: at a unix socket, and under a name with several addresses.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, SockaddrIn6};
use std::os::fd::AsRawFd;

use crate::support::client::{Target, block_on, get, request};
use crate::support::gateway::Setup;
use crate::support::upstream::Recorder;
use crate::support::{namespace, servers, wait};

/// A Node server at a unix socket that tells what it got.
fn node_at(path: &Path, name: &str) -> Child {
    let program = format!(
        "require('http').createServer((q, s) => {{ let n = 0; q.on('data', d => n += d.length); q.on('end', () => s.end('{name} ' + q.method + ' ' + q.url + ' ' + n)) }}).listen({:?})",
        path.display().to_string()
    );
    let child = Command::new("node").args(["-e", &program]).spawn().unwrap();
    wait::until("the server at the unix socket", || {
        std::os::unix::net::UnixStream::connect(path).ok()
    });
    child
}

fn end(mut child: Child) {
    let _ = child.kill();
    let _ = child.wait();
}

#[test]
fn a_server_at_a_unix_socket_is_reached_and_may_be_replaced() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let first = node_at(&path, "first");
    let gateway = Setup::new()
        .config(format!("[[route]]\nto = \"unix:{}\"\n", path.display()))
        .start();
    let target = gateway.target();
    let ask = |path: &str| block_on(get(&target, path)).unwrap();
    assert_eq!(ask("/a?b=1").text(), "first GET /a?b=1 0");
    let body = "x".repeat(100_000);
    let post = format!("POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n{body}");
    let posted = block_on(request(&target, &post)).unwrap();
    assert_eq!(posted.text(), "first POST /p 100000");
    end(first);
    let failed = ask("/");
    assert_eq!(failed.status(), 502);
    assert!(!failed.text().contains("app.sock"), "{}", failed.text());
    gateway.wait_line(&format!("unix:{}", path.display()));
    fs::remove_file(&path).unwrap();
    let second = node_at(&path, "second");
    assert_eq!(ask("/").text(), "second GET / 0");
    end(second);
}

/// A listener at `[::1]:port` that answers no packet of a new client: its queue is full.
fn silent(port: u16) -> (TcpListener, TcpStream) {
    let (family, kind) = (AddressFamily::Inet6, SockType::Stream);
    let socket = socket::socket(family, kind, SockFlag::SOCK_CLOEXEC, None).unwrap();
    let address = std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, port, 0, 0);
    socket::setsockopt(&socket, socket::sockopt::ReuseAddr, &true).unwrap();
    socket::bind(socket.as_raw_fd(), &SockaddrIn6::from(address)).unwrap();
    socket::listen(&socket, Backlog::new(0).unwrap()).unwrap();
    let listener = TcpListener::from(socket);
    (listener, TcpStream::connect(address).unwrap())
}

fn route(name: &str, port: u16) -> Setup {
    Setup::new().config(format!("[[route]]\nto = \"http://{name}:{port}\"\n"))
}

#[test]
fn an_address_that_does_not_answer_does_not_keep_a_request_from_the_next_one() {
    namespace::hosts("::1 app.test\n127.0.0.1 app.test\n", |_| {
        let recorder = Recorder::ok();
        let port = recorder.addr().port();
        let silent = silent(port);
        let gateway = route("app.test", port).start();
        let answer = block_on(get(&gateway.target(), "/")).unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok\n"));
        drop(silent);
    });
}

#[test]
fn a_name_is_asked_for_again_and_its_addresses_are_not_told_to_clients() {
    namespace::hosts("127.0.0.1 app.test\n", |hosts| {
        let closing = |text: &'static str| {
            move |_: &_| {
                format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{text}")
                    .into_bytes()
            }
        };
        let one = Recorder::answering(closing("1"));
        let port = one.addr().port();
        let gateway = route("app.test", port).start();
        let target = gateway.target();
        let ask = || block_on(get(&target, "/")).unwrap();
        assert_eq!(ask().text(), "1");
        // The same port at another address.
        let other: SocketAddr = ([127, 0, 0, 2], port).into();
        fs::write(hosts, "127.0.0.2 app.test\n").unwrap();
        let refused = wait::within(wait::DEADLINE, || {
            let answer = ask();
            (answer.status() == 502).then(|| answer.text())
        });
        let refused = refused.expect("the new address is used");
        assert!(!refused.contains("127.0.0") && !refused.contains("app.test"));
        let listener = TcpListener::bind(other).unwrap();
        let serving = std::thread::spawn(move || {
            use std::io::{Read, Write};
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n2")
                .unwrap();
        });
        assert_eq!(ask().text(), "2");
        serving.join().unwrap();
    });
}

#[test]
fn a_name_that_nobody_knows_is_a_bad_gateway_with_the_cause_in_the_log() {
    let gateway = route("gateway.invalid", 80).start();
    let answer = block_on(get(&gateway.target(), "/")).unwrap();
    assert_eq!(answer.status(), 502);
    assert!(!answer.text().contains("invalid"), "{}", answer.text());
    gateway.wait_line("cannot resolve gateway.invalid");
}

/// A server of Python's that writes a head, and then a body of one or more pieces.
const IN_PIECES: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(200)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (b"2\r\n", b"ok\r\n", b"0\r\n\r\n"):
                self.wfile.write(piece)
        else:
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"#;

/// Seen with http.server and `uvicorn --workers`: 42 ms for each request on a kept connection, where the
/// server alone takes less than one.
#[test]
fn a_server_that_writes_head_and_body_apart_waits_for_no_acknowledgement() {
    let mut child = Command::new("python3")
        .args(["-c", IN_PIECES])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut port = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut port).unwrap();
    let gateway = Setup::new()
        .config(format!(
            "[[route]]\nto = \"http://127.0.0.1:{}\"\n",
            port.trim()
        ))
        .start();
    let server: SocketAddr = format!("127.0.0.1:{}", port.trim()).parse().unwrap();
    let median = |address: SocketAddr, path: &str| {
        let mut times: Vec<Duration> = (0..31)
            .map(|_| {
                let began = Instant::now();
                let answer = block_on(get(&Target::from(address), path)).unwrap();
                assert_eq!(answer.text(), "ok");
                began.elapsed()
            })
            .collect();
        times.sort();
        times[times.len() / 2]
    };
    for path in ["/", "/chunks"] {
        // On a new connection, as here, the kernel acknowledges at once.
        let alone = median(server, path);
        let behind = median(gateway.addr(), path);
        assert!(
            behind < 3 * alone + Duration::from_millis(30),
            "{path}: {behind:?}, and {alone:?} alone"
        );
    }
    end(child);
}
