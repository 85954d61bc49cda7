//! `--env-file`: the dotenv that people write, read anew for each generation.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup, said};
use crate::support::load::Load;
use crate::support::report::Part;
use crate::support::{port, servers};
use serde_json::Value;

const MIRROR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/mirror.py");

/// A server that says what it was started with, and its file of variables.
fn with_file(text: &str) -> Option<(Setup, tempfile::TempDir, PathBuf)> {
    if !servers::have("python3") {
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("app.env");
    fs::write(&file, text).unwrap();
    let setup = Setup::behind(["python3", MIRROR, "{port}"])
        .flag("--env-file")
        .flag(&file);
    Some((setup, dir, file))
}

fn variable(gateway: &Gateway, name: &str) -> Value {
    let answer = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text());
    serde_json::from_str::<Value>(&answer.text()).unwrap()["env"][name].clone()
}

#[test]
fn export_comments_and_quotes_of_an_env_file_mean_what_people_mean() {
    let text = "# app\nexport X=1\nPORT=3000 # web\nCOLOR=#fff\nKEY=\"-----BEGIN\nabc\n-----END\"\nFLAG=file\nWINS=file\nHOME=/srv/home\n";
    let Some((setup, _dir, _)) = with_file(text) else {
        return;
    };
    let mut gateway = setup
        .flag("--env")
        .flag("WINS=flag")
        .env("FLAG", "inherited")
        .start();
    for (name, value) in [
        ("X", "1"),
        ("COLOR", "#fff"),
        ("KEY", "-----BEGIN\nabc\n-----END"),
        ("FLAG", "file"),
        ("WINS", "flag"),
        ("HOME", "/srv/home"),
    ] {
        assert_eq!(variable(&gateway, name), value, "{name}");
    }
    // The server listens where it is told.
    assert_ne!(variable(&gateway, "PORT"), "3000");
    gateway.terminate();
}

/// The server gets another port, and somebody waits for a page at 3000.
#[test]
fn a_port_in_an_env_file_is_answered_with_what_to_do() {
    let Some((setup, _dir, file)) = with_file("PORT=3000\n") else {
        return;
    };
    let shown = file.display();
    let mut gateway = setup.clone().env("PORT", "3002").start();
    let told = |port: u16, from: &str| {
        let line = gateway.wait_line(&format!("PORT={port} from {from} is not used"));
        assert!(
            line.contains(&format!("--listen {port}"))
                && line.contains(&format!("--app-port {port}")),
            "{line}"
        );
    };
    told(3000, &shown.to_string());
    told(3002, "the environment");
    gateway.restart();
    // What is new is said, and once.
    fs::write(&file, "PORT=3001\nGATEWAY_LISTEN=3001\n").unwrap();
    gateway.restart();
    told(3001, &shown.to_string());
    gateway.wait_line(&format!(
        "GATEWAY_LISTEN from {shown} is for the server main alone"
    ));
    for port in ["3000", "3001", "3002"] {
        let said = format!("PORT={port} from");
        assert_eq!(gateway.stderr().matches(&said).count(), 1, "{port}");
    }
    let check = gateway.ctl(["config", "check"]);
    assert!(said(&check).contains("PORT=3001 from"), "{}", said(&check));
    gateway.terminate();

    // At the port where clients come, or where the server is told to be, there is nothing to say.
    let port = port::private();
    fs::write(&file, format!("PORT={port}\n")).unwrap();
    let mut gateway = setup.port(port).start();
    assert!(
        !gateway.stderr().contains("is not used"),
        "{}",
        gateway.stderr()
    );
    gateway.terminate();
}

#[test]
fn a_port_that_the_server_is_told_and_not_looked_for_on_is_named_before_it_starts() {
    if !servers::have("python3") {
        return;
    }
    let port = port::private();
    let gateway = Setup::behind(["python3", MIRROR, "{port}"])
        .flag("--env")
        .flag(format!("PORT={port}"))
        .start();
    let line = gateway.wait_line(&format!("the server main is told to listen on {port}"));
    assert!(line.contains(&format!("--app-port {port}")), "{line}");
}

#[test]
fn an_edited_env_file_is_applied_by_reload_and_restart_and_nothing_is_lost() {
    let Some((setup, _dir, file)) = with_file("COLOR=red\nGONE=1\n") else {
        return;
    };
    let mut gateway = setup.start();
    let load = Load {
        // A Python thread for each connection: on a starved machine, it has no time for thirty in a second.
        new_per_second: 10.0,
        ..Load::on(gateway.addr())
    };
    let load = load.start();
    load.flows(Part::New, 5);
    for (command, color) in [
        (&["reload"][..], "green"),
        (&["restart"], "blue"),
        (&["restart", "--fresh"], "black"),
    ] {
        fs::write(&file, format!("COLOR={color} # now\n")).unwrap();
        let output = gateway.ctl(command);
        assert!(output.status.success(), "{}", said(&output));
        assert_eq!(variable(&gateway, "COLOR"), color, "{command:?}");
        assert_eq!(variable(&gateway, "GONE"), Value::Null);
    }
    let pid = gateway.sidecar_pid("main");
    let output = gateway.ctl(["reload"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(gateway.sidecar_pid("main"), pid, "nothing changed");
    load.stop().assert_clean(&[(Part::New, 6)]);
    gateway.terminate();
}

#[test]
fn a_bad_env_file_is_named_with_its_line_and_the_old_server_serves_on() {
    let Some((setup, dir, file)) = with_file("COLOR=red\n") else {
        return;
    };
    let mut gateway = setup.start();
    let shown = file.display();
    let fifo = dir.path().join("pipe");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let become_link = |to: &Path| {
        fs::remove_file(&file).unwrap();
        symlink(to, &file).unwrap();
    };
    let cases: [(&dyn Fn(), String); 6] = [
        (
            &|| fs::write(&file, "COLOR=blue\nTOKEN canary-1\n").unwrap(),
            format!("{shown}:2: `TOKEN` has no value: a line is NAME=VALUE"),
        ),
        (
            &|| fs::write(&file, "COLOR='canary-1\n").unwrap(),
            format!("{shown}:1: its quote (') is not closed"),
        ),
        (
            &|| fs::write(&file, "#".repeat(2_000_000)).unwrap(),
            format!("cannot read {shown}: it is too long"),
        ),
        (
            &|| become_link(&fifo),
            format!("{shown} is not a regular file"),
        ),
        (
            &|| become_link(Path::new("/dev/zero")),
            format!("{shown} is not a regular file"),
        ),
        (
            &|| fs::remove_file(&file).unwrap(),
            format!("cannot read {shown}: No such file"),
        ),
    ];
    for (spoil, why) in cases {
        spoil();
        for command in [&["reload"][..], &["restart"], &["restart", "--fresh"]] {
            let output = gateway.ctl(command);
            let text = said(&output);
            assert_eq!(output.status.code(), Some(78), "{command:?}: {text}");
            assert!(text.contains(&why), "{command:?}: `{why}` in: {text}");
            assert!(!text.contains("canary"), "{text}");
        }
        assert_eq!(variable(&gateway, "COLOR"), "red");
    }
    assert!(!gateway.stderr().contains("canary"), "{}", gateway.stderr());
    fs::write(&file, "COLOR=white\n").unwrap();
    gateway.restart();
    assert_eq!(variable(&gateway, "COLOR"), "white");
    gateway.terminate();
}

#[test]
fn a_missing_env_file_keeps_its_server_from_starting_until_it_is_there() {
    let Some((setup, dir, file)) = with_file("COLOR=red\n") else {
        return;
    };
    fs::remove_file(&file).unwrap();
    // By hand the start fails, and says why.
    let mut by_hand = setup.spawn();
    assert_eq!(by_hand.exit_code(std::time::Duration::from_secs(20)), 1);
    let why = format!("cannot read {}: No such file", file.display());
    assert!(by_hand.stderr().contains(&why), "{}", by_hand.stderr());
    // Under a supervisor it stays, answers 503, and begins as soon as it can.
    let mut service = setup.env("GATEWAY_SUPERVISOR", "runit").spawn();
    service.wait_line(&why);
    service.wait_status("the server waits", |status| {
        status["sidecars"][0]["cause"]
            .as_str()
            .is_some_and(|cause| cause.contains(&why))
    });
    let next = dir.path().join("next");
    fs::write(&next, "COLOR=red\n").unwrap();
    fs::rename(next, &file).unwrap();
    service.wait_status("it serves", |status| status["stage"] == "ready");
    assert_eq!(variable(&service, "COLOR"), "red");
    service.terminate();
}
