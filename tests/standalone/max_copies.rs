//! `[restart] max_copies`: a lasting WebSocket keeps its old copy of a server alive, but only so many
//! live at once.

use crate::support::client::block_on;
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::handover::respawning;
use crate::support::servers;
use crate::support::ws::{Frame, WebSocket};

/// The default of `max_copies`: the one that serves, and those that finish their work.
const MOST: usize = 3;
const RESTARTS: usize = 5;

/// With the default of `max_copies`, which the other tests do not have.
fn three_copies(setup: Setup) -> Setup {
    setup.env("GATEWAY_RESTART_MAX_COPIES", MOST.to_string())
}

/// Opens a WebSocket, restarts, and so on. Those to the oldest copies are told of their end, and the
/// others go on.
async fn pile_up(gateway: &Gateway) {
    let mut sockets = Vec::new();
    for number in 0..=RESTARTS {
        if number > 0 {
            gateway.restart();
        }
        let socket = WebSocket::open(&gateway.target(), "/ws").await;
        sockets.push(socket.map_err(|(fault, _)| fault).unwrap());
    }
    let kept = sockets.split_off(sockets.len() - MOST);
    for mut socket in sockets {
        let end = socket.next().await;
        assert!(matches!(end, Ok(Frame::Close(1012, _))), "{end:?}");
        // Its handshake.
        let _ = socket.close(1012).await;
    }
    assert_eq!(copies(gateway), MOST);
    for mut socket in kept {
        socket.echo("still there").await.unwrap();
    }
}

/// How many copies the status shows when the others are gone, each with its memory.
fn copies(gateway: &Gateway) -> usize {
    let status = gateway.wait_status("the oldest copies are gone", |status| {
        let drainers = status["drainers"].as_array();
        drainers.is_some_and(|all| all.len() < MOST)
    });
    let lists = [&status["sidecars"], &status["drainers"]];
    let all = lists
        .map(|list| list.as_array().unwrap().as_slice())
        .concat();
    for copy in &all {
        // A Node server needs more than 10 MB.
        let memory = copy["memoryBytes"].as_u64().unwrap_or(0);
        assert!(memory > 10_000_000, "{status:#}");
    }
    all.len()
}

#[test]
fn five_restarts_with_a_lasting_websocket_each_leave_three_copies() {
    if !servers::have("node") {
        return;
    }
    let gateway = three_copies(Setup::behind(servers::node())).start();
    block_on(async {
        pile_up(&gateway).await;
        for generation in 1..=3 {
            let line = gateway.wait_line(&format!("generation {generation} ends before its time"));
            assert!(
                line.contains("with tunnel GET /ws for ") && line.contains("max_copies"),
                "{line}"
            );
        }
        let history = said(&gateway.ctl(["history"]));
        assert!(
            history.contains("generation 3, the oldest copy (max_copies = 3)"),
            "{history}"
        );
    });
}

#[test]
fn fresh_processes_leave_three_copies_too() {
    let Some(setup) = respawning() else { return };
    let gateway = three_copies(setup).start();
    block_on(async {
        pile_up(&gateway).await;
        let first = gateway.pid();
        gateway.wait_line(&format!("pid {first} ends before its time"));
    });
}

#[test]
fn with_room_for_more_copies_more_are_left() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    block_on(async {
        let open = async || WebSocket::open(&gateway.target(), "/ws").await;
        let mut sockets = vec![open().await.map_err(|(fault, _)| fault).unwrap()];
        for _ in 0..MOST {
            gateway.restart();
            sockets.push(open().await.map_err(|(fault, _)| fault).unwrap());
        }
        for mut socket in sockets {
            socket.echo("still there").await.unwrap();
        }
        let status = gateway.status();
        assert_eq!(status["drainers"].as_array().map(Vec::len), Some(MOST));
    });
}
