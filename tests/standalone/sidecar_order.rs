//! Sidecars that start after others (`after`), and those without which the gateway is ready (`required`).

use std::fs;
use std::path::PathBuf;

use crate::sidecars::{flowed, load, pid_of, sidecar, two};
use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::wait;

/// `web` and `db`, each with these further lines; `db` starts only while there is the file that comes back.
fn gated(web: &str, db: &str) -> Option<(Setup, PathBuf, tempfile::TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    let script = format!("while [ ! -e {} ]; do sleep 0.05; done", gate.display());
    let setup = two(
        web,
        &format!("prepare = [\"sh\", \"-c\", {script:?}]\n{db}"),
    )?;
    Some((setup, gate, dir))
}

/// `web`, and `db`, which is not required and cannot start while there is the file `broken`.
fn optional() -> Option<Setup> {
    two(
        "",
        "required = false\nprepare = [\"sh\", \"-c\", \"[ ! -e broken ]\"]",
    )
}

/// The places of these lines in the log, each behind the one before.
fn in_this_order(gateway: &Gateway, lines: &[&str]) {
    let log = gateway.stderr();
    let places: Vec<_> = lines.iter().map(|line| log.find(line)).collect();
    assert!(places.iter().all(Option::is_some), "{lines:?}: {log}");
    assert!(places.is_sorted(), "{lines:?}: {log}");
}

fn readyz(gateway: &Gateway) -> (u16, String) {
    let answer = gateway.get_with_token("/readyz");
    (answer.status(), answer.text())
}

#[test]
fn a_sidecar_starts_when_the_one_before_it_is_ready_and_ends_before_it() {
    let Some((setup, gate, _dir)) = gated("after = [\"db\"]", "") else {
        return;
    };
    let mut gateway = setup.spawn();
    gateway.wait_line("sidecar web waits for db");
    gateway.wait_status("web waits", |status| status["stage"] == "starting");
    assert!(!gateway.stderr().contains("sidecar web starting"));
    fs::write(&gate, "").unwrap();
    gateway.wait_line("[gateway] ready (");
    in_this_order(&gateway, &["sidecar db ready", "sidecar web starting"]);

    // What runs is not waited for.
    let loads = [load(&gateway, "/"), load(&gateway, "/db")];
    fs::remove_file(&gate).unwrap();
    let restarted = gateway.ctl(["sidecars", "restart", "web"]);
    assert!(restarted.status.success(), "{}", said(&restarted));
    // A restart of all begins in the same order.
    let whole = gateway.ctl_aside(["restart"]);
    gateway.wait_nth_line("sidecar web waits for db", 1);
    fs::write(&gate, "").unwrap();
    let whole = whole.join().unwrap();
    assert!(whole.status.success(), "{}", said(&whole));
    flowed(loads);
    gateway.terminate();
    let log = gateway.stderr();
    let stop = log.find("received SIGTERM").unwrap();
    let stopped = |name: &str| {
        log[stop..]
            .find(&format!("sidecar {name} stopped"))
            .unwrap()
    };
    assert!(stopped("web") < stopped("db"), "{log}");
}

#[test]
fn a_start_ends_when_the_one_fails_for_which_another_waits() {
    let Some(setup) = two("after = [\"db\"]", "prepare = [\"false\"]") else {
        return;
    };
    let mut gateway = setup.spawn();
    assert_eq!(gateway.exit_code(wait::DEADLINE), 1);
    let log = gateway.stderr();
    assert!(log.contains("sidecar db could not be prepared"), "{log}");
    assert!(!log.contains("sidecar web starting"), "{log}");
}

/// A supervisor wants it to go on: what needs nothing of what fails, serves.
#[test]
fn a_supervised_start_serves_what_waits_for_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let gate = dir.path().join("open");
    let other = format!(
        "prepare = [\"sh\", \"-c\", \"[ -e {} ]\"]\n[sidecar.front]\ncommand = {:?}\nafter = [\"web\"]\n[[route]]\npath = \"/front\"\nto = \"front\"",
        gate.display(),
        crate::support::servers::node(),
    );
    // `front` after `web` after `db`, and what needs none of them.
    let Some(setup) = two("after = [\"db\"]", &other) else {
        return;
    };
    let gateway = setup.env("GATEWAY_SUPERVISOR", "s6").spawn();
    let state = |status: &serde_json::Value, name: &str| {
        let mut all = status["sidecars"].as_array().into_iter().flatten();
        all.find(|one| one["name"] == name)
            .map(|one| one["state"].clone())
    };
    let status = gateway.wait_status("all three wait", |status| {
        let waits = |name| state(status, name).is_some_and(|state| state == "backoff");
        waits("web") && waits("front")
    });
    assert_eq!(status["generation"], 1, "{status:#}");
    assert_eq!(status["stage"], "degraded", "{status:#}");
    let why = status["detail"].as_str().unwrap();
    assert!(
        why.contains("sidecar front waits for web, which waits for db, which "),
        "{why}"
    );
    fs::write(&gate, "").unwrap();
    gateway.wait_status("all are ready", |status| status["stage"] == "ready");
    in_this_order(
        &gateway,
        &[
            "sidecar db ready",
            "sidecar web starting",
            "sidecar web ready",
            "sidecar front starting",
        ],
    );
    gateway.stop();
}

#[test]
fn the_gateway_is_ready_without_a_sidecar_that_is_not_required() {
    let Some((setup, gate, _dir)) = gated("", "required = false") else {
        return;
    };
    let gateway = setup.start();
    assert_eq!(sidecar(&gateway, "db")["state"], "starting");
    let (status, told) = readyz(&gateway);
    assert_eq!(status, 200, "{told}");
    assert!(told.contains("sidecar db is starting"), "{told}");
    let shown = gateway.ctl(["status"]);
    assert_eq!(shown.status.code(), Some(0), "{}", said(&shown));
    let detail = gateway.status()["detail"].to_string();
    assert!(detail.contains("sidecar db is starting"), "{detail}");
    assert_eq!(gateway.metric("gateway_sidecar_ready{sidecar=\"db\"}"), 0);
    assert_eq!(gateway.metric("gateway_ready"), 1);
    // Its clients wait for it.
    let target = gateway.target();
    let held = std::thread::spawn(move || block_on(client::get(&target, "/db")).unwrap().status());
    gateway.wait_status("a request is held", |status| status["held"] == 1);
    fs::write(&gate, "").unwrap();
    assert_eq!(held.join().unwrap(), 200);
    let ready = wait::until("nothing is degraded", || {
        let (_, told) = readyz(&gateway);
        (!told.contains("degraded")).then_some(told)
    });
    assert!(ready.contains("\"ready\":true"), "{ready}");
    assert_eq!(gateway.metric("gateway_sidecar_ready{sidecar=\"db\"}"), 1);
    gateway.stop();
}

#[test]
fn a_broken_sidecar_that_is_not_required_is_in_no_restarts_way() {
    let Some(setup) = optional() else { return };
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("broken"), "").unwrap();
    let gateway = setup.in_dir(home).start();
    let load = load(&gateway, "/");
    for (number, args) in [(2, &["restart"][..]), (3, &["restart", "--fresh"])] {
        let web = pid_of(&gateway, "/");
        let restarted = gateway.ctl(args.to_vec());
        assert!(restarted.status.success(), "{}", said(&restarted));
        assert_ne!(pid_of(&gateway, "/"), web);
        assert_eq!(gateway.status()["generation"], number);
        assert_ne!(sidecar(&gateway, "db")["state"], "ready");
    }
    flowed([load]);
    fs::remove_file(gateway.dir().join("broken")).unwrap();
    gateway.wait_status("db is ready", |status| {
        let mut all = status["sidecars"].as_array().unwrap().iter();
        all.any(|one| one["name"] == "db" && one["state"] == "ready")
    });
    gateway.stop();
}

#[test]
fn a_sidecar_that_is_not_required_and_serves_is_not_given_up_for_a_broken_copy() {
    let Some(setup) = optional() else { return };
    let gateway = setup.start();
    gateway.wait_line("sidecar db ready");
    let db = pid_of(&gateway, "/db");
    let loads = [load(&gateway, "/"), load(&gateway, "/db")];
    fs::write(gateway.dir().join("broken"), "").unwrap();
    for args in [&["restart"][..], &["sidecars", "restart", "db"]] {
        let failed = gateway.ctl(args.to_vec());
        let text = said(&failed);
        assert_eq!(failed.status.code(), Some(1), "{text}");
        assert!(text.contains("db could not be prepared"), "{text}");
    }
    assert_eq!(pid_of(&gateway, "/db"), db);
    flowed(loads);
    gateway.stop();
}

/// What each uses, and how often it had to be started again.
#[test]
fn the_metrics_tell_what_each_sidecar_uses() {
    let Some(setup) = two("", "") else { return };
    let gateway = setup.start();
    let of = |name: &str, sidecar: &str| {
        let page = gateway.get_with_token("/_gateway/metrics").text();
        let begin = format!("gateway_sidecar_{name}{{sidecar=\"{sidecar}\"}} ");
        let value = page
            .lines()
            .find_map(|line| line.strip_prefix(&begin)?.parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("no {begin}in:\n{page}"))
    };
    for name in ["web", "db"] {
        // Either interpreter needs more than 5 MB, and 10 ms to start.
        assert!(of("memory_bytes", name) > 5e6);
        assert!(of("cpu_seconds_total", name) >= 0.01);
        assert!(of("cpu_seconds_total", name) < 1000.0);
        assert_eq!(of("restarts_total", name), 0.0);
        assert_eq!((of("ready", name), of("failing", name)), (1.0, 0.0));
        assert_eq!(of("generation", name), 1.0);
    }
    let pid = pid_of(&gateway, "/");
    let _ = block_on(client::get(&gateway.target(), "/exit?code=7"));
    gateway.wait_nth_line("sidecar web ready", 1);
    assert_ne!(pid_of(&gateway, "/"), pid);
    assert_eq!(
        (of("restarts_total", "web"), of("restarts_total", "db")),
        (1.0, 0.0)
    );
    let restarted = gateway.ctl(["sidecars", "restart", "web"]);
    assert!(restarted.status.success(), "{}", said(&restarted));
    assert_eq!(
        (of("generation", "web"), of("generation", "db")),
        (2.0, 1.0)
    );
    assert_eq!(of("restarts_total", "web"), 0.0);
    let without = block_on(client::get(&gateway.target(), "/_gateway/metrics")).unwrap();
    assert_eq!(without.status(), 401);
    gateway.stop();
}
