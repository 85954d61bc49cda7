//! Traces of starts and restarts: their form, their order, and that one goes on in the process that
//! performs the restart.

use crate::support::gateway::{Gateway, Setup};
use crate::support::handover::{followed, fresh, respawning};
use crate::support::{servers, wait};
use gateway::internals::{Intent, write_intent};
use nix::sys::signal::Signal;

const END: &str = "restart trace: restart.ready ";

/// Where a failing start has to end by itself.
const FAILED: i32 = 1;

fn traced(setup: Setup) -> Setup {
    setup
        .env("GATEWAY_RESTART_TRACE", "1")
        .env("GATEWAY_STARTUP_TRACE", "yes")
}

/// The steps under `word`, after their form and their order in time were looked at.
fn steps(text: &str, word: &str) -> Vec<String> {
    let begin = format!("{word} trace: ");
    let mut last = 0.0;
    let mut names = Vec::new();
    for line in text
        .lines()
        .filter_map(|line| line.split_once(&begin).map(|(_, rest)| rest))
    {
        let words: Vec<&str> = line.split(' ').collect();
        let took: f64 = words[1].strip_suffix("ms").unwrap().parse().unwrap();
        let total: f64 = words[2]
            .strip_prefix("total=")
            .unwrap()
            .strip_suffix("ms")
            .unwrap()
            .parse()
            .unwrap();
        assert!(took >= 0.0 && total >= last, "{line}\n{text}");
        assert!(words[3..].iter().all(|pair| pair.contains('=')), "{line}");
        last = total;
        names.push(words[0].to_owned());
    }
    names
}

/// Waits for the end of one restart; the words of its last line come back.
fn end(gateway: &Gateway) -> String {
    let line = gateway.wait_line(END);
    assert!(
        line.contains(" rssMb=") && line.contains(" fdCount="),
        "{line}"
    );
    line
}

fn ended_once(text: &str) {
    assert_eq!(text.matches(END).count(), 1, "{text}");
}

#[test]
fn a_start_is_traced_to_the_moment_when_it_is_ready() {
    if !servers::have("node") {
        return;
    }
    let gateway = traced(Setup::behind(servers::node())).start();
    gateway.wait_line("startup trace: startup.ready ");
    let names = steps(&gateway.stderr(), "startup");
    assert_eq!(
        names,
        [
            "config",
            "lock",
            "listeners",
            "workers",
            "control",
            "sidecars",
            "startup.ready"
        ]
    );
    assert!(steps(&gateway.stderr(), "restart").is_empty());
}

#[test]
fn a_restart_in_the_process_is_traced() {
    let Some(setup) = followed() else { return };
    let gateway = traced(setup)
        .config("[restart]\nmode = \"in-process\"")
        .start();
    let output = gateway.ctl(["restart", "--reason", "a new key"]);
    assert!(output.status.success(), "{}", gateway.stderr());
    end(&gateway);
    let text = gateway.stderr();
    ended_once(&text);
    let names = [
        "restart.signal.received",
        "restart.next-start",
        "restart.ready.sidecars",
        "restart.ready",
    ];
    assert_eq!(steps(&text, "restart"), names, "{text}");
    assert!(
        text.contains(" signal=control reason=a_new_key force=false waitMs=null"),
        "{text}"
    );
}

#[test]
fn a_restart_without_overlap_is_traced_with_its_drain() {
    if !servers::have("node") {
        return;
    }
    let command = servers::node();
    let config = format!(
        "[restart]\nmode = \"in-process\"\n[sidecar.main]\ncommand = {command:?}\noverlap = false\n"
    );
    let gateway = traced(Setup::new()).config(config).start();
    gateway.signal(Signal::SIGUSR1);
    end(&gateway);
    let text = gateway.stderr();
    let names = [
        "restart.signal.received",
        "restart.drain",
        "restart.close.sidecar",
        "restart.next-start",
        "restart.ready.sidecars",
        "restart.ready",
    ];
    assert_eq!(steps(&text, "restart"), names, "{text}");
    assert!(text.contains(" signal=SIGUSR1 "), "{text}");
}

#[test]
fn a_restart_goes_on_in_the_fresh_process() {
    let Some(setup) = respawning() else { return };
    let mut gateway = traced(setup).start();
    let (before, after) = (gateway.pid(), fresh(&gateway));
    end(&gateway);
    let text = gateway.stderr();
    ended_once(&text);
    let phases = [
        "config",
        "lock",
        "listeners",
        "workers",
        "sidecars",
        "control",
    ]
    .map(|phase| format!("restart.ready.{phase}"));
    let mut names = vec![
        "restart.signal.received",
        "restart.full-process-handoff",
        "restart.process-resume",
    ];
    names.extend(phases.iter().map(String::as_str));
    names.push("restart.ready");
    assert_eq!(steps(&text, "restart"), names, "{text}");
    assert!(
        text.contains(&format!(
            " kind=spawned mode=respawn pid={before}.0 supervisorMode="
        )),
        "{text}"
    );
    let resumed = gateway.wait_line("restart.process-resume");
    assert!(resumed.ends_with(&format!(" pid={after}.0")), "{resumed}");
    gateway.terminate();
}

#[test]
fn a_restart_goes_on_in_the_life_that_the_service_manager_starts() {
    if !servers::have("node") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let setup = traced(Setup::behind(servers::node()))
        .env("GATEWAY_SUPERVISOR", "s6")
        .state_dir(state.path());
    let mut first = setup.start();
    let created_at_ms = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
    let intent = Intent {
        pid: first.pid(),
        created_at_ms,
        reason: "by the manager".to_owned(),
        force: false,
        wait_ms: None,
    };
    write_intent(state.path(), &intent).unwrap();
    first.signal(Signal::SIGTERM);
    assert_eq!(first.exit_code(wait::DEADLINE), 0, "{}", first.stderr());
    let second = setup.start();
    end(&second);
    let text = first.stderr() + "\n" + &second.stderr();
    ended_once(&text);
    let names = steps(&text, "restart");
    let begin = [
        "restart.signal.received",
        "restart.drain",
        "restart.close.clients",
        "restart.close.sidecars",
        "restart.full-process-handoff",
        "restart.process-resume",
    ];
    assert_eq!(names[..begin.len()], begin, "{text}");
    assert!(text.contains(" kind=supervised mode=exit "), "{text}");
}

#[test]
fn a_restart_that_fails_does_not_end_as_ready_and_neither_does_a_stop() {
    let Some(setup) = followed() else { return };
    let gateway = traced(setup)
        .config("[restart]\nmode = \"in-process\"")
        .start();
    std::fs::write(gateway.config_file(), "[restart]\nmoed = 1\n").unwrap();
    gateway.signal(Signal::SIGUSR1);
    gateway.wait_line("restart.signal.received");
    gateway.wait_line(" failed: ");
    assert!(!gateway.stderr().contains(END), "{}", gateway.stderr());
    gateway.stop();
}

#[test]
fn nothing_is_traced_unless_asked_for() {
    let Some(setup) = respawning() else { return };
    let mut gateway = setup.start();
    fresh(&gateway);
    gateway.terminate();
    assert!(
        !gateway.stderr().contains(" trace: "),
        "{}",
        gateway.stderr()
    );
}

#[test]
fn who_starts_it_by_hand_and_fails_is_not_slowed_down() {
    let state = tempfile::tempdir().unwrap();
    let setup = Setup::behind(["false"])
        .env("GATEWAY_SUPERVISOR", "terminal")
        .state_dir(state.path());
    for _ in 0..5 {
        let mut gateway = setup.spawn();
        assert_eq!(
            gateway.exit_code(wait::DEADLINE),
            FAILED,
            "{}",
            gateway.stderr()
        );
        assert!(
            !gateway.stderr().contains("quick succession"),
            "{}",
            gateway.stderr()
        );
    }
}
