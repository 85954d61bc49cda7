//! `gatewayctl sidecars`: what it shows, and the restart of one sidecar behind a front door that stays.

use std::fs;

use serde_json::Value;

use crate::support::client::{self, Conn, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::{Load, Running};
use crate::support::report::Part;
use crate::support::schema::object;
use crate::support::servers;
use crate::support::ws::WebSocket;

const GET_DB: &str = "GET /db HTTP/1.1\r\nHost: test\r\n\r\n";
const RESTART_WEB: [&str; 3] = ["sidecars", "restart", "web"];

/// A Node server for everything, `web`, and a Python server for /db, `db`; the former does not start while
/// there is the file `bad`.
pub fn two(web: &str, db: &str) -> Option<Setup> {
    if !servers::have("node") || !servers::have("python3") {
        return None;
    }
    let script = "[ -e bad ] && { echo 'KeyError: token' >&2; exit 3; }; exec \"$@\"";
    let server = ["sh", "-c", script, "sh"].map(str::to_owned).into_iter();
    let node: Vec<String> = server.chain(servers::node()).collect();
    let python = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/own_restart.py");
    Some(Setup::new().config(format!(
        "[sidecar.web]\ncommand = {node:?}\n{web}\n[sidecar.db]\ncommand = [\"python3\", {python:?}, \"exec\", \"{{port}}\"]\n{db}\n\
         [[route]]\npath = \"/db\"\nto = \"db\"\n[[route]]\npath = \"/\"\nto = \"web\"\n"
    )))
}

pub fn load(gateway: &Gateway, path: &str) -> Running {
    let load = Load {
        path: path.into(),
        new_per_second: 10.0,
        kept: 2,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 10);
    load
}

pub fn flowed(loads: impl IntoIterator<Item = Running>) {
    for load in loads {
        load.flows(Part::New, 10);
        load.stop()
            .assert_clean(&[(Part::New, 20), (Part::Busy, 2)]);
    }
}

pub fn sidecar(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.status();
    let mut all = status["sidecars"].as_array().unwrap().iter();
    all.find(|one| one["name"] == name).unwrap().clone()
}

pub fn pid_of(gateway: &Gateway, path: &str) -> u32 {
    let answer = block_on(client::get(&gateway.target(), path))
        .unwrap()
        .text();
    answer.split_whitespace().next().unwrap().parse().unwrap()
}

/// The limit of copies is reached, and an older process has a WebSocket to the other sidecar.
#[test]
fn the_restart_of_one_sidecar_ends_no_work_of_another_in_an_older_process() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.env("GATEWAY_RESTART_MAX_COPIES", "2").start();
    block_on(async {
        let socket = WebSocket::open(&gateway.target(), "/ws").await;
        let mut socket = socket.map_err(|(fault, _)| fault).unwrap();
        for restart in [
            &["restart", "--fresh"][..],
            &["sidecars", "restart", "db"],
            &["sidecars", "restart", "db"],
        ] {
            let output = gateway.ctl(restart);
            assert!(output.status.success(), "{}", said(&output));
            socket.echo("still there").await.unwrap();
        }
    });
}

#[test]
fn one_of_two_sidecars_is_restarted_and_the_other_does_not_notice() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.start();
    let (process, db) = (gateway.main_pid(), sidecar(&gateway, "db"));
    let loads = [load(&gateway, "/"), load(&gateway, "/db")];
    block_on(three_restarts_of_web(&gateway, &db["pid"]));
    flowed(loads);
    let now = sidecar(&gateway, "db");
    for key in ["pid", "port", "generation", "since", "restarts"] {
        assert_eq!(now[key], db[key], "{key}: {now:#}");
    }
    assert_eq!(gateway.main_pid(), process);
    told(&gateway);
    shown(&gateway);
    gateway.stop();
}

/// A client of the other one keeps its connection, and a WebSocket the copy at which it is.
async fn three_restarts_of_web(gateway: &Gateway, db: &Value) {
    let mut web = sidecar(gateway, "web");
    let mut kept = Conn::open(&gateway.target()).await.unwrap();
    let before = kept.exchange(GET_DB).await.unwrap().text();
    for number in 2..=4 {
        let socket = WebSocket::open(&gateway.target(), "/ws").await;
        let mut socket = socket.map_err(|(fault, _)| fault).unwrap();
        let done = gateway.ctl(RESTART_WEB);
        let text = said(&done);
        assert!(done.status.success(), "{text}");
        for words in [
            format!("web restarted: generation {} -> {number}", number - 1),
            format!("db   pid {db} (kept)"),
        ] {
            assert!(text.contains(&words), "no {words}: {text}");
        }
        assert_eq!(kept.exchange(GET_DB).await.unwrap().text(), before);
        socket.echo("still there").await.unwrap();
        socket.close(1000).await.unwrap();
        let next = sidecar(gateway, "web");
        assert_ne!(next["pid"], web["pid"]);
        assert_eq!(next["generation"], number);
        web = next;
    }
}

/// What the record, `history`, `why` and `status` say of it.
fn told(gateway: &Gateway) {
    let last = &gateway.status()["lastRestart"];
    assert_eq!(
        (&last["kind"], &last["sidecar"]),
        (&"sidecar-restart".into(), &"web".into())
    );
    let history = fs::read_to_string(gateway.state_dir().join("history.jsonl")).unwrap();
    let requests = history.lines().filter(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["event"] == "request" && line["kind"] == "sidecar-restart" && line["sidecar"] == "web"
    });
    assert_eq!(requests.count(), 3, "{history}");
    let history = said(&gateway.ctl(["history"]));
    assert!(
        history.contains("restart of web done (in-process)"),
        "{history}"
    );
    let why = said(&gateway.ctl(["why"]));
    for words in [
        "sidecar web of gateway-",
        " was restarted at ",
        "on request: gatewayctl sidecars restart web",
    ] {
        assert!(why.contains(words), "no {words}: {why}");
    }
}

/// The table, and the same as JSON.
fn shown(gateway: &Gateway) {
    let answer = object(&gateway.ctl(["sidecars", "--json"]), "sidecars");
    let all = answer["sidecars"].as_array().unwrap();
    assert_eq!(all.len(), 2);
    for one in all {
        // Either interpreter needs more than 5 MB, and 10 ms to start.
        assert!(one["memoryBytes"].as_u64().unwrap() > 5_000_000, "{one:#}");
        assert!(one["cpuMs"].as_u64().unwrap() >= 10, "{one:#}");
        assert_eq!((&one["restarts"], &one["deaths"]), (&0.into(), &0.into()));
    }
    let table = gateway.ctl(["sidecars"]);
    let text = String::from_utf8(table.stdout).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("NAME  STATE"), "{text}");
    for (line, one) in lines[1..].iter().zip(all) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[0], one["name"], "{text}");
        assert_eq!(cells[1], "ready", "{text}");
        assert_eq!(cells[2], one["pid"].to_string(), "{text}");
        assert_eq!(cells[3], one["port"].to_string(), "{text}");
        assert_eq!(cells[4], one["generation"].to_string(), "{text}");
    }
}

#[test]
fn a_sidecar_whose_next_copy_does_not_start_serves_on() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.start();
    let (web, db) = (gateway.sidecar_pid("web"), gateway.sidecar_pid("db"));
    let loads = [load(&gateway, "/"), load(&gateway, "/db")];
    fs::write(gateway.dir().join("bad"), "").unwrap();
    let failed = gateway.ctl([&RESTART_WEB[..], &["--reason", "deploy 43"]].concat());
    let text = said(&failed);
    assert_eq!(failed.status.code(), Some(1), "{text}");
    for words in [
        "exited with code 3",
        "KeyError: token",
        "generation 1 serves on",
    ] {
        assert!(text.contains(words), "no {words}: {text}");
    }
    flowed(loads);
    assert_eq!(
        (gateway.sidecar_pid("web"), gateway.sidecar_pid("db")),
        (web, db)
    );
    let why = said(&gateway.ctl(["why"]));
    for words in [
        "the restart of sidecar web of gateway-",
        "deploy 43",
        "KeyError: token",
        "gatewayctl sidecars restart web",
    ] {
        assert!(why.contains(words), "no {words}: {why}");
    }
    // What the file says now is the affair of a reload.
    fs::remove_file(gateway.dir().join("bad")).unwrap();
    fs::write(gateway.config_file(), "not = [valid").unwrap();
    let done = gateway.ctl(RESTART_WEB);
    let text = said(&done);
    assert!(
        done.status.success() && text.contains("does not apply yet"),
        "{text}"
    );
    assert_ne!(gateway.sidecar_pid("web"), web);
    gateway.stop();
}

#[test]
fn a_sidecar_that_restarts_by_its_own_means_or_must_not_run_twice_does_so_alone() {
    let Some(setup) = two("overlap = false", "reload = { signal = \"USR2\" }") else {
        return;
    };
    let gateway = setup.start();
    let (web, db) = (gateway.sidecar_pid("web"), gateway.sidecar_pid("db"));
    let loads = [load(&gateway, "/"), load(&gateway, "/db")];
    let text = said(&gateway.ctl(["sidecars", "restart", "db"]));
    assert!(
        text.contains("db restarts by its own means (SIGUSR2)"),
        "{text}"
    );
    let answer = block_on(client::get(&gateway.target(), "/db")).unwrap();
    assert_eq!(answer.text(), format!("{db} 2\n"), "{text}");
    assert_eq!(gateway.sidecar_pid("web"), web);
    let text = said(&gateway.ctl(RESTART_WEB));
    assert!(
        text.contains("web is being replaced; new requests wait"),
        "{text}"
    );
    assert_ne!(pid_of(&gateway, "/"), web);
    assert_eq!(pid_of(&gateway, "/db"), db);
    flowed(loads);
    gateway.stop();
}

#[test]
fn a_sidecar_whose_new_copy_dies_soon_is_served_by_its_old_copy_again() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.env("GATEWAY_RESTART_WATCH", "60s").start();
    let (web, db) = (gateway.sidecar_pid("web"), gateway.sidecar_pid("db"));
    let text = said(&gateway.ctl(RESTART_WEB));
    assert!(text.contains("generation 1 serves again"), "{text}");
    assert_ne!(pid_of(&gateway, "/"), web);
    let _ = block_on(client::get(&gateway.target(), "/exit?code=7"));
    gateway.wait_status("the old copy serves again", |status| {
        let outcome = status["lastRestart"]["outcome"]
            .as_str()
            .unwrap_or_default();
        status["generation"] == 1 && outcome.starts_with("failed")
    });
    assert_eq!((pid_of(&gateway, "/"), pid_of(&gateway, "/db")), (web, db));
    // The next one is a restart like any other.
    let done = gateway.ctl(RESTART_WEB);
    assert!(done.status.success(), "{}", said(&done));
    assert_eq!(pid_of(&gateway, "/db"), db);
    gateway.stop();
}

#[test]
fn a_sidecar_is_not_restarted_by_a_wrong_name() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.start();
    let unknown = gateway.ctl(["sidecars", "restart", "wbe"]);
    let text = said(&unknown);
    assert_eq!(unknown.status.code(), Some(2), "{text}");
    assert!(text.contains("there is db, web"), "{text}");
    gateway.stop();
}
