//! A gateway that has ended: `why`, `history`, `logs` and `clean` know which one is meant.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::support::gateway::{said, scrub};
use crate::support::{port, servers};

/// The home of a user who starts gateways by hand, without a name.
struct Home(TempDir);

impl Home {
    fn new() -> Option<Self> {
        servers::have("node").then(|| Self(tempfile::tempdir().unwrap()))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        scrub(&mut command);
        command
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .env_remove("XDG_STATE_HOME")
            .env_remove("XDG_CONFIG_HOME")
            .env("GATEWAY_SUPERVISOR", "none")
            .env("GATEWAY_NO_RESPAWN", "1")
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn ctl(&self, args: &[&str]) -> Output {
        let mut command = self.command(env!("CARGO_BIN_EXE_gatewayctl"));
        command.arg("--user").args(args).output().unwrap()
    }

    /// Starts one on a port of its own, and waits until it is ready. Its name follows from the port.
    fn start(&self, stderr: impl Into<Stdio>) -> (Child, String, u16) {
        let port = port::private();
        let child = self
            .command(env!("CARGO_BIN_EXE_gateway"))
            .args(["run", "--listen", &port.to_string(), "--"])
            .args(servers::node())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let name = format!("gateway-{port}");
        let ready = self.ctl(&["wait", "--ready", "--instance", &name]);
        assert!(ready.status.success(), "{}", said(&ready));
        (child, name, port)
    }

    /// One that was started and stopped.
    fn ended(&self, stderr: impl Into<Stdio>) -> (String, u16) {
        let (mut child, name, port) = self.start(stderr);
        kill(
            Pid::from_raw(i32::try_from(child.id()).unwrap()),
            Signal::SIGTERM,
        )
        .unwrap();
        child.wait().unwrap();
        (name, port)
    }

    fn log(&self) -> File {
        File::create(self.0.path().join("gateway.log")).unwrap()
    }
}

/// Commands that also know a gateway that has ended, and that need not be told which.
const UNNAMED: [&[&str]; 4] = [&["why"], &["history"], &["logs"], &["clean", "--dry-run"]];

#[test]
fn the_only_gateway_that_has_ended_need_not_be_named_and_is_named_in_the_answer() {
    let Some(home) = Home::new() else { return };
    let (name, port) = home.ended(home.log());
    for command in UNNAMED {
        let output = home.ctl(command);
        let text = said(&output);
        assert!(output.status.success(), "{command:?}: {text}");
        assert!(text.contains(&name), "{command:?}: {text}");
    }
    assert!(said(&home.ctl(&["why"])).contains("was ended by SIGTERM"));
    // Its own address, not the default one.
    let text = said(&home.ctl(&["clean", "--dry-run"]));
    assert!(
        text.contains(&format!("127.0.0.1:{port}")) && !text.contains("18789"),
        "{text}"
    );
    let named = home.ctl(&["clean", "--dry-run", "--instance", &name]);
    let text = said(&named);
    assert!(text.contains(&format!("127.0.0.1:{port}")), "{text}");
    // What cannot be done with one that has ended says how it ended.
    let text = said(&home.ctl(&["status"]));
    assert!(
        text.contains(&format!("gatewayctl why   (how {name} ended)")),
        "{text}"
    );
}

#[test]
fn of_several_gateways_that_have_ended_the_names_are_shown() {
    let Some(home) = Home::new() else { return };
    let (first, _) = home.ended(Stdio::null());
    let (second, _) = home.ended(Stdio::null());
    for command in UNNAMED {
        let output = home.ctl(command);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{command:?}: {text}");
        for words in [&first, &second, &format!("--instance {second}")] {
            assert!(text.contains(words.as_str()), "{command:?}: {text}");
        }
    }
    let text = said(&home.ctl(&["why", "--instance", &first]));
    assert!(text.contains("was ended by SIGTERM"), "{text}");
    // One that runs is the one that is meant.
    let (mut child, third, _) = home.start(Stdio::null());
    let text = said(&home.ctl(&["why"]));
    assert!(text.contains(&third), "{text}");
    assert!(home.ctl(&["stop"]).status.success());
    child.wait().unwrap();
}

#[test]
fn a_gateway_on_another_port_is_waited_for_without_its_name() {
    let Some(home) = Home::new() else { return };
    home.ended(Stdio::null());
    let mut wait = home.command(env!("CARGO_BIN_EXE_gatewayctl"));
    let wait = wait.args(["--user", "wait", "--ready", "--timeout", "60s"]);
    let wait = wait
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut child, ..) = home.start(Stdio::null());
    let waited = wait.wait_with_output().unwrap();
    assert!(home.ctl(&["stop"]).status.success());
    child.wait().unwrap();
    assert!(waited.status.success(), "{}", said(&waited));
}

#[test]
fn the_log_of_a_gateway_that_has_ended_is_shown_or_it_is_said_where_it_went() {
    let Some(home) = Home::new() else { return };
    let (name, _) = home.ended(home.log());
    let shown = home.ctl(&["logs"]);
    let text = said(&shown);
    assert!(
        shown.status.success() && text.contains("[gateway] ready ("),
        "{text}"
    );
    assert!(text.contains(&format!("{name} has ended")), "{text}");
    let json = home.ctl(&["--json", "logs", "--lines", "3"]);
    let value: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(
        value["lines"].as_array().unwrap().len(),
        3,
        "{}",
        said(&json)
    );
    let state = home.0.path().join(".local/state/gateway").join(&name);
    let by_path = home.ctl(&["logs", "--state-dir", state.to_str().unwrap()]);
    assert!(
        said(&by_path).contains("[gateway] ready ("),
        "{}",
        said(&by_path)
    );
    // Another file in its place is not shown.
    let log = home.0.path().join("gateway.log");
    fs::remove_file(&log).unwrap();
    says_where(&home.ctl(&["logs"]), "gateway.log, which is gone");
    std::os::unix::fs::symlink("/etc/passwd", &log).unwrap();
    let text = said(&home.ctl(&["logs"]));
    assert!(!text.contains("root:x"), "{text}");

    for (stderr, words) in [
        (Stdio::null(), "its output was thrown away"),
        (
            Stdio::piped(),
            "went to the terminal or program that started it",
        ),
    ] {
        let home = Home::new().unwrap();
        home.ended(stderr);
        says_where(&home.ctl(&["logs"]), words);
    }
}

/// Not shown, with the place and the next commands.
fn says_where(output: &Output, place: &str) {
    let text = said(output);
    assert_eq!(output.status.code(), Some(3), "{text}");
    for words in [place, "gatewayctl why", ">gateway.log 2>&1"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn the_record_of_another_user_does_not_choose_a_file_that_root_reads() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let Some(home) = Home::new() else { return };
    let (name, _) = home.ended(home.log());
    let state = home.0.path().join(".local/state/gateway").join(&name);
    let nobody = Some(65_534);
    for path in [
        state.clone(),
        state.join("owner.json"),
        state.join("history.jsonl"),
    ] {
        std::os::unix::fs::chown(path, nobody, nobody).unwrap();
    }
    let output = home.ctl(&["logs", "--state-dir", state.to_str().unwrap()]);
    let text = said(&output);
    assert!(
        !output.status.success() && !text.contains("[gateway] ready ("),
        "{text}"
    );
    assert!(
        is_named(&text, &home.0.path().join("gateway.log")),
        "{text}"
    );
}

fn is_named(text: &str, file: &Path) -> bool {
    text.contains(&file.display().to_string())
}

#[test]
fn a_start_of_a_gateway_that_was_started_by_hand_says_how_it_is_started() {
    let Some(home) = Home::new() else { return };
    let (mut child, name, _) = home.start(Stdio::null());
    let start = || {
        let output = home.ctl(&["start"]);
        assert_eq!(output.status.code(), Some(3), "{}", said(&output));
        said(&output)
    };
    let text = start();
    for words in [
        &format!("{name} runs: it was started by hand"),
        "next: gatewayctl restart",
    ] {
        assert!(text.contains(words), "no `{words}`: {text}");
    }
    assert!(home.ctl(&["stop"]).status.success());
    child.wait().unwrap();
    let text = start();
    for words in [
        format!("{name} was started by hand, and has ended"),
        "next: gateway run … -- COMMAND   (as it was started)".to_owned(),
        "next: gatewayctl install --now -- COMMAND   (as a service)".to_owned(),
    ] {
        assert!(text.contains(&words), "no `{words}`: {text}");
    }
}

#[test]
fn of_several_gateways_that_run_the_list_is_shown() {
    let Some(home) = Home::new() else { return };
    let (mut one, first, first_port) = home.start(Stdio::null());
    let (mut two, second, _) = home.start(Stdio::null());
    for command in ["status", "restart", "logs", "stop"] {
        let output = home.ctl(&[command]);
        let text = said(&output);
        assert_eq!(output.status.code(), Some(2), "{command}: {text}");
        let line = text.lines().find(|line| line.contains(&first)).unwrap();
        for words in [
            "ready",
            &format!("pid {}", one.id()),
            &format!("127.0.0.1:{first_port}"),
        ] {
            assert!(line.contains(words), "{command}: no {words}: {text}");
        }
        assert!(
            text.contains(&second) && !text.contains("control.sock"),
            "{text}"
        );
        assert!(text.contains("say which one, as in --instance "), "{text}");
    }
    for (child, name) in [(&mut one, first), (&mut two, second)] {
        assert!(home.ctl(&["stop", "--instance", &name]).status.success());
        child.wait().unwrap();
    }
}
