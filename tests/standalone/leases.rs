//! Work that is not a request holds a drain: by name, within its time, and never after its owner is
//! gone.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, Setup, ctl_in, said};
use crate::support::handover::announce;
use crate::support::{servers, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// A server that needs nothing and starts at once.
fn gateway() -> Option<Gateway> {
    if !servers::have("python3") {
        return None;
    }
    Some(Setup::behind(servers::python(Path::new(env!("CARGO_MANIFEST_DIR")))).start())
}

/// A command that runs until its standard input, or rather a fifo that only we write to, is closed.
struct Work {
    fifo: PathBuf,
    /// Open for writing as long as the work is to go on.
    hold: Option<fs::File>,
}

impl Work {
    fn new(gateway: &Gateway, name: &str) -> Self {
        let fifo = gateway.dir().join(name);
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        Self { fifo, hold: None }
    }

    /// `gatewayctl inhibit … -- sh -c 'read from the fifo'`, returned when the lease is held.
    fn start(
        &mut self,
        gateway: &Gateway,
        flags: &[&str],
    ) -> std::thread::JoinHandle<std::process::Output> {
        let script = format!("read line < {}; exit 7", self.fifo.display());
        let args: Vec<&str> = [&["inhibit"], flags, &["--", "sh", "-c", &script]].concat();
        let before = leases(gateway).len();
        let running = gateway.ctl_aside(args);
        // Opening waits for the reader: the command runs, so the lease is held.
        self.hold = Some(fs::OpenOptions::new().write(true).open(&self.fifo).unwrap());
        assert_eq!(leases(gateway).len(), before + 1);
        running
    }

    fn end(&mut self) {
        self.hold = None;
    }
}

fn leases(gateway: &Gateway) -> Vec<Value> {
    gateway.status()["leases"].as_array().unwrap().clone()
}

fn drainer(status: &Value) -> &Value {
    &status["drainers"][0]
}

/// A lease taken over the socket itself.
fn lease(gateway: &Gateway, params: Value) -> BufReader<UnixStream> {
    let mut stream = UnixStream::connect(gateway.state_dir().join("run/control.sock")).unwrap();
    writeln!(
        stream,
        "{}",
        json!({"type": "req", "id": "1", "method": "inhibit", "params": params})
    )
    .unwrap();
    let mut reader = BufReader::new(stream);
    let answer = frame(&mut reader);
    assert_eq!(
        (&answer["type"], &answer["ok"]),
        (&json!("res"), &json!(true)),
        "{answer}"
    );
    reader
}

fn frame(reader: &mut BufReader<UnixStream>) -> Value {
    reader
        .get_ref()
        .set_read_timeout(Some(wait::DEADLINE))
        .unwrap();
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

/// The new copy serves, and the old one finishes its work.
fn drains(status: &Value) -> bool {
    let drainers = status["drainers"].as_array();
    status["stage"] == "ready" && drainers.is_some_and(|all| !all.is_empty())
}

#[test]
fn a_restart_drains_until_the_work_is_done_and_names_it() {
    let Some(gateway) = gateway() else { return };
    let mut work = Work::new(&gateway, "work");
    let running = work.start(&gateway, &["--why", "nightly backup"]);
    let old = gateway.sidecar_pid("main");
    let restarting = gateway.ctl_aside(["restart", "--drained"]);
    let status = gateway.wait_status("generation 1 drains", drains);
    assert_eq!(drainer(&status)["leases"], 1, "{status:#}");
    let blocker = drainer(&status)["blockers"][0].as_str().unwrap().to_owned();
    assert!(
        blocker.starts_with("lease of pid ") && blocker.ends_with(": nightly backup"),
        "{blocker}"
    );
    let shown = gateway.ctl(["status"]);
    assert_eq!(shown.status.code(), Some(0), "it serves: {}", said(&shown));
    let text = said(&shown);
    assert!(
        text.contains("0 tunnels, 1 lease") && text.contains("nightly backup"),
        "{text}"
    );
    assert!(
        fs::exists(format!("/proc/{old}")).unwrap(),
        "the old copy is there for the work"
    );
    // A lease of after the beginning holds nothing.
    let _later = lease(&gateway, json!({"why": "later"}));
    assert!(!restarting.is_finished());
    work.end();
    let restarted = restarting.join().unwrap();
    assert!(
        restarted.status.success() && said(&restarted).contains("nightly backup"),
        "{}",
        said(&restarted)
    );
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    assert!(
        said(&output).contains("a restart of")
            && said(&output).contains("waits for this command, for 5 min"),
        "{}",
        said(&output)
    );
    wait::until("the old copy ends", || {
        (!fs::exists(format!("/proc/{old}")).unwrap()).then_some(())
    });
}

#[test]
fn without_overlap_the_old_copy_serves_on_until_the_work_is_done() {
    if !servers::have("python3") {
        return;
    }
    let gateway = Setup::behind(servers::python(Path::new(env!("CARGO_MANIFEST_DIR"))))
        .flag("--exclusive")
        .start();
    let old = gateway.sidecar_pid("main");
    let mut held = lease(&gateway, json!({"why": "migration"}));
    let restarting = gateway.ctl_aside(["restart"]);
    let event = frame(&mut held);
    assert_eq!(
        (&event["event"], &event["payload"]["cause"]),
        (&json!("drain"), &json!("restart")),
        "{event}"
    );
    assert_eq!(gateway.sidecar_pid("main"), old);
    assert!(!restarting.is_finished());
    drop(held);
    let output = restarting.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_ne!(gateway.sidecar_pid("main"), old);
}

#[test]
fn a_dead_owner_holds_nothing() {
    let Some(gateway) = gateway() else { return };
    let mut work = Work::new(&gateway, "work");
    let running = work.start(&gateway, &["--why", "will be killed"]);
    let owner = leases(&gateway)[0]["pid"].as_u64().unwrap();
    let restarting = gateway.ctl_aside(["restart", "--drained"]);
    gateway.wait_status("generation 1 drains", drains);
    kill(
        Pid::from_raw(i32::try_from(owner).unwrap()),
        Signal::SIGKILL,
    )
    .unwrap();
    let restarted = restarting.join().unwrap();
    assert!(restarted.status.success(), "{}", said(&restarted));
    assert!(leases(&gateway).is_empty());
    // Only now may the command itself end: it outlived its gatewayctl and held nothing.
    work.end();
    drop(running.join());
}

#[test]
fn its_time_over_a_lease_holds_nothing_and_is_told_so() {
    let Some(gateway) = gateway() else { return };
    let mut work = Work::new(&gateway, "work");
    let running = work.start(&gateway, &["--why", "short", "--ttl", "1s"]);
    let begun = Instant::now();
    let restarted = gateway.ctl(["restart", "--drained"]);
    assert!(
        restarted.status.success() && begun.elapsed() < Duration::from_secs(20),
        "{}",
        said(&restarted)
    );
    assert!(
        gateway.stderr().contains("aged out"),
        "{}",
        gateway.stderr()
    );
    work.end();
    let output = running.join().unwrap();
    assert!(said(&output).contains("--ttl is over"), "{}", said(&output));
}

#[test]
fn force_and_the_end_of_the_budget_do_not_wait() {
    let Some(gateway) = gateway() else { return };
    let mut held = lease(&gateway, json!({"why": "for ever"}));
    let forced = gateway.ctl(["restart", "--force", "--drained"]);
    assert!(forced.status.success(), "{}", said(&forced));
    let events = [frame(&mut held), frame(&mut held)]
        .map(|event| (event["event"].clone(), event["payload"]["leftMs"].clone()));
    assert_eq!(
        events,
        [(json!("drain"), json!(0)), (json!("deadline"), Value::Null)]
    );
    let limited = gateway.ctl(["restart", "--wait", "300ms", "--drained"]);
    assert!(limited.status.success(), "{}", said(&limited));
    assert!(
        gateway
            .stderr()
            .contains("drain time is over; cutting lease of pid"),
        "{}",
        gateway.stderr()
    );
}

#[test]
fn a_stop_waits_for_it_within_its_budget() {
    let Some(mut gateway) = gateway() else { return };
    let mut held = lease(&gateway, json!({"why": "last words"}));
    gateway.signal(Signal::SIGTERM);
    let event = frame(&mut held);
    assert_eq!(
        (&event["payload"]["cause"], &event["payload"]["leftMs"]),
        (&json!("stop"), &json!(3000)),
        "{event}"
    );
    assert!(gateway.exited().is_none());
    // Nobody is let in any more.
    let late = gateway.ctl(["inhibit", "--why", "late", "--", "true"]);
    assert_eq!(late.status.code(), Some(1), "{}", said(&late));
    assert_eq!(frame(&mut held)["event"], "deadline");
    // Its work was not finished.
    assert_eq!(gateway.exit_code(Duration::from_secs(12)), 1);
}

/// A gateway whose supervisor asks for its end to restart it, with a lease and this drain.
fn leaving(drain: &str) -> Option<(Gateway, BufReader<UnixStream>)> {
    if !servers::have("python3") {
        return None;
    }
    let gateway = Setup::behind(servers::python(Path::new(env!("CARGO_MANIFEST_DIR"))))
        .env("GATEWAY_SUPERVISOR", "s6")
        .env("GATEWAY_RESTART_DRAIN", drain)
        .start();
    let mut held = lease(&gateway, json!({"why": "backup"}));
    announce(&gateway, "new certificate");
    gateway.signal(Signal::SIGTERM);
    let event = frame(&mut held);
    assert_eq!(event["payload"]["cause"], "restart", "{event}");
    Some((gateway, held))
}

#[test]
fn a_restart_by_the_supervisor_waits_for_it() {
    let Some((mut gateway, held)) = leaving("60s") else {
        return;
    };
    // Long enough for everything else that it waits for.
    wait::pause(Duration::from_secs(1));
    assert!(gateway.exited().is_none(), "{}", gateway.stderr());
    drop(held);
    assert_eq!(gateway.exit_code(wait::DEADLINE), 0, "{}", gateway.stderr());
}

#[test]
fn a_restart_by_the_supervisor_says_what_work_it_cut() {
    let Some((mut gateway, mut held)) = leaving("1s") else {
        return;
    };
    assert_eq!(frame(&mut held)["event"], "deadline");
    assert_eq!(gateway.exit_code(wait::DEADLINE), 1, "{}", gateway.stderr());
    let history = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    let end: Value = serde_json::from_str(history.lines().last().unwrap()).unwrap();
    let cut = end["cut"][0].as_str().unwrap_or_default();
    assert!(cut.ends_with("backup"), "{end}");
}

#[test]
fn the_command_is_run_only_with_a_lease_and_signals_reach_it() {
    let Some(gateway) = gateway() else { return };
    let marker = gateway.dir().join("ready");
    let script = format!(
        "trap 'exit 9' TERM; echo > {}; while :; do sleep 0.05; done",
        marker.display()
    );
    let running = gateway.ctl_aside(["inhibit", "--why", "trap", "--", "sh", "-c", &script]);
    wait::until("the command runs", || marker.exists().then_some(()));
    let owner = leases(&gateway)[0]["pid"].as_u64().unwrap();
    kill(
        Pid::from_raw(i32::try_from(owner).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    let output = running.join().unwrap();
    assert_eq!(output.status.code(), Some(9), "{}", said(&output));
    let missing = gateway.ctl(["inhibit", "--why", "x", "--", "/nonexistent/command"]);
    assert_eq!(missing.status.code(), Some(127), "{}", said(&missing));
    assert!(leases(&gateway).is_empty());
    let untouched = gateway.dir().join("untouched");
    let gone = tempfile::tempdir().unwrap();
    let nobody = ctl_in(gone.path())
        .args(["inhibit", "--why", "x", "--", "touch"])
        .arg(&untouched)
        .output()
        .unwrap();
    assert_eq!(nobody.status.code(), Some(3), "{}", said(&nobody));
    assert!(!untouched.exists());
}

#[test]
fn the_examples_of_the_manual_work_as_they_are_typed() {
    let Some(gateway) = gateway() else { return };
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/man/gatewayctl-inhibit.8");
    let page = fs::read_to_string(page).unwrap().replace("\\-", "-");
    let examples: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("gatewayctl inhibit "))
        .collect();
    assert_eq!(examples.len(), 2);
    let ctl = format!(
        "gatewayctl() {{ {} --state-dir '{}' \"$@\"; }}",
        env!("CARGO_BIN_EXE_gatewayctl"),
        gateway.state_dir().display()
    );
    for example in examples {
        let output = std::process::Command::new("sh")
            .args(["-c", &format!("{ctl}\n{example}")])
            .current_dir(gateway.dir())
            .output()
            .unwrap();
        assert!(output.status.success(), "{example}: {}", said(&output));
    }
    assert!(gateway.dir().join("backup.tar.gz").exists());
}
