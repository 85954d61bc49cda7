//! What meets at the wrong moment: handshakes and drains, stops and starts, storms of signals.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::client::{self, Conn, block_on, within};
use crate::support::gateway::{READY, Setup, said};
use crate::support::wait::{self, DEADLINE};
use crate::support::ws::{Frame, WebSocket, handshake};
use crate::support::{servers, upstream::Recorder};
use nix::sys::signal::Signal;

/// A server in sh and Python: never answers `/never`, streams `/stream` for three seconds whatever
/// is asked, agrees to `/ws`.
const SERVER: &str = r#"
import http.server, os, sys, time
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_GET(self):
        if self.path == "/never": time.sleep(1000)
        self.send_response(200)
        if self.path == "/stream":
            self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
            for n in range(30):
                self.wfile.write(b"2\r\nok\r\n"); self.wfile.flush(); time.sleep(0.1)
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"#;

fn python() -> Option<Setup> {
    servers::have("python3").then(|| Setup::behind(["python3", "-c", SERVER, "{port}"]))
}

#[test]
fn a_handshake_without_an_answer_keeps_no_drain_open() {
    let Some(setup) = python() else { return };
    let gateway = setup
        .config("[restart]\ndrain = \"1s\"\ntunnel_drain = \"500ms\"\n")
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(handshake("/never")).await.unwrap();
        gateway.wait_status("the handshake is under way", |status| {
            status["requests"] == 1
        });
        let output = gateway.ctl(["restart"]);
        assert!(output.status.success(), "{}", said(&output));
        // The handshake is never answered: only the end of the budget can end the drain.
        gateway.gone_after(1);
    });
}

#[test]
fn an_upgrade_that_is_answered_with_a_stream_has_the_time_of_a_request() {
    let Some(setup) = python() else { return };
    let gateway = setup
        .config("[restart]\ndrain = \"20s\"\ntunnel_drain = \"200ms\"\n")
        .start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(handshake("/stream")).await.unwrap();
        let head = conn.head().await.unwrap();
        assert_eq!(head.status(), 200);
        let output = gateway.ctl(["restart"]);
        assert!(output.status.success(), "{}", said(&output));
        let (body, _) = within(DEADLINE, conn.body(head.framing(false)))
            .await
            .unwrap();
        assert_eq!(body.len(), 60, "the stream is whole");
    });
}

#[test]
fn a_tunnel_takes_up_a_place_among_the_connections() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node())
        .config("[limits]\nconnections = 1\n")
        .start();
    block_on(async {
        let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        gateway.wait_status("it counts", |status| {
            status["connections"] == 1 && status["tunnels"] == 1
        });
        let turned_away = client::get(&gateway.target(), "/").await.unwrap();
        assert_eq!(turned_away.status(), 503);
        socket.echo("still here").await.unwrap();
        drop(socket);
    });
    wait::until("its place is free", || {
        let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
        (answer.status() == 200).then_some(())
    });
}

#[test]
fn a_stop_during_the_first_start_lets_the_sidecar_end_and_answers_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    let ended = dir.path().join("ended");
    let script = format!(
        "trap 'sleep 0.5; echo done > {}; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        ended.display()
    );
    let mut gateway = Setup::behind(["sh", "-c", &script]).spawn();
    gateway.wait_line("[main] up");
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        gateway.wait_status("the request waits", |status| status["held"] == 1);
        let begun = Instant::now();
        gateway.signal(Signal::SIGTERM);
        let answer = within(DEADLINE, conn.response(false)).await.unwrap();
        assert_eq!(answer.status(), 503, "{}", answer.text());
        assert_eq!(gateway.exit_code(DEADLINE), 0);
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
    });
    assert!(ended.exists(), "the sidecar ended in its own time");
}

#[test]
fn a_stop_during_a_restart_lets_the_new_sidecar_end() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (first, ended) = (dir.path().join("first"), dir.path().join("ended"));
    let script = format!(
        "[ -e {0} ] || {{ touch {0}; exec {1} {2} \"$1\"; }}; trap 'sleep 0.5; echo done > {3}; exit 0' TERM; echo next; while :; do sleep 0.05; done",
        first.display(),
        servers::node()[0],
        servers::NODE_APP,
        ended.display()
    );
    let mut gateway = Setup::behind(["sh", "-c", &script, "sh", "{port}"]).start();
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_line("[main] next");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(DEADLINE), 0);
    assert!(ended.exists(), "the new sidecar ended in its own time");
    let output = restart.join().unwrap();
    assert!(
        !output.status.success() && said(&output).contains("stopping"),
        "{}",
        said(&output)
    );
}

#[test]
fn an_end_at_once_still_answers_who_waits_for_a_drain() {
    if !servers::have("node") {
        return;
    }
    let mut gateway = Setup::behind(servers::node()).start();
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("GET /slow?ms=60000 HTTP/1.1\r\nHost: h\r\n\r\n")
            .await
            .unwrap();
        gateway.wait_status("the request is under way", |status| status["requests"] == 1);
        let restart = gateway.ctl_aside(["restart", "--drained"]);
        gateway.wait_status("the old generation drains", |status| {
            status["drainers"]
                .as_array()
                .is_some_and(|all| !all.is_empty())
        });
        gateway.signal(Signal::SIGINT);
        gateway.wait_line("once more to stop at once");
        gateway.signal(Signal::SIGINT);
        gateway.exit_code(DEADLINE);
        let output = restart.join().unwrap();
        assert!(
            said(&output).contains("the gateway ended before it could answer"),
            "{}",
            said(&output)
        );
    });
}

#[test]
fn a_storm_of_signals_ends_in_order_and_leaves_nothing_behind() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let tasks = |pid: u32| fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
    let settled = || {
        gateway.wait_status("it is ready and nothing drains", |status| {
            status["stage"] == "ready" && status["drainers"] == serde_json::json!([])
        })
    };
    let before = settled()["generation"].as_u64().unwrap();
    gateway.restart();
    settled();
    let (fds, threads) = (gateway.fds(), tasks(gateway.pid()));
    for _ in 0..100 {
        gateway.signal(Signal::SIGHUP);
        gateway.signal(Signal::SIGUSR1);
        wait::pause(Duration::from_millis(5));
    }
    wait::until("the storm is over", || {
        let status = gateway.status();
        let log = gateway.stderr();
        let asked = log.matches(" asked: ").count();
        let answered = log
            .lines()
            .filter(|line| line.contains("] restart r") || line.contains("] reload r"))
            .filter(|line| line.contains(" -> "))
            .count();
        (status["stage"] == "ready"
            && status["drainers"] == serde_json::json!([])
            && asked == answered
            && asked > 2)
            .then_some(())
    });
    assert_eq!(
        block_on(client::get(&gateway.target(), "/"))
            .unwrap()
            .status(),
        200
    );
    assert!(gateway.status()["generation"].as_u64().unwrap() > before + 1);
    wait::until("no descriptor is left over", || {
        (gateway.fds() <= fds + 2).then_some(())
    });
    assert_eq!(tasks(gateway.pid()), threads);
    assert_eq!(
        crate::support::gateway::descendants(gateway.pid()).len(),
        1,
        "one sidecar"
    );
}

#[test]
fn an_upload_that_is_refused_lives_to_read_why() {
    let recorder = Recorder::ok();
    let gateway = Setup::new()
        .config(format!(
            "[limits]\nbody = 1000\n[[route]]\npath = \"/in\"\nto = \"http://{}\"\n",
            recorder.addr()
        ))
        .start();
    let body = vec![b'x'; 256 * 1024];
    for (path, at_once, at_last) in [
        ("/in", 413, 413),
        ("/nowhere", 413, 404),
        ("/_gateway/metrics", 401, 401),
    ] {
        for chunked in [false, true] {
            let expected = if chunked { at_last } else { at_once };
            block_on(async {
                let mut conn = Conn::open(&gateway.target()).await.unwrap();
                let framing = if chunked {
                    "Transfer-Encoding: chunked".to_owned()
                } else {
                    format!("Content-Length: {}", body.len() * 64)
                };
                conn.send(format!(
                    "POST {path} HTTP/1.1\r\nHost: h\r\n{framing}\r\n\r\n"
                ))
                .await
                .unwrap();
                for _ in 0..64 {
                    if chunked {
                        conn.send(format!("{:x}\r\n", body.len())).await.unwrap();
                    }
                    conn.send(&body)
                        .await
                        .unwrap_or_else(|fault| panic!("{path} chunked {chunked}: {fault}"));
                    if chunked {
                        conn.send("\r\n").await.unwrap();
                    }
                }
                if chunked {
                    conn.send("0\r\n\r\n").await.unwrap();
                }
                let answer = within(DEADLINE, conn.response(false)).await.unwrap();
                assert_eq!(answer.status(), expected, "{path} chunked {chunked}");
            });
        }
    }
    assert!(recorder.seen().is_empty());
}

#[test]
fn an_old_client_without_a_host_and_a_user_in_the_url_reach_the_upstream() {
    let recorder = Recorder::ok();
    let gateway = Setup::upstream(recorder.addr()).start();
    for request in [
        "GET /old HTTP/1.0\r\n\r\n",
        "GET http://me:secret@example.org:8080/whole HTTP/1.1\r\nHost: other\r\n\r\n",
    ] {
        assert_eq!(
            block_on(client::request(&gateway.target(), request))
                .unwrap()
                .status(),
            200,
            "{request}"
        );
    }
    let seen = recorder.seen();
    assert_eq!(seen[0].head.get("host"), Some("localhost"));
    assert_eq!(seen[1].head.get("host"), Some("example.org:8080"));
    let coded = "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\nConnection: close\r\n\r\n0\r\n\r\n";
    assert_eq!(
        block_on(client::request(&gateway.target(), coded))
            .unwrap()
            .status(),
        501
    );
}

#[test]
fn a_websocket_in_the_middle_of_its_handshake_is_told_when_the_others_are() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node())
        .config("[restart]\ntunnel_drain = \"300ms\"\n")
        .start();
    block_on(async {
        let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        let output = gateway.ctl(["restart"]);
        assert!(output.status.success(), "{}", said(&output));
        let end = within(DEADLINE, socket.next()).await.unwrap();
        assert!(matches!(end, Frame::Close(1012, _)), "{end:?}");
    });
}

#[test]
fn a_unix_socket_whose_path_was_removed_is_back_after_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a b.sock");
    let gateway = Setup::new()
        .flag("--listen")
        .flag(format!("unix:{}", path.display()))
        .spawn();
    gateway.wait_line(READY);
    let ask = |path: &Path| {
        std::os::unix::net::UnixStream::connect(path).map(|mut stream| {
            use std::io::{Read, Write};
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
                .unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            text
        })
    };
    assert!(ask(&path).unwrap().starts_with("HTTP/1.1 200"));
    fs::remove_file(&path).unwrap();
    let output = gateway.ctl(["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(ask(&path).unwrap().starts_with("HTTP/1.1 200"));
}

#[test]
fn secrets_of_the_inherited_environment_are_never_shown() {
    const CANARY: &str = "canaryinherited4f";
    let mut gateway = Setup::behind(["sh", "-c", "echo \"I have $SERVICE_TOKEN\"; exit 3"])
        .env("SERVICE_TOKEN", CANARY)
        .spawn();
    gateway.exit_code(DEADLINE);
    let log = gateway.stderr();
    assert!(log.contains("I have ***") && !log.contains(CANARY), "{log}");
}

#[test]
fn listeners_that_nobody_comes_to_take_no_place_from_the_others() {
    let gateway = Setup::new()
        .unix_listener()
        .config("[limits]\nconnections = 1\n[gateway]\nworkers = 4\n")
        .start();
    for _ in 0..20 {
        for target in [gateway.target(), gateway.unix_target()] {
            let answer = block_on(within(DEADLINE, client::get(&target, "/healthz")));
            assert_eq!(answer.unwrap().status(), 200, "{target:?}");
        }
    }
}

#[test]
fn a_websocket_to_a_plain_upstream_is_told_of_a_stop_whatever_was_reloaded_before() {
    if !servers::have("node") {
        return;
    }
    let behind = Setup::behind(servers::node()).start();
    let mut gateway = Setup::upstream(behind.addr()).start();
    block_on(async {
        let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        let output = gateway.ctl(["restart"]);
        assert!(output.status.success(), "{}", said(&output));
        gateway.signal(Signal::SIGTERM);
        let end = within(DEADLINE, socket.next()).await.unwrap();
        assert!(matches!(end, Frame::Close(1012, _)), "{end:?}");
        assert_eq!(gateway.exit_code(DEADLINE), 0);
    });
}

#[test]
fn a_reload_changes_how_many_clients_are_served_at_once() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node())
        .config("[limits]\nconnections = 1\n")
        .start();
    let file = fs::read_to_string(gateway.config_file()).unwrap();
    block_on(async {
        let mut socket = WebSocket::open(&gateway.target(), "/ws").await.unwrap();
        let turned_away = client::get(&gateway.target(), "/").await.unwrap();
        assert_eq!(turned_away.status(), 503);
        let more = file.replace("connections = 1", "connections = 2");
        fs::write(gateway.config_file(), more).unwrap();
        let output = gateway.ctl(["reload"]);
        assert!(output.status.success(), "{}", said(&output));
        let served = client::get(&gateway.target(), "/").await.unwrap();
        assert_eq!(served.status(), 200);
        socket.echo("still here").await.unwrap();
    });
}
