//! The journal stands still: the gateway serves, answers and is not killed by its watchdog.

use std::time::{Duration, Instant};

use crate::support::report::Part;
use crate::support::site::{Site, load_on_front, node, prepared};
use crate::support::wait;

/// A server beside a program that floods the log for eight seconds once /run/flood is there.
const FLOODING: &str =
    "(until [ -e /run/flood ]; do sleep 0.05; done; exec timeout 8 yes) & exec \"$@\"";

#[test]
fn a_journal_that_stands_still_hangs_nobody_and_wakes_no_watchdog() {
    let Some(systemd) = prepared("stalled-journal") else {
        return;
    };
    let site = Site::of_machine(&systemd);
    let install = [
        "gatewayctl",
        "install",
        "--now",
        "--listen",
        "127.0.0.1:18789",
        "--",
    ];
    let server = node();
    site.must(&[&install[..], &["sh", "-c", FLOODING, "sh"], &server[1..]].concat());
    site.drop("WatchdogSec=2");
    site.must_systemctl(&["restart", "gateway"]);
    let (pid, restarts) = (
        site.main_pid(),
        site.property("gateway.service", "NRestarts"),
    );
    let load = load_on_front(&systemd, 50.0);

    let journald = site.property("systemd-journald.service", "MainPID");
    site.must(&["kill", "-STOP", &journald]);
    systemd.write("/run/flood", "");
    // Time itself is what this is about: three periods of the watchdog.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(6) {
        assert_eq!(site.status()["stage"], "ready");
    }
    site.must(&["gatewayctl", "restart", "--fresh"]);
    let successor = site.main_pid();
    load.flows(Part::New, 20);
    site.must(&["kill", "-CONT", &journald]);

    let report = load.stop();
    assert_eq!(report.failures(), 0, "{report}\n{}", site.journal());
    assert_ne!(successor, pid, "a hand-over, not a death");
    assert_eq!(site.property("gateway.service", "NRestarts"), restarts);
    wait::until("the loss is logged", || {
        site.journal().contains("lines were lost").then_some(())
    });
}
