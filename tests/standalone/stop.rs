//! A stop answers to its last moment; a stop and a restart say what they had to cut.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::client::{self, Conn, Fault, Response, block_on, within};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::wait::{self, DEADLINE};
use crate::support::ws::handshake;
use crate::support::{knock, servers};

/// A stop whose sidecar takes its time after the work is done.
const SLOW_END: &str = r#""$@" & trap 'sleep 1.5; kill $!; exit 0' TERM; wait"#;

fn node() -> Option<Setup> {
    servers::have("node").then(|| Setup::behind(servers::node()))
}

fn get(gateway: &Gateway, path: &str) -> Response {
    block_on(client::get(&gateway.target(), path)).unwrap()
}

fn get_aside(gateway: &Gateway, path: &'static str) -> JoinHandle<Result<Response, Fault>> {
    let target = gateway.target();
    std::thread::spawn(move || block_on(client::get(&target, path)))
}

fn under_way(gateway: &Gateway, requests: u64) {
    gateway.wait_status("the requests are under way", |status| {
        status["requests"] == requests
    });
}

fn clients_until_refused(gateway: &Gateway) -> JoinHandle<Vec<u16>> {
    let addr = gateway.addr();
    std::thread::spawn(move || knock::until_refused(addr, !nix::unistd::geteuid().is_root()))
}

#[test]
fn new_clients_are_served_while_a_stop_finishes_old_work_and_nobody_is_reset() {
    if !servers::have("node") {
        return;
    }
    let command = [
        vec!["sh".into(), "-c".into(), SLOW_END.into(), "sh".into()],
        servers::node(),
    ];
    let mut gateway = Setup::behind(command.concat()).start();
    let slow = get_aside(&gateway, "/slow?ms=1500");
    under_way(&gateway, 1);
    let clients: Vec<_> = (0..4).map(|_| clients_until_refused(&gateway)).collect();
    gateway.signal(Signal::SIGTERM);
    gateway.wait_line("received SIGTERM: stopping");
    let ready = get(&gateway, "/readyz");
    assert_eq!(ready.status(), 503);
    assert!(ready.text().contains("stopping"), "{}", ready.text());
    let answer = get(&gateway, "/");
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let tunnel = block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(handshake("/ws")).await.unwrap();
        within(DEADLINE, conn.head()).await.unwrap()
    });
    assert_eq!(tunnel.status(), 503, "a tunnel would be ended at once");

    assert_eq!(slow.join().unwrap().unwrap().status(), 200);
    let turned_away = wait::until("the sidecars end", || {
        let answer = get(&gateway, "/");
        (answer.status() == 503).then_some(answer)
    });
    assert!(turned_away.head.get("retry-after").is_some());
    assert!(!turned_away.head.keeps());
    assert_eq!(get(&gateway, "/healthz").status(), 200);
    assert_eq!(gateway.exit_code(DEADLINE), 0, "{}", gateway.stderr());
    for client in clients {
        let statuses = client.join().unwrap();
        let turned = statuses.iter().position(|status| *status == 503).unwrap();
        assert!(turned > 0, "{statuses:?}");
        assert!(statuses[..turned].iter().all(|status| *status == 200));
        assert!(statuses[turned..].iter().all(|status| *status == 503));
    }
}

#[test]
fn a_stop_delay_serves_as_before_while_readyz_says_that_it_stops() {
    let Some(setup) = node() else { return };
    let mut gateway = setup.env("GATEWAY_RESTART_STOP_DELAY", "1s").start();
    let clients = clients_until_refused(&gateway);
    let kept = block_on(async {
        let mut kept = Conn::open(&gateway.target()).await.unwrap();
        let ask = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        assert!(kept.exchange(ask).await.unwrap().head.keeps());
        let begun = Instant::now();
        gateway.signal(Signal::SIGTERM);
        gateway.wait_line("received SIGTERM: stopping");
        let answer = within(DEADLINE, kept.exchange(ask)).await.unwrap();
        assert_eq!((answer.status(), answer.head.keeps()), (200, false));
        begun
    });
    assert_eq!(get(&gateway, "/readyz").status(), 503);
    assert_eq!(get(&gateway, "/").status(), 200);
    assert_eq!(gateway.exit_code(DEADLINE), 0, "{}", gateway.stderr());
    assert!(
        kept.elapsed() >= Duration::from_secs(1),
        "{:?}",
        kept.elapsed()
    );
    assert!(clients.join().unwrap().len() > 5);
}

#[test]
fn a_stop_that_had_to_cut_says_so_in_log_record_bundle_and_exit_code() {
    let Some(setup) = node() else { return };
    let mut gateway = setup.env("GATEWAY_RESTART_STOP_DRAIN", "1s").start();
    let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
    under_way(&gateway, 1);
    gateway.signal(Signal::SIGTERM);
    gateway.wait_line("received SIGTERM: stopping");
    gateway.signal(Signal::SIGTERM);
    let again = gateway.wait_line("received SIGTERM again: already stopping");
    assert!(again.contains("under way: GET /stream"), "{again}");
    assert_eq!(gateway.exit_code(DEADLINE), 1, "{}", gateway.stderr());
    assert!(stream.join().unwrap().is_err());
    let log = gateway.stderr();
    assert_eq!(log.matches(": stopping").count(), 1, "{log}");
    assert!(
        log.contains("time to stop is over; cutting GET /stream"),
        "{log}"
    );
    let history = std::fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    let last: Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    let cut = last["cut"][0].as_str().unwrap_or_default();
    assert!(cut.starts_with("GET /stream"), "{last}");
    assert_eq!((&last["code"], &last["planned"]), (&1.into(), &true.into()));
    assert_eq!(bundles(&gateway), 1);
}

#[test]
fn a_requested_stop_that_had_to_cut_says_so_and_why_names_it_first() {
    let Some(setup) = node() else { return };
    let mut gateway = setup.env("GATEWAY_RESTART_STOP_DRAIN", "1s").start();
    let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
    under_way(&gateway, 1);
    let output = gateway.ctl(["stop"]);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(
        text.contains("time to finish was over; cut: GET /stream"),
        "{text}"
    );
    assert_eq!(gateway.exit_code(DEADLINE), 1, "{}", gateway.stderr());
    assert!(stream.join().unwrap().is_err());
    let log = gateway.stderr();
    let cutting = log.lines().find(|line| line.contains("is over; cutting"));
    assert_eq!(cutting.unwrap().matches("GET /stream").count(), 1, "{log}");
    let text = said(&gateway.ctl(["why"]));
    assert!(text.contains("and cut GET /stream"), "{text}");
}

fn bundles(gateway: &Gateway) -> usize {
    let bundles = std::fs::read_dir(gateway.state_dir().join("bundles"));
    bundles.map_or(0, Iterator::count)
}

/// Beside the old generation, and in its place.
#[test]
fn a_restart_that_had_to_cut_says_so_in_answer_log_record_bundle_and_status() {
    for flag in [None, Some("--exclusive")] {
        let Some(setup) = node() else { return };
        let setup = flag.into_iter().fold(setup, Setup::flag);
        let gateway = setup.start();
        let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
        under_way(&gateway, 1);
        let output = gateway.ctl(["restart", "--wait", "1s", "--drained"]);
        let text = said(&output);
        // In its place, the client is failed before the next generation serves.
        let failed = i32::from(flag.is_some());
        assert_eq!(output.status.code(), Some(failed), "{text}");
        assert!(text.contains("cut: GET /stream"), "{text}");
        assert!(stream.join().unwrap().is_err());
        gateway.wait_line("drain time is over; cutting GET /stream");
        let status = gateway.status();
        let request = &status["lastRestart"]["request"];
        let cut = status["lastRestart"]["cut"][0].as_str().unwrap_or_default();
        assert!(cut.starts_with("GET /stream"), "{status}");
        let history = std::fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
        let mut lines = history
            .lines()
            .map(|line| serde_json::from_str(line).unwrap());
        let line = lines.rfind(|line: &Value| line["event"] == "cut");
        let line = line.unwrap_or_else(|| panic!("{history}"));
        assert_eq!(
            (&line["request"], &line["sidecar"]),
            (request, &"main".into())
        );
        assert_eq!(line["cut"][0], cut);
        assert_eq!(bundles(&gateway), 1);
        for command in ["status", "why", "history"] {
            let text = said(&gateway.ctl([command]));
            assert!(text.contains("GET /stream"), "{command}: {text}");
        }
    }
}

#[test]
fn a_restart_that_was_to_cut_is_on_record_and_keeps_no_bundle() {
    let Some(setup) = node() else { return };
    let gateway = setup.start();
    let stream = get_aside(&gateway, "/stream?ms=60000&chunks=600");
    under_way(&gateway, 1);
    let output = gateway.ctl(["restart", "--force", "--drained"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(stream.join().unwrap().is_err());
    let text = said(&gateway.ctl(["history"]));
    assert!(text.contains("cut at main"), "{text}");
    assert_eq!(bundles(&gateway), 0);
}
