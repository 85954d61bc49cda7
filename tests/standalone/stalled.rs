//! What the gateway writes to stands still: nothing that decides or serves waits for it.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup};
use crate::support::servers;

/// A server beside a program that floods the log for two seconds once the file `flood` is there.
fn flooding() -> Setup {
    let script = "(until [ -e flood ]; do sleep 0.05; done; exec timeout 2 yes) & exec \"$@\"";
    let shell = ["sh", "-c", script, "sh"].map(str::to_owned);
    Setup::behind(shell.into_iter().chain(servers::node()))
}

fn answers(gateway: &Gateway) {
    let got = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(got.status(), 200, "{}", got.text());
}

#[test]
fn a_standard_error_that_nobody_reads_hangs_neither_status_nor_requests() {
    if !servers::have("node") {
        return;
    }
    let gateway = flooding().start();
    gateway.leave_stderr_unread(true);
    fs::write(gateway.dir().join("flood"), "").unwrap();
    // A log that took nothing for a second stands still; from then on lines are lost.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        answers(&gateway);
        assert_eq!(gateway.status()["stage"], "ready");
    }
    assert!(gateway.restart().status.success());
    answers(&gateway);
    gateway.leave_stderr_unread(false);
    gateway.wait_line("lines were lost");
    gateway.wait_line("generation 2");
}

#[test]
fn a_stop_ends_in_time_though_nobody_reads_standard_error() {
    if !servers::have("node") {
        return;
    }
    let mut gateway = flooding().start();
    gateway.leave_stderr_unread(true);
    fs::write(gateway.dir().join("flood"), "").unwrap();
    for _ in 0..5 {
        answers(&gateway);
    }
    gateway.signal(nix::sys::signal::Signal::SIGTERM);
    let status = gateway.wait_exit(Duration::from_secs(20));
    assert_eq!(status.code(), Some(0));
}
