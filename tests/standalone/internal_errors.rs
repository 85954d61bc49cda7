//! A fault of the gateway itself, a panic in one of its tasks: the restart ends failed, with what is
//! known about it, and the service goes on.

use std::fs;

use crate::support::client::{self, block_on};
use crate::support::gateway::{Gateway, Setup};
use crate::support::handover::{Failpoint, failed, sidecars};
use crate::support::{servers, wait};

fn serves(gateway: &Gateway, generation: u64) {
    assert_eq!(gateway.status()["generation"], generation);
    let got = block_on(client::get(&gateway.target(), "/")).unwrap();
    assert_eq!(got.status(), 200, "{}", got.text());
    wait::until("one sidecar is left", || {
        (sidecars(gateway).len() == 1).then_some(())
    });
}

/// How many bundles tell of a panic.
fn bundles(gateway: &Gateway) -> usize {
    let bundles = fs::read_dir(gateway.state_dir().join("bundles")).unwrap();
    let texts = bundles.map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    texts
        .filter(|text| text.contains("internal error: failpoint"))
        .count()
}

#[test]
fn a_restart_whose_build_panics_ends_failed_and_the_next_one_works() {
    if !servers::have("node") {
        return;
    }
    let failpoint = Failpoint::new();
    let gateway = failpoint.on(Setup::behind(servers::node())).start();
    failpoint.arm("task.build", "panic");
    let text = failed(&gateway.ctl(["restart"]));
    assert!(text.contains("internal error: failpoint"), "{text}");
    serves(&gateway, 1);
    assert_eq!(bundles(&gateway), 1);
    gateway.restart();
    let next = gateway.status()["generation"].as_u64().unwrap();
    serves(&gateway, next);
}

#[test]
fn a_drain_that_panics_leaves_no_old_server_and_nobody_waiting() {
    if !servers::have("node") {
        return;
    }
    let failpoint = Failpoint::new();
    let gateway = failpoint.on(Setup::behind(servers::node())).start();
    failpoint.arm("task.drain", "panic");
    let text = failed(&gateway.ctl(["restart", "--drained"]));
    assert!(text.contains("did not drain"), "{text}");
    serves(&gateway, 2);
    assert_eq!(bundles(&gateway), 1);
    assert_eq!(gateway.status()["stage"], "ready");
}
