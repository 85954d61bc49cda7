//! A server is ready when it answers, not when it listens.

use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, READY, Setup, pids, said};
use crate::support::handover::{Failpoint, fresh};
use crate::support::load::Load;
use crate::support::report::Part;
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
/// one, and one probe is all that it finds in its queue then.
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
    gateway.wait_line("has not answered HEAD /: it may take long to load");
    assert_eq!(ask(&gateway), old);
    fs::remove_file(dir.path().join("deaf")).unwrap();
    let restarted = restart.join().unwrap();
    assert!(restarted.status.success(), "{}", said(&restarted));
    let new = ask(&gateway);
    assert_ne!(new, old);
    let asked = fs::read_to_string(dir.path().join(&new)).unwrap();
    let probes = asked.lines().filter(|line| line.contains("gateway-probe"));
    // The second one comes through the front door, when it serves.
    assert_eq!(
        probes.collect::<Vec<_>>(),
        ["HEAD / HTTP/1.1 User-Agent: gateway-probe"; 2],
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
    let gateway = early(dir.path()).flag("--start-timeout=8s").start();
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

/// Debian's `uvicorn --workers 2` with a broken import: both workers print it and end, and the process
/// before them waits for ever.
#[test]
fn a_server_that_takes_no_notice_of_its_failed_workers_is_said_to() {
    if !servers::have("python3") {
        return;
    }
    let script = "import os, signal, sys\n\
        for _ in range(2):\n\
        \x20 if os.fork() == 0:\n\
        \x20   print('ModuleNotFoundError: nothing_there', file=sys.stderr, flush=True)\n\
        \x20   os._exit(1)\n\
        while True: signal.pause()\n";
    let mut gateway = Setup::behind(["python3", "-c", script, "{port}"])
        .flag("--start-timeout=10s")
        .spawn();
    assert_eq!(gateway.exit_code(wait::DEADLINE), 1);
    let said = gateway.stderr();
    for words in [
        "stands still: a process that it started failed (exit code 1)",
        "ModuleNotFoundError",
        "--start-timeout",
    ] {
        assert!(said.contains(words), "no {words}: {said}");
    }
}

/// `--ready /health` of a server that answers 404 was asked 40 times a second, and its client was gone
/// before the answer was: the tracebacks of that became its last words.
#[test]
fn a_path_with_the_wrong_answer_is_asked_calmly_and_the_answer_is_read_to_its_end() {
    if !servers::have("python3") {
        return;
    }
    let script = "import socket, sys, time\n\
        s = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n\
        asked = []\n\
        while True:\n\
        \x20 c, _ = s.accept()\n\
        \x20 if not c.recv(9999): continue\n\
        \x20 asked.append(time.monotonic())\n\
        \x20 if len(asked) > 1: print('pause', int(1000 * (asked[-1] - asked[-2])), flush=True)\n\
        \x20 status = '404 Not Found' if len(asked) < 5 else '200 OK'\n\
        \x20 try:\n\
        \x20   c.sendall(f'HTTP/1.1 {status}\\r\\nContent-Length: 20000\\r\\n\\r\\n'.encode())\n\
        \x20   for _ in range(20):\n\
        \x20     time.sleep(0.002)\n\
        \x20     c.sendall(b'x' * 1000)\n\
        \x20 except OSError as error: print('hung up:', error, flush=True)\n\
        \x20 c.close()\n";
    let setup = Setup::behind(["python3", "-c", script, "{port}"]);
    let gateway = setup.flag("--ready").flag("/health").start();
    gateway.wait_nth_line("pause ", 3);
    let said = gateway.stderr();
    assert!(!said.contains("hung up"), "{said}");
    let pauses: Vec<u64> = said
        .lines()
        .filter_map(|line| line.split_once("pause ")?.1.parse().ok())
        .collect();
    assert_eq!(pauses.len(), 4, "{said}");
    assert!(pauses.iter().all(|pause| *pause >= 200), "{said}");
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
    let text = "does not speak HTTP/1; it answered with \"-ERR unknown command\"";
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

/// puma, whose workers failed: what it printed when the gateway ended it hid the cause.
#[test]
fn what_a_server_says_when_it_is_given_up_does_not_hide_the_cause() {
    let server = "trap 'for n in 1 2 3 4 5 6; do echo bye; done; exit 0' TERM; \
        echo 'the table is missing'; while :; do sleep 0.05; done";
    let mut gateway = Setup::behind(["sh", "-c", server])
        .flag("--start-timeout=1s")
        .spawn();
    assert_ne!(gateway.exit_code(wait::DEADLINE), 0);
    let said = gateway.stderr();
    let (_, told) = said.rsplit_once("was not ready after ").unwrap();
    assert!(told.contains("the table is missing"), "{said}");
    assert!(!told.contains("bye"), "{said}");
    assert!(said.contains("[main] bye"), "{said}");
}

/// A gunicorn application; it is loaded by the workers, after the listener is there.
/// It has one worker: a second one may load the next version, and ends the copy with it.
fn gunicorn(dir: &Path) -> Setup {
    let app = "import os\ndef app(environ, start):\n  start('200 OK', [])\n  return [str(os.getppid()).encode()]\n";
    fs::write(dir.join("app.py"), app).unwrap();
    let dir = dir.to_str().unwrap();
    Setup::behind([
        "gunicorn",
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

/// As [`early`], with an old copy that is kept for longer than the test takes.
fn watched(dir: &Path) -> Gateway {
    kept(early(dir)).start()
}

fn kept(setup: Setup) -> Setup {
    setup.env("GATEWAY_RESTART_WATCH", "200s")
}

/// Where each restart brings a fresh process.
fn watched_in_fresh_processes(dir: &Path) -> Gateway {
    let setup = early(dir).env("GATEWAY_SUPERVISOR", "none");
    kept(setup).start()
}

/// The server's copy with this process id ends as one that finds another.
fn refuse(dir: &Path, pid: &str) {
    fs::write(dir.join("refuse"), pid).unwrap();
}

fn end(pid: &str, signal: Signal) {
    kill(Pid::from_raw(pid.parse().unwrap()), signal).unwrap();
}

/// It takes a lock or a port a second later, and exits: the old copy, idle and healthy, was ended at
/// once, and every request failed.
#[test]
fn a_new_copy_that_dies_gives_the_service_back_and_its_restart_has_failed() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = watched(dir.path());
    let old = ask(&gateway);
    let text = said(&gateway.restart());
    let watched = "watched for 200s: if the new one dies within that, generation 1 serves again";
    assert!(text.contains(watched), "{text}");
    let new = ask(&gateway);
    assert_ne!(new, old);
    let status = gateway.status();
    assert_eq!(status["stage"], "ready", "{status:#}");
    let kept = status["drainers"][0]["blockers"][0].as_str().unwrap();
    assert!(
        kept.contains("to serve again if the new copy fails"),
        "{kept}"
    );

    refuse(dir.path(), &new);
    gateway.wait_line("[main] another process owns the lock");
    let corrected = gateway.wait_line("failed: sidecar main (pid ");
    for part in [
        &format!("(pid {new}) exited with code 9 "),
        "while the copy before it still ran",
        "use --exclusive",
        "another process owns the lock",
        "generation 1 serves on",
    ] {
        assert!(corrected.contains(part), "no {part}: {corrected}");
    }
    assert_eq!(ask(&gateway), old);
    let status = gateway.wait_status("the restart has failed", |status| {
        let outcome = status["lastRestart"]["outcome"].as_str();
        outcome.is_some_and(|outcome| outcome.starts_with("failed: "))
    });
    assert_eq!(status["generation"], 1, "{status:#}");
    assert_eq!(status["drainers"], serde_json::json!([]), "{status:#}");
    let why = said(&gateway.ctl(["why"]));
    assert!(why.contains("exited with code 9"), "{why}");
    let history = said(&gateway.ctl(["history"]));
    assert!(history.contains("exited with code 9"), "{history}");
    let restarts = history.matches("  restart ").count();
    assert_eq!(
        restarts, 1,
        "its end is corrected, not told twice: {history}"
    );

    // It is a generation like any other.
    fs::remove_file(dir.path().join("refuse")).unwrap();
    gateway.restart();
    assert_ne!(ask(&gateway), old);
    assert_eq!(gateway.status()["generation"], 3);
}

/// The same where a fresh process started the new copy, as under systemd: the process before it, whose
/// copy is healthy, gets the service back, and nobody is refused.
#[test]
fn a_new_copy_that_dies_in_a_fresh_process_gives_the_service_back_to_the_process_before() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = watched_in_fresh_processes(dir.path());
    let (old, first) = (ask(&gateway), gateway.main_pid());
    let load = Load {
        new_per_second: 40.0,
        kept: 4,
        ..Load::on(gateway.target())
    };
    let load = load.start();
    for round in 0..2 {
        let fresh = fresh(&gateway);
        let new = ask(&gateway);
        assert_ne!(new, old);
        load.flows(Part::New, 10);
        refuse(dir.path(), &new);
        let corrected = gateway.wait_nth_line("failed: sidecar main (pid ", round);
        for part in [
            &format!("(pid {new}) exited with code 9 "),
            "use --exclusive",
            "another process owns the lock",
            "generation 1 serves on",
        ] {
            assert!(corrected.contains(part), "no {part}: {corrected}");
        }
        load.flows(Part::New, 10);
        assert_eq!(ask(&gateway), old);
        assert_eq!(gateway.main_pid(), first);
        let status = gateway.wait_status("the fresh process is gone", |status| {
            status["drainers"].as_array().is_some_and(Vec::is_empty)
        });
        assert_eq!(status["generation"], 1, "{status:#}");
        let outcome = status["lastRestart"]["outcome"].as_str().unwrap();
        assert!(outcome.starts_with("failed: "), "{outcome}");
        let why = said(&gateway.ctl(["why"]));
        assert!(why.contains("exited with code 9"), "{why}");
        wait::until("the fresh process ends", || {
            (!pids().any(|pid| pid == fresh)).then_some(())
        });
    }
    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report}\n{}", gateway.stderr());

    // It goes on as any other: the next one is healthy, and is left alone.
    fs::remove_file(dir.path().join("refuse")).unwrap();
    fresh(&gateway);
    assert_ne!(ask(&gateway), old);
}

/// It is killed on the way: whoever of both is left serves, and can be restarted.
#[test]
fn a_fresh_process_that_dies_while_it_gives_the_service_back_leaves_somebody_who_serves() {
    if !servers::have("python3") {
        return;
    }
    for point in ["old.before-mainpid", "old.after-go", "old.yielded"] {
        let (dir, failpoint) = (tempfile::tempdir().unwrap(), Failpoint::new());
        let setup = early(dir.path()).env("GATEWAY_SUPERVISOR", "none");
        let gateway = kept(failpoint.on(setup)).start();
        let (old, first) = (ask(&gateway), gateway.main_pid());
        let fresh_one = fresh(&gateway);
        failpoint.arm(point, "kill");
        refuse(dir.path(), &ask(&gateway));
        wait::until(&format!("it is killed at {point}"), || {
            (!pids().any(|pid| pid == fresh_one)).then_some(())
        });
        wait::until("the process before is the owner on record", || {
            (gateway.main_pid() == first).then_some(())
        });
        gateway.wait_status("it is ready", |status| status["stage"] == "ready");
        eprintln!("{point}: the old copy serves: {}", ask(&gateway) == old);
        fs::remove_file(dir.path().join("refuse")).unwrap();
        fresh(&gateway);
        ask(&gateway);
    }
}

/// Whoever waits for the end of the old copy is told that there is none.
#[test]
fn who_waits_for_the_old_copy_to_be_gone_is_told_that_the_new_one_died() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = watched(dir.path());
    let old = ask(&gateway);
    let restart = gateway.ctl_aside(["restart", "--drained"]);
    gateway.wait_nth_line(READY, 1);
    let new = ask(&gateway);
    end(&new, Signal::SIGKILL);
    let restarted = restart.join().unwrap();
    let text = said(&restarted);
    assert_eq!(restarted.status.code(), Some(1), "{text}");
    assert!(text.contains("was ended by SIGKILL"), "{text}");
    assert!(!text.contains("--exclusive"), "nobody refused: {text}");
    assert_eq!(ask(&gateway), old);
}

/// A restart of the one that died begins anew, and an older copy than the one before is let go.
#[test]
fn two_copies_are_kept_not_one_for_each_restart() {
    if !servers::have("python3") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let gateway = watched(dir.path());
    for _ in 0..3 {
        gateway.restart();
    }
    gateway.wait_line("generation 2 is gone after ");
    let status = gateway.wait_status("one is kept", |status| {
        status["drainers"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
    });
    assert_eq!(status["drainers"][0]["generation"], 3, "{status:#}");
}

/// The same where the new copy is started by a fresh process.
#[test]
fn a_fresh_process_names_exclusive_when_its_copy_is_refused() {
    if !servers::have("node") || !servers::have("flock") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let setup = Setup::behind(servers::node_with_lock(&lock));
    let mut gateway = setup.env("GATEWAY_SUPERVISOR", "none").start();
    let restarted = gateway.ctl(["restart", "--fresh"]);
    let text = said(&restarted);
    assert_eq!(restarted.status.code(), Some(1), "{text}");
    assert!(text.contains("the copy before it still ran"), "{text}");
    assert!(text.contains("use --exclusive"), "{text}");
    let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(answer.status(), 200);
    gateway.terminate();
}

/// A server that holds a lock for life: each restart fails, and after the second `status` says why.
#[test]
fn a_server_whose_second_copy_was_refused_twice_is_named() {
    if !servers::have("node") || !servers::have("flock") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let lock = dir.path().join("lock");
    let gateway = Setup::behind(servers::node_with_lock(&lock)).start();
    for _ in 0..2 {
        let restarted = gateway.ctl(["restart"]);
        let text = said(&restarted);
        assert_eq!(restarted.status.code(), Some(1), "{text}");
        assert!(text.contains("the copy before it still ran"), "{text}");
        assert!(text.contains("use --exclusive"), "{text}");
    }
    let detail = gateway.status()["detail"].to_string();
    assert!(
        detail.contains("because a second copy of main ended while the first one ran"),
        "{detail}"
    );
    let doctor = said(&gateway.ctl(["doctor"]));
    assert!(doctor.contains("second-copy-refused"), "{doctor}");
}
