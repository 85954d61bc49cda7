//! A server is ready when it answers, not when it listens.

use std::fs;
use std::path::Path;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, READY, Setup, said};
use crate::support::{servers, wait};

/// Listens at once, and answers nobody while there is a file `deaf`.
const EARLY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/early.py");

fn early(dir: &Path) -> Setup {
    Setup::behind(["python3", EARLY, "{port}", dir.to_str().unwrap()])
}

/// What the server answers: its process id.
fn ask(gateway: &Gateway) -> String {
    let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    answer.text()
}

/// gunicorn, puma: they listen before they load. The new copy gets no request before it can answer
/// one, and one probe is all that it finds in its queue.
#[test]
fn a_server_that_listens_gets_traffic_only_when_it_answers() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = early(dir.path()).start();
    let old = ask(&gateway);
    fs::write(dir.path().join("deaf"), "").unwrap();
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_nth_line("loading", 1);
    for _ in 0..20 {
        assert_eq!(ask(&gateway), old);
    }
    gateway.wait_line("has not answered HEAD /: if it takes long to load");
    assert_eq!(ask(&gateway), old);
    fs::remove_file(dir.path().join("deaf")).unwrap();
    let restarted = restart.join().unwrap();
    assert!(restarted.status.success(), "{}", said(&restarted));
    let new = ask(&gateway);
    assert_ne!(new, old);
    let asked = fs::read_to_string(dir.path().join(&new)).unwrap();
    let probes = asked.lines().filter(|line| line.contains("gateway-probe"));
    assert_eq!(
        probes.collect::<Vec<_>>(),
        ["HEAD / HTTP/1.1 user-agent: gateway-probe"],
        "{asked}"
    );
}

/// It listens and never answers: the restart fails, and says what to do.
#[test]
fn a_server_that_never_answers_does_not_replace_one_that_does() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = early(dir.path()).flag("--start-timeout=2s").start();
    let old = ask(&gateway);
    fs::write(dir.path().join("deaf"), "").unwrap();
    let restarted = gateway.ctl(["restart"]);
    let text = said(&restarted);
    assert_eq!(restarted.status.code(), Some(1), "{text}");
    for part in ["--ready /PATH", "start_timeout", "has not answered HEAD /"] {
        assert!(text.contains(part), "no {part}: {text}");
    }
    assert_eq!(ask(&gateway), old);
}

/// Who wants it as it was: a listener is enough.
#[test]
fn with_ready_tcp_a_listener_is_enough() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("deaf"), "").unwrap();
    let command = ["python3", EARLY, "{port}", dir.path().to_str().unwrap()];
    let config = format!("[sidecar.main]\ncommand = {command:?}\nready = \"tcp\"\n");
    Setup::new().config(config).start();
}

#[test]
fn a_long_start_is_told_of_with_its_last_line() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("deaf"), "").unwrap();
    let gateway = early(dir.path()).spawn();
    gateway.wait_line("sidecar main is still starting after 10 s; it printed last: loading");
    fs::remove_file(dir.path().join("deaf")).unwrap();
    gateway.wait_line(READY);
}

/// redis, gRPC, TLS, a server that speaks first: ready, with a word on what it is.
#[test]
fn what_does_not_speak_http_is_ready_and_named() {
    if !servers::have("python3") {
        return;
    }
    let says = |code: &str| {
        let script = format!(
            "import socket, sys\ns = socket.create_server(('127.0.0.1', int(sys.argv[1])))\nwhile True:\n  c, _ = s.accept()\n  {code}\n  c.close()"
        );
        let gateway = Setup::behind(["python3", "-c", &script, "{port}"]).start();
        gateway.wait_line("main does not speak HTTP/1, up ");
        let status = gateway.status();
        let cause = status["sidecars"][0]["cause"].as_str().unwrap().to_owned();
        gateway.wait_line(&format!("sidecar main {cause}"));
        cause
    };
    let redis = says("c.recv(9999); c.sendall(b'-ERR unknown command\\r\\n')");
    let text = "does not speak HTTP/1; it answered HEAD / with \"-ERR unknown command\"";
    assert!(redis.starts_with(text), "{redis}");
    let first = says("c.sendall(b'220 mail ESMTP\\r\\n'); c.recv(9999)");
    assert!(first.contains("\"220 mail ESMTP\""), "{first}");
    let grpc = says("c.recv(9999); c.sendall(bytes(3) + b'\\4' + bytes(5)); c.recv(9999)");
    assert!(grpc.contains("HTTP/2 only, as gRPC"), "{grpc}");
    let closes = says("c.recv(9999)");
    assert!(closes.contains("closes each connection"), "{closes}");
}

/// `uvicorn --workers 2` with a broken version: the same traceback, with another process id each time,
/// extended the start ten times.
#[test]
fn a_start_that_prints_the_same_again_and_again_is_not_extended() {
    let loop_of_failures = "n=1000; while :; do n=$((n+1)); echo \"Started server process [$n]\"; \
        echo Traceback; echo '  File \"main.py\"'; echo 'ImportError: nothing'; sleep 0.02; done";
    let mut gateway = Setup::behind(["sh", "-c", loop_of_failures])
        .flag("--start-timeout=1s")
        .spawn();
    let line = gateway.wait_line("was not ready after ");
    assert!(!line.contains("after 10"), "{line}");
    assert_ne!(gateway.exit_code(wait::DEADLINE), 0);
}

/// A gunicorn application; it is loaded by the workers, after the listener is there.
fn gunicorn(dir: &Path) -> Setup {
    let app = "import os\ndef app(environ, start):\n  start('200 OK', [])\n  return [str(os.getppid()).encode()]\n";
    fs::write(dir.join("app.py"), app).unwrap();
    let dir = dir.to_str().unwrap();
    Setup::behind([
        "gunicorn",
        "--workers",
        "2",
        "--bind",
        "127.0.0.1:{port}",
        "--chdir",
        dir,
        "app:app",
    ])
}

#[test]
fn gunicorn_that_loads_slowly_or_not_at_all_does_not_stop_the_one_before() {
    if !servers::have("gunicorn") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = gunicorn(dir.path()).flag("--start-timeout=20s").start();
    let old = ask(&gateway);
    let app = dir.path().join("app.py");
    let good = fs::read_to_string(&app).unwrap();

    let go = dir.path().join("go");
    let slow =
        format!("import os, time\nwhile not os.path.exists({go:?}): time.sleep(0.02)\n{good}");
    fs::write(&app, &slow).unwrap();
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_nth_line("Listening at", 1);
    for _ in 0..20 {
        assert_eq!(ask(&gateway), old);
    }
    fs::write(&go, "").unwrap();
    let restarted = restart.join().unwrap();
    assert!(restarted.status.success(), "{}", said(&restarted));
    let new = ask(&gateway);
    assert_ne!(new, old);

    fs::write(&app, "import nothing_like_that\n").unwrap();
    let restarted = gateway.ctl(["restart"]);
    let text = said(&restarted);
    assert_eq!(restarted.status.code(), Some(1), "{text}");
    assert!(text.contains("nothing_like_that"), "{text}");
    assert_eq!(ask(&gateway), new);
}
