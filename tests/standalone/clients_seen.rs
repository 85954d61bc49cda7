//! The verdict of a restart is what clients saw: it agrees to the request with what they counted.

use std::path::PathBuf;
use std::process::Output;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::servers;

/// How many requests the clients make during a restart.
const REQUESTS: u64 = 20;

/// A gateway before a server that starts only while a file is there.
struct Gated {
    gateway: Gateway,
    gate: PathBuf,
    _dir: tempfile::TempDir,
}

impl Gated {
    fn start(setup: Setup) -> Option<Self> {
        if !servers::have("node") {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let gate = dir.path().join("open");
        std::fs::write(&gate, "").unwrap();
        let command = servers::once_there(&gate, servers::node());
        Some(Self {
            gateway: setup.command(command).start(),
            gate,
            _dir: dir,
        })
    }

    /// Asks for a restart, and comes back when the next server waits at the gate.
    fn begin_restart(&self, flags: &[&str]) -> JoinHandle<Output> {
        std::fs::remove_file(&self.gate).unwrap();
        let args = [&["restart", "--json"], flags].concat();
        let restart = self.gateway.ctl_aside(args);
        self.gateway.wait_nth_line("sidecar main starting: ", 1);
        restart
    }

    fn open(&self) {
        std::fs::write(&self.gate, "").unwrap();
    }

    /// Requests at once, each by a client of its own; their statuses come back.
    fn ask(&self) -> Vec<JoinHandle<u16>> {
        let client = |_| {
            let target = self.gateway.target();
            std::thread::spawn(move || block_on(client::get(&target, "/")).unwrap().status())
        };
        (0..REQUESTS).map(client).collect()
    }
}

fn statuses(clients: Vec<JoinHandle<u16>>) -> Vec<u16> {
    let clients = clients.into_iter();
    clients.map(|client| client.join().unwrap()).collect()
}

fn answer(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", said(output)))
}

/// Old and new copy side by side: all requests are answered at once.
fn counts_what_was_answered_beside_the_next_copy(flags: &[&str]) {
    let Some(gated) = Gated::start(Setup::new()) else {
        return;
    };
    let restart = gated.begin_restart(flags);
    assert_eq!(statuses(gated.ask()), [200; REQUESTS as usize]);
    gated.open();
    let output = restart.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let expected = json!({
        "answered": REQUESTS, "failed": {}, "held": 0, "longestHoldMs": 0,
        "streamsEnded": 0, "tunnelsEnded": 0,
    });
    assert_eq!(answer(&output)["clients"], expected);
}

#[test]
fn a_restart_in_the_process_counts_what_clients_were_answered() {
    counts_what_was_answered_beside_the_next_copy(&[]);
}

#[test]
fn a_restart_in_a_fresh_process_counts_what_clients_were_answered() {
    counts_what_was_answered_beside_the_next_copy(&["--fresh"]);
}

/// One copy at a time: all requests are held, and answered by the next copy.
fn counts_who_was_held(flags: &[&str]) {
    let Some(gated) = Gated::start(Setup::new().flag("--exclusive")) else {
        return;
    };
    let restart = gated.begin_restart(flags);
    let clients = gated.ask();
    gated
        .gateway
        .wait_status("all are held", |status| status["held"] == REQUESTS);
    gated.open();
    assert_eq!(statuses(clients), [200; REQUESTS as usize]);
    let output = restart.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let seen = &answer(&output)["clients"];
    assert_eq!(seen["answered"], REQUESTS, "{seen}");
    assert_eq!(seen["held"], REQUESTS, "{seen}");
    assert_eq!(seen["failed"], json!({}), "{seen}");
    assert!(seen["longestHoldMs"].as_u64() > Some(0), "{seen}");
}

#[test]
fn an_exclusive_restart_counts_who_was_held_and_answered() {
    counts_who_was_held(&[]);
}

#[test]
fn an_exclusive_restart_in_a_fresh_process_counts_who_was_held_and_answered() {
    counts_who_was_held(&["--fresh"]);
}

#[test]
fn a_restart_that_failed_clients_says_how_many_and_ends_with_1() {
    let setup = Setup::new()
        .flag("--exclusive")
        .config("[restart]\nhold = { time = \"1s\" }\n");
    let Some(gated) = Gated::start(setup) else {
        return;
    };
    let restart = gated.begin_restart(&[]);
    assert_eq!(statuses(gated.ask()), [503; REQUESTS as usize]);
    gated.open();
    let output = restart.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let answer = answer(&output);
    assert_eq!(answer["ok"], false, "{answer}");
    assert_eq!(answer["outcome"], "done", "{answer}");
    let seen = &answer["clients"];
    assert_eq!(seen["failed"], json!({ "503": REQUESTS }), "{seen}");
    assert_eq!(seen["held"], REQUESTS, "{seen}");
    let words = format!("{REQUESTS} requests failed ({REQUESTS} 503)");
    for command in ["history", "status"] {
        let text = said(&gated.gateway.ctl([command]));
        assert!(text.contains(&words), "{command}: {text}");
    }
    gated.gateway.wait_line(&words);
}

#[test]
fn a_restart_that_failed_says_what_clients_saw_as_well() {
    let setup = Setup::new()
        .flag("--exclusive")
        .flag("--start-timeout=4s")
        .config("[restart]\nhold = { time = \"1s\" }\n");
    let Some(gated) = Gated::start(setup) else {
        return;
    };
    let restart = gated.begin_restart(&[]);
    assert_eq!(statuses(gated.ask()), [503; REQUESTS as usize]);
    let output = restart.join().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    let answer = answer(&output);
    let failed = &answer["clients"]["failed"];
    assert_eq!(*failed, json!({ "503": REQUESTS }), "{answer}");
    let words = format!("{REQUESTS} requests failed ({REQUESTS} 503)");
    let error = answer["error"].as_str().unwrap();
    for part in ["was not ready after", &words] {
        assert!(error.contains(part), "no {part}: {answer}");
    }
    gated.open();
}
