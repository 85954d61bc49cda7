//! Clients that a proxy announces by the PROXY protocol.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::process::Command;

use crate::support::client::{Conn, Target, block_on};
use crate::support::gateway::{Gateway, Setup};
use crate::support::upstream::Recorder;
use crate::support::{handover, namespace, port, servers};

const REQUEST: &str = "GET / HTTP/1.1\r\nHost: h:1\r\nConnection: close\r\n\r\n";

/// A gateway that also listens at `ip`, for proxies.
fn behind_proxies(recorder: &Recorder, ip: &str, config: &str) -> (Gateway, SocketAddr) {
    let announced = SocketAddr::new(ip.parse().unwrap(), port::private());
    let gateway = Setup::upstream(recorder.addr())
        .config(format!(
            "[gateway]\nproxy_protocol = [\"{announced}\"]\n{config}\n"
        ))
        .env("GATEWAY_SUPERVISOR", "none")
        .flag("--listen")
        .flag(announced.to_string())
        .start();
    (gateway, announced)
}

fn told(recorder: &Recorder, name: &str) -> Vec<Vec<String>> {
    let all = |head: &crate::support::client::Head| head.all(name).map(str::to_owned).collect();
    recorder.seen().iter().map(|got| all(&got.head)).collect()
}

/// What comes back for these bytes, until the end of the connection.
fn raw(address: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    // A connection with something unread is reset.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
    let fixed = [command, family, length[0], length[1]];
    [b"\r\n\r\n\0\r\nQUIT\n", &fixed[..], rest].concat()
}

#[test]
fn the_announced_client_is_the_one_that_the_server_is_told_of() {
    let recorder = Recorder::ok();
    let (_gateway, address) = behind_proxies(&recorder, "127.0.0.1", "");
    let v4 = [
        &Ipv4Addr::new(203, 0, 113, 7).octets()[..],
        &[10, 0, 0, 1, 1, 2, 3, 4],
    ]
    .concat();
    let v6 = [
        &"2001:db8::7".parse::<Ipv6Addr>().unwrap().octets()[..],
        &[0; 20],
        b"\x02\0\x0bexample.org",
    ]
    .concat();
    let claims = "X-Forwarded-For: 6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n";
    let request = REQUEST.replace("Connection", &format!("{claims}Connection"));
    for (header, expected) in [
        (
            b"PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n".to_vec(),
            "2001:db8::7",
        ),
        (
            b"PROXY TCP6 ::ffff:203.0.113.7 ::1 1 2\r\n".to_vec(),
            "203.0.113.7",
        ),
        (
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n".to_vec(),
            "127.0.0.1",
        ),
        (b"PROXY UNKNOWN\r\n".to_vec(), "unknown"),
        (binary(0x21, 0x11, &v4), "203.0.113.7"),
        (binary(0x21, 0x21, &v6), "2001:db8::7"),
        (binary(0x21, 0x31, &[0; 216]), "unknown"),
    ] {
        let answer = raw(address, &[&header[..], request.as_bytes()].concat());
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(
            told(&recorder, "x-forwarded-for").last().unwrap(),
            &[expected]
        );
        assert!(told(&recorder, "x-real-ip").last().unwrap().is_empty());
    }
    // The proxy itself, which is on this machine.
    let answer = raw(
        address,
        &[&binary(0x20, 0, &[])[..], request.as_bytes()].concat(),
    );
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(
        told(&recorder, "x-forwarded-for").last().unwrap(),
        &["6.6.6.6"]
    );
}

#[test]
fn a_missing_or_broken_header_closes_the_connection_and_is_logged() {
    let recorder = Recorder::ok();
    let (gateway, address) = behind_proxies(&recorder, "127.0.0.1", "");
    for bytes in [
        REQUEST.as_bytes().to_vec(),
        format!("PROXY TCP4 203.0.113.7\r\n{REQUEST}").into_bytes(),
        [&binary(0x21, 0x11, &[0; 4])[..], REQUEST.as_bytes()].concat(),
        [&binary(0x21, 0x11, &[0; 5000])[..], REQUEST.as_bytes()].concat(),
    ] {
        assert_eq!(raw(address, &bytes), "");
    }
    assert!(recorder.seen().is_empty());
    gateway.wait_line("a connection of 127.0.0.1 is closed: no header of the PROXY protocol");
    // Elsewhere such a header is no request.
    let Target::Tcp(plain) = gateway.target() else {
        unreachable!()
    };
    let answer = raw(
        plain,
        format!("PROXY TCP4 1.1.1.1 1.1.1.1 1 1\r\n{REQUEST}").as_bytes(),
    );
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn a_header_that_does_not_come_ends_within_the_limit_for_heads() {
    let recorder = Recorder::ok();
    let limits = "[limits]\nheader_time = \"300ms\"";
    let (gateway, address) = behind_proxies(&recorder, "127.0.0.1", limits);
    assert_eq!(raw(address, b"PROXY TC"), "");
    gateway.wait_line("it does not come (limits.header_time)");
}

#[test]
fn curl_announces_itself() {
    if !servers::have("curl") {
        return;
    }
    let recorder = Recorder::ok();
    let (_gateway, address) = behind_proxies(&recorder, "127.0.0.1", "");
    let url = format!("http://{address}/");
    let curl = ["-s", "--haproxy-protocol", &url];
    let output = Command::new("curl").args(curl).output().unwrap();
    assert_eq!(output.stdout, b"ok\n");
    assert_eq!(told(&recorder, "x-forwarded-for"), [["127.0.0.1"]]);
}

#[test]
fn only_this_machine_and_trusted_proxies_may_announce() {
    const OUTSIDE: &str = "10.77.0.2";
    namespace::network(OUTSIDE, || {
        let bytes = format!("PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n{REQUEST}");
        let recorder = Recorder::ok();
        let (gateway, address) = behind_proxies(&recorder, OUTSIDE, "");
        assert_eq!(raw(address, bytes.as_bytes()), "");
        gateway.wait_line("a client at 10.77.0.2 is disconnected: this address takes only proxies");
        assert!(recorder.seen().is_empty());
        let trusted = "trusted_proxies = [\"10.77.0.0/16\"]";
        let (_gateway, address) = behind_proxies(&recorder, OUTSIDE, trusted);
        assert!(raw(address, bytes.as_bytes()).starts_with("HTTP/1.1 200"));
        assert_eq!(told(&recorder, "x-forwarded-for"), [["203.0.113.7"]]);
    });
}

#[test]
fn an_idle_client_keeps_its_announced_address_in_the_next_process() {
    let recorder = Recorder::ok();
    let (gateway, address) = behind_proxies(&recorder, "127.0.0.1", "");
    block_on(async {
        let mut clients = Vec::new();
        for header in [
            "PROXY TCP4 203.0.113.7 10.0.0.1 1 2\r\n",
            "PROXY TCP6 2001:db8::7 ::1 1 2\r\n",
            "PROXY UNKNOWN\r\n",
        ] {
            let mut conn = Conn::open(&Target::Tcp(address)).await.unwrap();
            conn.send(header).await.unwrap();
            let first = conn.exchange("GET /1 HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert_eq!(first.unwrap().status(), 200);
            clients.push(conn);
        }
        // Who comes from another process has no parser yet when the next process takes over.
        handover::fresh(&gateway);
        handover::fresh(&gateway);
        for conn in &mut clients {
            let second = conn.exchange("GET /2 HTTP/1.1\r\nHost: h\r\n\r\n").await;
            assert_eq!(second.unwrap().status(), 200);
        }
    });
    let told = told(&recorder, "x-forwarded-for");
    assert_eq!(told[..3], told[3..]);
    assert_eq!(told[3..], [["203.0.113.7"], ["2001:db8::7"], ["unknown"]]);
}
