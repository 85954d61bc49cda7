//! The ruler measured: a load that lost nothing must mean that nothing was lost.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command};
use std::time::Duration;

use crate::support::gateway::Setup;
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

/// From a developer's terminal, a test that stops a gateway by a signal would be taken for Ctrl-Z.
#[test]
fn a_gateway_of_a_test_has_a_session_of_its_own_and_no_terminal() {
    let gateway = Setup::new().start();
    let pid = gateway.pid();
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let after_name = stat.rsplit_once(") ").unwrap().1;
    let fields: Vec<i64> = after_name
        .split(' ')
        .skip(1)
        .take(4)
        .map(|field| field.parse().unwrap())
        .collect();
    let [_parent, _group, session, terminal] = fields[..] else {
        panic!("{stat}")
    };
    assert_eq!((session, terminal), (i64::from(pid), 0));
}
