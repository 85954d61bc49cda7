//! The ruler measured: a load that lost nothing must mean that nothing was lost.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::{port, servers, wait};

fn node(port: u16) -> Child {
    let mut command = servers::node();
    command[2] = port.to_string();
    let child = Command::new(&command[0])
        .args(&command[1..])
        .spawn()
        .unwrap();
    wait::until("node listens", || {
        TcpStream::connect(("127.0.0.1", port)).ok()
    });
    child
}

fn load(port: u16) -> Load {
    Load {
        new_per_second: 100.0,
        kept: 20,
        downloads: 4,
        download: Some(servers::node_download(
            1_000_000,
            Duration::from_millis(500),
        )),
        websockets: 4,
        ..Load::on(SocketAddr::from(([127, 0, 0, 1], port)))
    }
}

#[test]
fn a_server_left_alone_loses_nothing() {
    if !servers::have("node") {
        return;
    }
    let port = port::private();
    let mut child = node(port);
    let running = load(port).start();
    running.flows(Part::New, 100);
    running.flows(Part::Idle, 10);
    let report = running.stop();
    child.kill().unwrap();
    child.wait().unwrap();
    report.assert_clean(&[
        (Part::New, 100),
        (Part::Busy, 50),
        (Part::Idle, 10),
        (Part::Download, 4),
        (Part::WebSocket, 10),
    ]);
}

#[test]
fn a_server_killed_and_started_again_is_seen_to_lose_of_every_kind() {
    if !servers::have("node") {
        return;
    }
    let port = port::private();
    let mut child = node(port);
    let running = load(port).start();
    running.flows(Part::New, 100);
    running.flows(Part::WebSocket, 8);
    child.kill().unwrap();
    child.wait().unwrap();
    let refused = || running.so_far().failures_of("refused") > 10;
    wait::until("refused connections", || refused().then_some(()));
    let mut child = node(port);
    running.flows(Part::New, 100);
    let report = running.stop();
    child.kill().unwrap();
    child.wait().unwrap();
    for (part, kinds) in [
        (Part::New, ["refused", "refused"]),
        (Part::Idle, ["closed while idle", "closed while idle"]),
        (Part::Download, ["truncated", "reset"]),
        (Part::WebSocket, ["cut", "not opened"]),
    ] {
        let seen = kinds
            .iter()
            .any(|kind| report.failed.contains_key(&(part, (*kind).to_owned())));
        assert!(seen, "{part:?} lost nothing of {kinds:?}: {report}");
    }
}
