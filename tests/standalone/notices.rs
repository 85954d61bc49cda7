//! Sidecars that ask for it are told when their work comes to an end, before their SIGTERM.

use std::time::{Duration, Instant};

use crate::support::gateway::{Gateway, Setup, said};
use crate::support::servers;
use nix::sys::signal::Signal;

/// What stops and drains that answer at once stay far below; a notice without an answer takes 2 s.
const AT_ONCE: Duration = Duration::from_millis(1800);

/// A gateway before the server that says what it is told.
fn gateway(drain: &str, more: &str) -> Option<Gateway> {
    if !servers::have("python3") {
        return None;
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/told.py");
    let text = format!(
        "[sidecar.main]\ncommand = [\"python3\", {script:?}, \"{{port}}\"]\ndrain = {drain}\n{more}\n"
    );
    Some(Setup::new().config(text).start())
}

fn told(gateway: &Gateway) -> Vec<String> {
    let words = |line: &str| line.strip_prefix("[main] told ").map(str::to_owned);
    gateway.stderr().lines().filter_map(words).collect()
}

#[test]
fn a_signal_and_then_the_end_in_a_restart_and_in_a_stop() {
    let Some(mut gateway) = gateway("{ signal = \"USR1\" }", "") else {
        return;
    };
    gateway.ctl(["restart", "--drained"]);
    assert_eq!(told(&gateway), ["by USR1", "to end"]);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(Duration::from_secs(12)), 0);
    assert_eq!(told(&gateway), ["by USR1", "to end", "by USR1", "to end"]);
}

#[test]
fn a_request_where_two_copies_must_not_run_at_once() {
    let Some(mut gateway) = gateway("{ path = \"/drain\" }", "overlap = false") else {
        return;
    };
    let output = gateway.ctl(["restart"]);
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(told(&gateway), ["by POST /drain", "to end"]);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(Duration::from_secs(12)), 0);
    assert_eq!(told(&gateway)[2..], ["by POST /drain", "to end"]);
    assert!(
        !gateway.stderr().contains("was not told"),
        "{}",
        gateway.stderr()
    );
}

#[test]
fn a_notice_that_fails_is_logged_and_changes_nothing() {
    let Some(gateway) = gateway("{ path = \"/deaf\" }", "") else {
        return;
    };
    let begun = Instant::now();
    let output = gateway.ctl(["restart", "--drained"]);
    assert!(output.status.success(), "{}", said(&output));
    let took = begun.elapsed();
    assert!(
        took > AT_ONCE && gateway.gone_after(1) < AT_ONCE + Duration::from_secs(6),
        "{took:?}"
    );
    gateway.wait_line(
        "sidecar main was not told of the drain: it did not answer POST /deaf within 2 s",
    );
    let forced = gateway.ctl(["restart", "--force", "--drained"]);
    assert!(
        forced.status.success() && gateway.gone_after(2) < AT_ONCE,
        "{}",
        said(&forced)
    );
    assert_eq!(
        told(&gateway),
        ["by POST /deaf", "to end", "to end"],
        "--force leaves no time to be told"
    );
}

#[test]
fn an_answer_that_is_no_success_is_named() {
    let Some(gateway) = gateway("{ path = \"/no\" }", "") else {
        return;
    };
    gateway.ctl(["restart", "--drained"]);
    gateway.wait_line("sidecar main was not told of the drain: it answered POST /no with 404");
}
