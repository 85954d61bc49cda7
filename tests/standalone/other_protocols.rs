//! Servers behind the gateway that do not speak HTTP/1: their clients get 502, and the log says what
//! they speak and what to do.

use std::io::{Read, Write};
use std::net::TcpListener;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup};
use crate::support::servers;

/// Answers as redis does: an error to GET and HEAD, the end of the connection to POST.
const RESP: &str = "import socket, sys\n\
    s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
    while True:\n\
    \x20 c, _ = s.accept()\n\
    \x20 if not c.recv(9999).startswith(b'POST'):\n\
    \x20   c.sendall(b\"-ERR wrong number of arguments for 'get' command\\r\\n\")\n\
    \x20 c.close()";

fn bad_gateway(gateway: &Gateway, method: &str) {
    let text =
        format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    let answer = block_on(client::request(&gateway.target(), &text)).unwrap();
    assert_eq!(answer.status(), 502, "{}", answer.text());
}

#[test]
fn a_client_of_redis_gets_502_and_the_log_says_what_redis_speaks() {
    if !servers::have("python3") {
        return;
    }
    for ready in ["", "ready = \"tcp\"\n"] {
        let command = ["python3", "-c", RESP, "{port}"];
        let config = format!("[sidecar.main]\ncommand = {command:?}\n{ready}");
        let gateway = Setup::new().config(config).start();
        bad_gateway(&gateway, "GET");
        let line = gateway.wait_line("answered 502: ");
        for part in [
            "does not speak HTTP/1; it answered with \"-ERR wrong number of arguments",
            "let other clients connect to it directly",
        ] {
            assert!(line.contains(part), "no {part}: {line}");
        }
    }
}

/// It says nothing to POST, but it was asked before.
#[test]
fn what_readiness_found_is_told_where_the_server_says_nothing() {
    if !servers::have("python3") {
        return;
    }
    let gateway = Setup::behind(["python3", "-c", RESP, "{port}"]).start();
    bad_gateway(&gateway, "POST");
    let line = gateway.wait_line("answered 502: ");
    assert!(
        line.contains("does not speak HTTP/1; it answered with \"-ERR"),
        "{line}"
    );
}

/// A server that the gateway does not start, and that begins with a SETTINGS frame.
#[test]
fn a_grpc_server_behind_a_route_is_named_too() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = Setup::upstream(listener.local_addr().unwrap()).start();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 4096]).unwrap();
        stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
    });
    bad_gateway(&gateway, "GET");
    server.join().unwrap();
    let line = gateway.wait_line("answered 502: ");
    assert!(
        line.contains("it speaks HTTP/2 only, as gRPC servers do"),
        "{line}"
    );
}
