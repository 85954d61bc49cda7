//! A sidecar that dies, a new version that does not come up: what clients and the operator see.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use std::net::TcpStream;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::{servers, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn kill_sidecar(gateway: &Gateway) -> u32 {
    let pid = gateway.sidecar_pid("main");
    assert_ne!(pid, 0);
    let port = gateway.status()["sidecars"][0]["port"].as_u64().unwrap();
    let port = u16::try_from(port).unwrap();
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGKILL).unwrap();
    // Until it is closed, its socket takes requests that die with it.
    wait::until("its socket is closed", || {
        TcpStream::connect(("127.0.0.1", port))
            .is_err()
            .then_some(())
    });
    pid
}

#[test]
fn requests_wait_while_a_crashed_sidecar_is_started_again() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node())
        .env("START_DELAY_MS", "300")
        .start();
    let load = Load {
        new_per_second: 100.0,
        kept: 20,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 50);
    let old = kill_sidecar(&gateway);
    let status = gateway.wait_status("another sidecar is ready", |status| {
        status["stage"] == "ready"
            && status["sidecars"][0]["pid"] != old
            && status["sidecars"][0]["state"] == "ready"
    });
    assert_eq!(status["sidecars"][0]["restarts"], 1, "{status:#}");
    assert_eq!(
        status["generation"], 1,
        "a crash is no restart of the gateway: {status:#}"
    );
    load.flows(Part::New, 50);
    let report = load.stop();
    eprintln!("a crash: {report}");
    // The load's requests take a few milliseconds each, so a few are at the server at any time.
    let report = report.died_with_the_server(10);
    report.assert_clean(&[(Part::New, 100), (Part::Busy, 20)]);
    assert!(
        report.longest_gap >= Duration::from_millis(300),
        "nobody had to wait, so nothing crashed: {report}"
    );
}

#[test]
fn a_request_that_comes_right_after_the_crash_is_served_by_the_next_sidecar() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    for _ in 0..2 {
        let old = kill_sidecar(&gateway);
        let answer = block_on(client::get(&gateway.target(), "/pid")).unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_ne!(answer.text().trim(), old.to_string());
    }
}

#[test]
fn a_post_that_a_crash_cut_is_answered_502_and_never_sent_again() {
    if !servers::have("node") {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let target = gateway.target();
    let post = std::thread::spawn(move || {
        block_on(client::request(
            &target,
            "POST /slow?ms=20000 HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        ))
    });
    gateway.wait_status("the post is under way", |status| status["requests"] == 1);
    kill_sidecar(&gateway);
    let answer = post.join().unwrap().unwrap();
    assert_eq!(answer.status(), 502, "{}", answer.text());
}

/// A server whose version is a file: `good`, or what it prints before it fails.
struct Versions {
    dir: tempfile::TempDir,
}

impl Versions {
    fn new() -> Self {
        let versions = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        versions.set("exec \"$@\"");
        versions
    }

    fn set(&self, script: &str) {
        fs::write(self.path(), script).unwrap();
    }

    fn path(&self) -> std::path::PathBuf {
        self.dir.path().join("version.sh")
    }

    fn setup(&self, start_timeout: &str) -> Setup {
        let mut command = vec!["sh".to_owned(), self.path().display().to_string()];
        command.extend(servers::node());
        Setup::new().config(format!(
            "[sidecar.main]\ncommand = {command:?}\nstart_timeout = \"{start_timeout}\"\n"
        ))
    }
}

/// What a real Node or Python server prints when it crashes as it starts, and of that the cause.
const CRASHES: [(&str, &str, &str); 4] = [
    (
        "node",
        "function a() { throw new Error('cannot read app.json') }\na()",
        "Error: cannot read app.json",
    ),
    (
        "node",
        "require('http').createServer(() => {}).listen(1, '203.0.113.7')",
        "Error: listen EADDRNOTAVAIL: address not available 203.0.113.7:1",
    ),
    (
        "python3",
        "def a(): raise ValueError('the database is empty')\na()",
        "ValueError: the database is empty",
    ),
    (
        "python3",
        "try: int('x')\nexcept ValueError as e: raise RuntimeError('bad setting') from e",
        "RuntimeError: bad setting",
    ),
];

#[test]
fn of_a_server_that_crashes_the_cause_is_quoted_and_not_its_stack() {
    for (program, script, cause) in CRASHES {
        if !servers::have(program) {
            continue;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("server");
        fs::write(&file, script).unwrap();
        let mut gateway = Setup::behind([program, file.to_str().unwrap()]).spawn();
        assert_eq!(gateway.exit_code(wait::DEADLINE), 1);
        let told = gateway.stderr();
        let quoted: Vec<&str> = told
            .lines()
            .filter_map(|line| line.strip_prefix("[gateway]   | "))
            .collect();
        assert_eq!(quoted, [cause], "{told}");
    }
}

/// What any start on a busy machine takes less than.
const LONG: &str = "30s";

/// Restarts into a version that fails; all the while the old one must serve.
fn fails(script: &str, last_words: &str, start_timeout: &str) {
    if !servers::have("node") {
        return;
    }
    let versions = Versions::new();
    let gateway = versions.setup(start_timeout).start();
    let load = Load {
        new_per_second: 100.0,
        kept: 10,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 20);
    let before = gateway.sidecar_pid("main");
    versions.set(script);
    let output = gateway.ctl(["restart"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(
        said(&output).contains(last_words),
        "the sidecar's last words are not there: {}",
        said(&output)
    );
    load.flows(Part::New, 20);
    assert_eq!(gateway.sidecar_pid("main"), before, "the old one serves on");
    let status = gateway.status();
    assert_eq!(status["stage"], "ready", "{status:#}");
    let outcome = status["lastRestart"]["outcome"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(outcome.starts_with("failed"), "{status:#}");
    // Its number is not given again, and who sees the next one knows why.
    assert!(
        said(&output).contains("error: generation 2 was given up: sidecar main ")
            && said(&output).contains("generation 1 serves on")
            && outcome.starts_with("failed: generation 2 was given up"),
        "{outcome}: {}",
        said(&output)
    );
    // The operator mends it and asks again.
    versions.set("exec \"$@\"");
    let output = gateway.restart();
    assert!(
        said(&output).contains("generation 1 -> 3"),
        "{}",
        said(&output)
    );
    assert_ne!(gateway.sidecar_pid("main"), before);
    load.stop().assert_clean(&[(Part::New, 40)]);
    let left = crate::support::gateway::descendants(gateway.pid());
    let nodes = left.iter().filter(|(pid, _)| is_node(*pid)).count();
    assert!(nodes <= 2, "failed versions were left behind: {left:?}");
}

fn is_node(pid: u32) -> bool {
    fs::read_link(format!("/proc/{pid}/exe"))
        .is_ok_and(|exe| exe.file_name() == Path::new("node").file_name())
}

#[test]
fn a_new_version_that_ends_at_once_leaves_the_old_one_serving() {
    fails(
        "echo 'cannot open the database: no such file' >&2\nexit 3",
        "cannot open the database: no such file",
        LONG,
    );
}

#[test]
fn a_new_version_that_never_listens_leaves_the_old_one_serving() {
    fails(
        "echo 'waiting for a lock that never comes' >&2\nexec sleep 1000",
        "waiting for a lock that never comes",
        "6s",
    );
}

#[test]
fn a_command_that_is_gone_leaves_the_old_one_serving() {
    fails("exec /nonexistent/server", "/nonexistent/server", LONG);
}

#[test]
fn a_sidecar_that_dies_again_and_again_gets_503_with_the_cause_and_comes_back_when_mended() {
    if !servers::have("node") {
        return;
    }
    let versions = Versions::new();
    let gateway = versions
        .setup(LONG)
        .config("[restart]\nhold = { time = \"500ms\" }\n")
        .start();
    versions.set("echo 'license expired' >&2\nexit 4");
    kill_sidecar(&gateway);
    let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(answer.status(), 503, "{}", answer.text());
    assert!(
        answer.head.get("retry-after").is_some(),
        "{:?}",
        answer.head
    );
    let status = gateway.wait_status("it waits before it tries again", |status| {
        status["sidecars"][0]["state"] == "backoff"
    });
    assert_eq!(status["stage"], "degraded", "{status:#}");
    let cause = status["sidecars"][0]["cause"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    assert!(
        cause.contains("license expired") || cause.contains('4'),
        "the cause is not named: {status:#}"
    );
    let ready = block_on(client::get(&gateway.target(), "/readyz")).unwrap();
    assert_eq!(ready.status(), 503, "{}", ready.text());
    assert_eq!(
        block_on(client::get(&gateway.target(), "/healthz"))
            .unwrap()
            .status(),
        200
    );
    versions.set("exec \"$@\"");
    // An operator's request is never swallowed by a backoff.
    let asked = Instant::now();
    gateway.restart();
    assert_eq!(
        block_on(client::get(&gateway.target(), "/"))
            .unwrap()
            .status(),
        200
    );
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "the restart waited for a backoff: {:?}",
        asked.elapsed()
    );
}

#[test]
fn a_server_that_is_stopped_in_its_tracks_is_not_called_ready() {
    if !servers::have("node") {
        return;
    }
    let command = servers::node();
    let config =
        format!("[sidecar.main]\ncommand = {command:?}\nlive = {{ stalled = \"500ms\" }}\n");
    let gateway = Setup::new().config(config).start();
    let get = |path: &str| block_on(client::get(&gateway.target(), path)).unwrap();
    assert_eq!(get("/").status(), 200);
    let server = gateway.sidecar_pid("main");
    crate::support::handover::signal(server, Signal::SIGSTOP);
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| get("/"));
        let status = gateway.wait_status("it is degraded", |status| status["stage"] == "degraded");
        let detail = status["detail"].as_str().unwrap();
        assert!(
            detail.contains("main answers nothing: GET / waits"),
            "{detail}"
        );
        let ready = get("/readyz").text();
        assert!(
            ready.contains(r#""degraded":["a server does not answer"]"#),
            "{ready}"
        );
        crate::support::handover::signal(server, Signal::SIGCONT);
        assert_eq!(asked.join().unwrap().status(), 200);
    });
    assert_eq!(get("/readyz").text().trim(), r#"{"ready":true}"#);
    gateway.wait_status("it is ready again", |status| status["stage"] == "ready");
}

#[test]
fn a_restart_that_joins_one_that_fails_says_so_and_is_tried_by_itself() {
    if !servers::have("node") {
        return;
    }
    let versions = Versions::new();
    let gateway = versions.setup(LONG).start();
    let begun = versions.dir.path().join("begun");
    let go = versions.dir.path().join("go");
    // It fails when it is told to.
    versions.set(&format!(
        "touch {begun:?}; until test -e {go:?}; do sleep 0.05; done; echo broken; exit 3"
    ));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| gateway.ctl(["restart"]));
        wait::until("the first began", || begun.exists().then_some(()));
        versions.set("exec \"$@\"");
        let second = scope.spawn(|| gateway.ctl(["restart", "--reason", "fixed"]));
        let line = gateway.wait_line("joins restart");
        assert!(line.contains(" ago; if that one fails"), "{line}");
        fs::write(&go, "").unwrap();
        let first = first.join().unwrap();
        assert!(!first.status.success() && said(&first).contains("broken"));
        let second = second.join().unwrap();
        let text = said(&second);
        assert!(second.status.success(), "{text}");
        assert!(text.contains("joins restart"), "{text}");
    });
    let text = said(&gateway.ctl(["history"]));
    let longest = text.lines().map(|line| line.chars().count()).max();
    assert!(text.contains("restart failed"), "{text}");
    assert!(longest < Some(400), "{text}");
}
