//! `gatewayctl demo`: what it shows, and that nothing of it is left.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::gateway::{family_of, said, scrub};
use crate::support::wait;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn demo(dir: &Path, time: &str, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gatewayctl"));
    scrub(&mut command);
    command
        .args(["demo", "--time", time])
        .args(more)
        .env("TMPDIR", dir)
        .stdin(Stdio::null());
    command
}

fn is_empty(dir: &Path) -> bool {
    fs::read_dir(dir).unwrap().next().is_none()
}

#[test]
fn three_restarts_under_load_lose_nothing_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), "6s", &[]).output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("==> ").count(), 3, "{text}");
    assert_eq!(text.matches("<== done in ").count(), 3, "{text}");
    assert!(
        text.contains("gateway pid ") && text.contains("none failed"),
        "{text}"
    );
    assert!(
        text.contains(": 0 failed, ") && text.contains("longest gap"),
        "{text}"
    );
    assert!(text.lines().any(|line| line.contains("s ....")), "{text}");
    assert!(
        !text.contains('\u{1b}'),
        "no colours without a terminal: {text}"
    );
    assert!(is_empty(dir.path()), "its directory is gone");
    let port = port_of(&text);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn the_numbers_are_one_object_with_json() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), "6s", &["--json"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let answer: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(answer["ok"], true);
    assert_eq!(answer["failed"], 0);
    assert!(answer["requests"].as_u64().unwrap() > 100, "{answer:#}");
    let restarts = answer["restarts"].as_array().unwrap();
    assert_eq!(restarts.len(), 3);
    // The server takes a second: where no other copy serves meanwhile, requests wait for it.
    assert!(
        restarts[2]["longestGapMs"].as_u64().unwrap() > 500,
        "{answer:#}"
    );
    assert!(answer["waited"].as_u64().unwrap() > 0, "{answer:#}");
}

#[test]
fn ctrl_c_leaves_nothing_and_so_does_a_kill() {
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGKILL] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = demo(dir.path(), "60s", &[])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let marks = lines
            .map_while(Result::ok)
            .find(|line| line.contains("s ...."));
        assert!(marks.is_some(), "{first}: {}", rest(&mut child));
        let config = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap();
        let config = config.path().join("gateway.toml");
        assert!(!family_of(&config).is_empty());
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let status = child.wait().unwrap();
        wait::until("no process of it is left", || {
            family_of(&config).is_empty().then_some(())
        });
        assert!(TcpStream::connect(("127.0.0.1", port_of(&first))).is_err());
        if signal != Signal::SIGKILL {
            assert_eq!(status.code(), Some(130), "{}", rest(&mut child));
            assert!(is_empty(dir.path()), "its directory is gone");
        }
    }
}

fn rest(child: &mut Child) -> String {
    let mut text = String::new();
    let errors = child.stderr.take();
    errors.map(|mut errors| errors.read_to_string(&mut text));
    text
}

fn port_of(text: &str) -> u16 {
    let (_, rest) = text.split_once("127.0.0.1:").unwrap();
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}
