//! A gateway that was started by hand is its file with its flags: what is said of it counts both.

use std::fs;

use serde_json::Value;

use crate::support::gateway::{Setup, said};
use crate::support::servers;

/// A file whose address is another one than the flags say.
fn listens_at(port: u16) -> String {
    format!("[gateway]\nlisten = [\"127.0.0.1:{port}\"]")
}

#[test]
fn doctor_of_one_gateway_does_not_take_another_for_a_stale_one() {
    let other = Setup::new().start();
    let config = listens_at(other.addr().port());
    let gateway = Setup::new().config(config).start();
    let output = gateway.ctl(["--json", "doctor"]);
    let text = said(&output);
    assert!(!text.contains("port-"), "{text}");
}

#[test]
fn doctor_finds_what_the_flags_of_a_gateway_lack() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("server");
    std::os::unix::fs::symlink(which("node"), &program).unwrap();
    let mut command = servers::node();
    command[0] = program.to_string_lossy().into_owned();
    let gateway = Setup::behind(command).start();
    let before = said(&gateway.ctl(["doctor"]));
    assert!(!before.contains("command-missing"), "{before}");
    fs::remove_file(&program).unwrap();
    let after = said(&gateway.ctl(["doctor"]));
    assert!(after.contains("command-missing"), "{after}");
}

fn which(program: &str) -> std::path::PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.find(|place| place.is_file()).unwrap()
}

#[test]
fn config_show_of_a_running_gateway_counts_the_flags_it_was_started_with() {
    let config = listens_at(1);
    let gateway = Setup::new().config(config).start();
    let shown = gateway.ctl(["--json", "config", "show"]);
    let value: Value = serde_json::from_slice(&shown.stdout).unwrap();
    let listen = &value["gateway"]["listen"];
    assert_eq!(listen[0], gateway.addr().to_string(), "{}", said(&shown));
    let text = said(&gateway.ctl(["config", "show"]));
    let whose = format!("(pid {})", gateway.pid());
    assert!(
        text.contains("with the flags of ") && text.contains(&whose),
        "{text}"
    );
    // A file that is named is shown as it is.
    let file = gateway.config_file();
    let named = gateway.ctl([
        "--json",
        "--config",
        file.to_str().unwrap(),
        "config",
        "show",
    ]);
    let value: Value = serde_json::from_slice(&named.stdout).unwrap();
    assert_eq!(value["gateway"]["listen"][0], "127.0.0.1:1");
}

#[test]
fn config_check_finds_the_bad_env_file_of_a_flag_that_a_restart_found() {
    if !servers::have("node") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // Relative to where the gateway was started, not to where gatewayctl is.
    let file = dir.path().join("app.env");
    fs::write(&file, "COLOR=red\n").unwrap();
    let gateway = Setup::behind(servers::node())
        .in_dir(dir)
        .flag("--env-file")
        .flag("app.env")
        .start();
    assert!(gateway.ctl(["config", "check"]).status.success());
    fs::write(&file, "COLOR=red\nnonsense here\n").unwrap();
    for command in ["restart", "reload"] {
        let failed = gateway.ctl([command]);
        let text = said(&failed);
        assert!(text.contains("app.env:2"), "{text}");
        let (_, next) = text.split_once("next: gatewayctl ").unwrap();
        let next = next.lines().next().unwrap();
        assert!(next.starts_with("config check"), "{text}");
        let checked = gateway.ctl(next.split_whitespace().take(2));
        let text = said(&checked);
        assert_eq!(checked.status.code(), Some(78), "{text}");
        assert!(text.contains("app.env:2"), "{text}");
    }
    fs::write(&file, "COLOR=blue\n").unwrap();
    assert!(gateway.ctl(["config", "check"]).status.success());
    gateway.restart();
}
