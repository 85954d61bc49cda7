//! Restarts of a server that can run only once: clients wait, none fails.

use std::collections::HashSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use crate::support::client::{self, Conn, Fault, Target, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::ws::{Frame, WebSocket};
use crate::support::{servers, wait};
use tokio_util::sync::CancellationToken;

/// How long tunnels may go on in these tests; the default of 5 s would only make them longer.
const TUNNEL_DRAIN: Duration = Duration::from_secs(1);
/// The clock of the client and that of the gateway begin at different ends of a socket.
const CLOCKS: Duration = Duration::from_millis(50);

fn exclusive() -> Setup {
    Setup::new().flag("--exclusive").config(format!(
        "[restart]\ntunnel_drain = \"{}ms\"\n",
        TUNNEL_DRAIN.as_millis()
    ))
}

/// `--exclusive` with the Node server that ends at once when another holds its lock.
fn locked(setup: &Setup, dir: &tempfile::TempDir) -> Gateway {
    setup
        .clone()
        .command(servers::node_with_lock(&dir.path().join("lock")))
        .start()
}

/// Keeps one WebSocket open for ever: opened again whenever the other side closes it in order.
fn permanent_websocket(
    target: Target,
    stop: CancellationToken,
    closes: mpsc::Sender<(Instant, Result<Frame, Fault>)>,
) {
    const ECHO_PAUSE: Duration = Duration::from_millis(50);
    block_on(async {
        while !stop.is_cancelled() {
            let mut socket = match WebSocket::open(&target, "/ws").await {
                Ok(socket) => socket,
                Err((fault, head)) => {
                    let fault = Fault::Garbage(format!("not opened: {fault} {head:?}"));
                    let _ = closes.send((Instant::now(), Err(fault)));
                    return;
                }
            };
            for count in 0_u32.. {
                let echo = count.to_string();
                let _ = socket.send(&echo).await;
                match socket.next().await {
                    Ok(Frame::Message(text)) if text == echo.as_bytes() => {}
                    end => {
                        let _ = closes.send((Instant::now(), end));
                        break;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(ECHO_PAUSE) => {}
                    () = stop.cancelled() => return,
                    end = socket.next() => {
                        let _ = closes.send((Instant::now(), end));
                        break;
                    }
                }
            }
        }
    });
}

#[test]
fn a_server_with_a_lock_and_a_permanent_websocket_is_restarted_10_times_and_no_request_fails() {
    if !servers::have("node") || !servers::have("flock") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = locked(&exclusive(), &dir);
    let (sender, closes) = mpsc::channel();
    let stop = CancellationToken::new();
    let (target, token) = (gateway.target(), stop.clone());
    let websocket = std::thread::spawn(move || permanent_websocket(target, token, sender));
    gateway.wait_status("the WebSocket is open", |status| status["tunnels"] == 1);
    let load = Load {
        new_per_second: 50.0,
        kept: 10,
        patience: Duration::from_secs(35),
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 20);
    let mut pids = HashSet::from([gateway.sidecar_pid("main")]);
    for number in 1..=10 {
        let asked = Instant::now();
        gateway.restart();
        assert!(
            pids.insert(gateway.sidecar_pid("main")),
            "restart {number} has no sidecar of its own"
        );
        let (closed, how) = closes
            .recv_timeout(wait::DEADLINE)
            .expect("the WebSocket hears of the restart");
        assert!(
            matches!(how, Ok(Frame::Close(1012, _))),
            "restart {number}: {how:?} instead of a Close frame 1012"
        );
        let lived = closed - asked;
        assert!(
            lived + CLOCKS >= TUNNEL_DRAIN,
            "restart {number}: the WebSocket was closed after {lived:?}, before its budget ended"
        );
        gateway.wait_status("the WebSocket is open again", |status| {
            status["tunnels"] == 1
        });
    }
    let report = load.stop();
    eprintln!("10 exclusive restarts: {report}");
    report.assert_clean(&[(Part::New, 200), (Part::Busy, 50), (Part::Idle, 20)]);
    stop.cancel();
    websocket.join().unwrap();
    assert!(
        closes.try_iter().next().is_none(),
        "the WebSocket was closed without a restart"
    );
}

#[test]
fn a_long_stream_that_begins_during_the_fade_is_whole() {
    if !servers::have("node") || !servers::have("flock") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Streams have as much time after the fade as this one needs.
    let setup = Setup::new()
        .flag("--exclusive")
        .config("[restart]\ntunnel_drain = \"14s\"\n");
    let gateway = locked(&setup, &dir);
    let before = gateway.sidecar_pid("main");
    let get = |path: &'static str| {
        let target = gateway.target();
        std::thread::spawn(move || block_on(client::get(&target, path)))
    };
    let slow = get("/slow?ms=2000");
    gateway.wait_status("the slow request is under way", |status| {
        status["requests"] == 1
    });
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_status("the restart is under way", |status| {
        status["stage"] == "restarting"
    });
    let began = Instant::now();
    let stream = get("/stream?ms=10000&chunks=20");
    gateway.wait_status("the stream is under way in the fade", |status| {
        status["requests"] == 2 && status["held"] == 0
    });
    assert_eq!(slow.join().unwrap().unwrap().status(), 200);
    // The fade is over with that answer, so this one waits for the next sidecar.
    gateway.wait_status("the fade ended", |status| status["requests"] == 1);
    let held = get("/pid");
    let answer = stream.join().unwrap().unwrap();
    assert!(
        began.elapsed() > Duration::from_secs(9),
        "the stream took only {:?}",
        began.elapsed()
    );
    let text = answer.text();
    assert_eq!(
        text.matches(&format!("from {before}")).count(),
        20,
        "all chunks come from the old sidecar: {text}"
    );
    assert!(text.ends_with("end\n"), "{text}");
    let held = held.join().unwrap().unwrap();
    let restart = restart.join().unwrap();
    assert!(restart.status.success(), "{}", said(&restart));
    assert_eq!(
        (held.status(), held.text()),
        (200, format!("{}\n", gateway.sidecar_pid("main"))),
        "the held request met the new sidecar"
    );
    assert_ne!(held.text(), format!("{before}\n"));
}

/// A restart during which requests wait for 1.5 s: so long the next sidecar takes to listen.
fn held_for_a_while() -> Option<(tempfile::TempDir, Gateway)> {
    if !servers::have("node") || !servers::have("flock") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = locked(&exclusive().env("START_DELAY_MS", "1500"), &dir);
    Some((dir, gateway))
}

/// Asks for a restart and comes back when the old sidecar is gone.
fn begin_hold(gateway: &Gateway) -> std::thread::JoinHandle<std::process::Output> {
    let before = gateway.sidecar_pid("main");
    let restart = gateway.ctl_aside(["restart"]);
    wait::until("the old sidecar is gone", || {
        (!std::path::Path::new(&format!("/proc/{before}")).exists()).then_some(())
    });
    restart
}

#[test]
fn a_held_upload_is_told_to_continue_only_when_it_is_released() {
    let Some((_dir, gateway)) = held_for_a_while() else {
        return;
    };
    let restart = begin_hold(&gateway);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send("POST /echo HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await.unwrap();
        gateway.wait_status("the upload is held", |status| status["held"] == 1);
        let early = tokio::time::timeout(Duration::from_millis(300), conn.more()).await;
        assert!(
            early.is_err(),
            "something was said while the request was held: {:?}",
            conn.buffered()
        );
        let go = client::within(wait::DEADLINE, conn.head()).await.unwrap();
        assert_eq!(go.status(), 100, "{go:?}");
        conn.send("hello").await.unwrap();
        let answer = client::within(wait::DEADLINE, conn.response(false))
            .await
            .unwrap();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "hello"));
        let answer = client::within(
            wait::DEADLINE,
            conn.exchange("GET /pid HTTP/1.1\r\nHost: test\r\n\r\n"),
        )
        .await
        .unwrap();
        assert_eq!(answer.status(), 200, "the connection serves on");
    });
    assert!(restart.join().unwrap().status.success());
}

#[test]
fn a_held_post_is_delivered_once_with_its_whole_body() {
    let Some((_dir, gateway)) = held_for_a_while() else {
        return;
    };
    let restart = begin_hold(&gateway);
    let body = servers::pattern(3_000_000);
    block_on(async {
        let mut conn = Conn::open(&gateway.target()).await.unwrap();
        conn.send(format!(
            "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n",
            body.len()
        ))
        .await
        .unwrap();
        // Nobody polls the body while it is held, so the writer may have to wait; it must not be
        // refused.
        let (io, _) = conn.into_inner();
        let (read, mut write) = tokio::io::split(io);
        let sent = body.clone();
        let writer = tokio::spawn(async move {
            tokio::io::AsyncWriteExt::write_all(&mut write, &sent)
                .await
                .unwrap();
            write
        });
        let mut conn = Conn::over(tokio::io::join(read, tokio::io::sink()));
        let answer = client::within(wait::DEADLINE, conn.response(false))
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
        assert!(
            answer.body == body,
            "{} bytes came back of {}",
            answer.body.len(),
            body.len()
        );
        drop(writer.await.unwrap());
    });
    assert!(restart.join().unwrap().status.success());
}

#[test]
fn a_held_client_that_goes_away_leaves_its_place_and_is_not_served() {
    let Some((_dir, gateway)) = held_for_a_while() else {
        return;
    };
    let restart = begin_hold(&gateway);
    block_on(async {
        let mut streams = Vec::new();
        for _ in 0..20 {
            let mut stream = tokio::net::TcpStream::connect(gateway.addr())
                .await
                .unwrap();
            let text = "POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
            tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes())
                .await
                .unwrap();
            streams.push(stream);
        }
        gateway.wait_status("all are held", |status| status["held"] == 20);
        for stream in streams {
            stream.set_zero_linger().unwrap();
        }
        let status = gateway.wait_status("all have gone", |status| status["held"] == 0);
        assert_eq!(
            status["stage"], "restarting",
            "they left before they were let through: {status:#}"
        );
    });
    assert!(restart.join().unwrap().status.success());
    gateway.wait_status("nothing is left of them", |status| {
        status["requests"] == 0 && status["connections"] == 0
    });
}

#[test]
fn who_waits_longer_than_the_hold_allows_is_told_when_to_come_back() {
    if !servers::have("node") {
        return;
    }
    let setup = Setup::behind(servers::node())
        .flag("--exclusive")
        .env("START_DELAY_MS", "4000");
    let gateway = setup
        .config("[restart]\nhold = { time = \"2s\", requests = 2 }\n")
        .start();
    let restart = begin_hold(&gateway);
    let asked = Instant::now();
    let get = || {
        let target = gateway.target();
        std::thread::spawn(move || (block_on(client::get(&target, "/")).unwrap(), Instant::now()))
    };
    let waiting = [get(), get()];
    gateway.wait_status("both are held", |status| status["held"] == 2);
    let asked_third = Instant::now();
    let (third, at) = get().join().unwrap();
    assert_eq!(third.status(), 503, "a third one has no room");
    assert!(third.head.get("retry-after").is_some(), "{:?}", third.head);
    assert!(
        at - asked_third < Duration::from_millis(1500),
        "it was refused at once"
    );
    for held in waiting {
        let (answer, at) = held.join().unwrap();
        assert_eq!(answer.status(), 503);
        assert!(
            answer.head.get("retry-after").is_some(),
            "{:?}",
            answer.head
        );
        let waited = at - asked;
        assert!(
            waited + CLOCKS >= Duration::from_secs(2) && waited < Duration::from_secs(4),
            "it waited {waited:?}"
        );
    }
    let restart = restart.join().unwrap();
    assert_eq!(restart.status.code(), Some(1), "{}", said(&restart));
    let counted = "3 requests failed (3 503)";
    assert!(said(&restart).contains(counted), "{}", said(&restart));
    assert_eq!(
        block_on(client::get(&gateway.target(), "/"))
            .unwrap()
            .status(),
        200
    );
}

#[test]
fn a_new_version_that_cannot_start_gives_way_to_the_old_one() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let version = dir.path().join("version");
    std::fs::write(&version, "").unwrap();
    let script = format!(
        "if [ -s {0} ]; then cat {0} >&2; exit 3; fi; exec \"$@\"",
        version.display()
    );
    let mut command = vec!["sh".to_owned(), "-c".into(), script, "sh".into()];
    command.extend(servers::node());
    let gateway = exclusive().command(command).start();
    let load = Load {
        new_per_second: 50.0,
        kept: 6,
        patience: Duration::from_secs(35),
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 20);
    std::fs::write(&version, "the table `users` is missing\n").unwrap();
    let restart = gateway.ctl_aside(["restart"]);
    // The previous specification is started again; here that is the same script, so it needs its
    // old state back.
    gateway.wait_line("the table `users` is missing");
    std::fs::write(&version, "").unwrap();
    let output = restart.join().unwrap();
    load.flows(Part::New, 20);
    let report = load.stop();
    report.assert_clean(&[(Part::New, 40)]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains("the table `users` is missing"),
        "{}",
        said(&output)
    );
}

/// 100 requests a second, and a server that takes 10 s to start: 1,000 wait, here sooner.
#[test]
fn a_thousand_requests_wait_for_a_server_that_starts_slowly_and_none_fails() {
    const HELD: u64 = 1_000;
    // The buffers of a connection are at most so large.
    const KIB_EACH: u64 = 64;
    if !servers::have("node") || !servers::have("flock") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    std::fs::write(&gate, "").unwrap();
    let command = servers::node_with_lock(&dir.path().join("lock"));
    let command = servers::once_there(&gate, command);
    let gateway = exclusive().command(command).start();
    let load = Load {
        new_per_second: 250.0,
        kept: 20,
        patience: wait::DEADLINE,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 100);
    let (before, _) = gateway.memory_kib();
    std::fs::remove_file(&gate).unwrap();
    let restart = gateway.ctl_aside(["restart", "--json"]);
    gateway.wait_status("1,000 are held", |status| {
        status["held"].as_u64() >= Some(HELD)
    });
    let (held, _) = gateway.memory_kib();
    std::fs::write(&gate, "").unwrap();
    let output = restart.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    load.flows(Part::New, 100);
    let report = load.stop();
    eprintln!("{before} KiB before, {held} KiB with those that were held: {report}");
    report.assert_clean(&[(Part::New, HELD), (Part::Busy, 20)]);
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let clients = &answer["clients"];
    assert!(clients["held"].as_u64() >= Some(HELD), "{clients}");
    assert_eq!(clients["failed"], serde_json::json!({}), "{clients}");
    let grown = held.saturating_sub(before);
    assert!(grown < HELD * KIB_EACH, "{grown} KiB more");
}
