//! The restart of one sidecar while something else is under way.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::thread::JoinHandle;

use serde_json::{Value, json};

use crate::sidecars::{flowed, load, pid_of, sidecar, two};
use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, said};
use crate::support::ws::WebSocket;

const RESTART_DB: [&str; 3] = ["sidecars", "restart", "db"];
const RESTART_WEB: [&str; 3] = ["sidecars", "restart", "web"];

/// Two sidecars, of which `db` starts only while the gate is open.
struct Gated {
    gateway: Gateway,
    gate: PathBuf,
    _dir: tempfile::TempDir,
}

impl Gated {
    fn start(web: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let gate = dir.path().join("open");
        fs::write(&gate, "").unwrap();
        let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
        let prepare = format!("prepare = [\"sh\", \"-c\", {wait:?}]");
        Some(Self {
            gateway: two(web, &prepare)?.start(),
            gate,
            _dir: dir,
        })
    }

    /// Asks for something that starts `db` anew, and comes back when that waits at the gate.
    fn begin(&self, args: &[&str]) -> JoinHandle<Output> {
        fs::remove_file(&self.gate).unwrap();
        let asked = self.gateway.ctl_aside(args.to_vec());
        self.gateway
            .wait_status("a restart is under way", |status| {
                status["stage"] == "restarting"
            });
        asked
    }

    fn open(&self) {
        fs::write(&self.gate, "").unwrap();
    }

    /// Asks for a restart of `web`, which has to wait.
    fn ask_for_web(&self) -> JoinHandle<Output> {
        let asked = self.gateway.ctl_aside(RESTART_WEB);
        self.gateway.wait_line("restart of web r");
        asked
    }
}

fn done(restart: JoinHandle<Output>) -> String {
    let output = restart.join().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn two_sidecars_asked_for_at_once_are_restarted_one_after_the_other() {
    let Some(gated) = Gated::start("") else {
        return;
    };
    let gateway = &gated.gateway;
    let (web, db) = (pid_of(gateway, "/"), pid_of(gateway, "/db"));
    let loads = [load(gateway, "/"), load(gateway, "/db")];
    let first = gated.begin(&RESTART_DB);
    let second = gated.ask_for_web();
    // What is asked for twice is done once.
    let third = gateway.ctl_aside(RESTART_WEB);
    gateway.wait_nth_line("restart of web r", 1);
    assert_eq!(pid_of(gateway, "/"), web);
    gated.open();
    done(first);
    let text = done(second);
    assert!(text.contains("waits for the end of "), "{text}");
    done(third);
    flowed(loads);
    assert_ne!(pid_of(gateway, "/"), web);
    assert_ne!(pid_of(gateway, "/db"), db);
    assert_eq!(sidecar(gateway, "db")["generation"], 2);
    assert_eq!(sidecar(gateway, "web")["generation"], 3);
    gated.gateway.stop();
}

#[test]
fn a_sidecar_asked_for_during_a_restart_in_a_fresh_process_is_restarted_there() {
    let Some(gated) = Gated::start("") else {
        return;
    };
    let gateway = &gated.gateway;
    let process = gateway.main_pid();
    let loads = [load(gateway, "/"), load(gateway, "/db")];
    let whole = gated.begin(&["restart", "--fresh"]);
    let web = gated.ask_for_web();
    gated.open();
    done(whole);
    let text = done(web);
    assert!(text.contains("web restarted: generation 2 -> 3"), "{text}");
    flowed(loads);
    assert_ne!(gateway.main_pid(), process);
    assert_eq!(sidecar(gateway, "db")["generation"], 2);
    assert_eq!(sidecar(gateway, "web")["generation"], 3);
    gated.gateway.stop();
}

#[test]
fn a_restart_of_all_in_a_fresh_process_waits_for_that_of_one() {
    let Some(gated) = Gated::start("") else {
        return;
    };
    let gateway = &gated.gateway;
    let process = gateway.main_pid();
    let loads = [load(gateway, "/"), load(gateway, "/db")];
    let one = gated.begin(&RESTART_DB);
    let whole = gateway.ctl_aside(["restart", "--fresh"]);
    gateway.wait_line("restart r");
    gated.open();
    let text = done(one);
    assert!(text.contains("generation 1 -> 2"), "{text}");
    let text = done(whole);
    assert!(text.contains("generation 2 -> 3"), "{text}");
    assert!(!text.contains("given up"), "{text}");
    flowed(loads);
    assert_ne!(gateway.main_pid(), process);
    gated.gateway.stop();
}

#[test]
fn a_stop_ends_the_restart_of_a_sidecar() {
    let Some(gated) = Gated::start("") else {
        return;
    };
    let one = gated.begin(&RESTART_DB);
    let another = gated.ask_for_web();
    let Gated { gateway, .. } = gated;
    assert!(gateway.stop().success());
    for restart in [one, another] {
        let output = restart.join().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    }
}

#[test]
fn clients_of_another_sidecar_that_fail_are_none_of_the_restarts_doing() {
    let Some(gated) = Gated::start("") else {
        return;
    };
    let gateway = &gated.gateway;
    let restart = gated.begin(&["sidecars", "restart", "db", "--json"]);
    let target = gateway.target();
    let failed = std::thread::spawn(move || block_on(client::get(&target, "/slow?ms=60000")));
    gateway.wait_status("the request is under way", |status| status["requests"] == 1);
    let _ = block_on(client::get(&gateway.target(), "/exit?code=7"));
    assert_eq!(failed.join().unwrap().unwrap().status(), 502);
    assert_eq!(
        block_on(client::get(&gateway.target(), "/db"))
            .unwrap()
            .status(),
        200
    );
    gated.open();
    let output = restart.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["clients"]["failed"], json!({}), "{answer:#}");
    assert!(
        answer["clients"]["answered"].as_u64() >= Some(1),
        "{answer:#}"
    );
    gated.gateway.stop();
}

#[test]
fn a_sidecar_gets_its_edited_env_file_by_its_restart_and_the_others_keep_theirs() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let mirror = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mirror.py");
    let of = |name: &str| {
        format!(
            "[sidecar.{name}]\ncommand = [\"python3\", {mirror:?}, \"{{port}}\"]\nenv_file = {:?}\n[[route]]\npath = \"/{name}\"\nto = \"{name}\"\n",
            file(name)
        )
    };
    if !crate::support::servers::have("python3") {
        return;
    }
    let write = |name: &str, text: &str| fs::write(file(name), text).unwrap();
    write("a", "COLOR=red\n");
    write("b", "COLOR=red\n");
    let gateway = crate::support::gateway::Setup::new()
        .config(of("a") + &of("b"))
        .start();
    let color = |name: &str| {
        let answer = block_on(client::get(&gateway.target(), &format!("/{name}"))).unwrap();
        serde_json::from_str::<Value>(&answer.text()).unwrap()["env"]["COLOR"].clone()
    };
    let restart = |name: &str| gateway.ctl(["sidecars", "restart", name]);
    write("a", "COLOR=blue\n");
    write("b", "this is none\n");
    let restarted = restart("a");
    assert!(restarted.status.success(), "{}", said(&restarted));
    assert_eq!((color("a"), color("b")), (json!("blue"), json!("red")));
    let refused = restart("b");
    let text = said(&refused);
    assert_eq!(refused.status.code(), Some(78), "{text}");
    assert!(text.contains("the variables of sidecar `b`"), "{text}");
    assert_eq!((color("a"), color("b")), (json!("blue"), json!("red")));
    write("b", "COLOR=green\n");
    let reloaded = gateway.ctl(["reload"]);
    assert!(reloaded.status.success(), "{}", said(&reloaded));
    assert_eq!((color("a"), color("b")), (json!("blue"), json!("green")));
    assert_eq!(
        sidecar(&gateway, "a")["generation"],
        2,
        "the reload kept it"
    );
    gateway.stop();
}

/// The old copy finishes what it has, for as long as it is given.
#[test]
fn a_sidecar_drains_its_old_copy_and_force_cuts_it() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.start();
    let web = pid_of(&gateway, "/");
    block_on(async {
        let mut socket = open(&gateway).await;
        let drained = gateway.ctl_aside([&RESTART_WEB[..], &["--drained"]].concat());
        gateway.wait_status("the next copy serves", |status| {
            status["generation"] == 2 && status["drainers"].as_array().unwrap().len() == 1
        });
        assert!(!drained.is_finished());
        socket.echo("still there").await.unwrap();
        assert_ne!(pid_of_aside(&gateway).await, web);
        socket.close(1000).await.unwrap();
        done(drained);
        gateway.gone_after(1);

        let mut socket = open(&gateway).await;
        let forced = gateway.ctl([&RESTART_WEB[..], &["--force"]].concat());
        assert!(forced.status.success(), "{}", said(&forced));
        gateway.gone_after(2);
        assert!(socket.echo("still there").await.is_err());
    });
    gateway.stop();
}

async fn open(gateway: &Gateway) -> WebSocket {
    let socket = WebSocket::open(&gateway.target(), "/ws").await;
    socket.map_err(|(fault, _)| fault).unwrap()
}

async fn pid_of_aside(gateway: &Gateway) -> u32 {
    let answer = client::get(&gateway.target(), "/").await.unwrap().text();
    answer.split_whitespace().next().unwrap().parse().unwrap()
}
