//! Either process of a hand-over dies, hangs or errs at any step: one gateway serves afterwards, no
//! client is refused, whoever asked learns why, and the next restart works.

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;

use crate::support::gateway::{Gateway, Setup, said};
use crate::support::handover::{
    self, Failpoint, NEW, OLD, TASK, failed, fresh, one_serves, respawning, successor_ended,
};
use crate::support::load::{Load, Running};
use crate::support::report::Part;
use crate::support::{servers, wait};

/// Only behind a waiter; waiter.rs.
const WAITER: [&str; 1] = ["waiter.alone"];

/// Threads that read and write files; stalled_disk.rs.
const FILES: [&str; 2] = ["config.read", "record.write"];

/// New clients in a second, each with one request: enough to be hurt by a moment without a listener.
const NEW_PER_SECOND: f64 = 50.0;

fn light_load(gateway: &Gateway) -> Running {
    let load = Load {
        new_per_second: NEW_PER_SECOND,
        ..Load::on(gateway.target())
    }
    .start();
    load.flows(Part::New, 5);
    load
}

/// Nobody was refused, and nobody got an error; `cut` when those may have lost their answer whose
/// process was killed.
fn unhurt(load: Running, cut: bool) {
    load.flows(Part::New, 10);
    let report = load.stop();
    let of_the_dead = if cut {
        report.failures_of("reset") + report.failures_of("eof") + report.failures_of("truncated")
    } else {
        0
    };
    assert_eq!(report.failures(), of_the_dead, "{report}");
    // What was accepted by the one that died, and no more: what is in flight at a moment, which is
    // more where a busy machine makes every answer late.
    let in_flight = NEW_PER_SECOND * report.quantile(0.99).as_secs_f64();
    assert!(of_the_dead as f64 <= in_flight.max(10.0), "{report}");
}

fn setup(name: &str, dir: &Path) -> Option<Setup> {
    let setup = respawning()?;
    // Only what must not run twice is released.
    let alone = name == "old.release";
    Some(if alone {
        setup
            .command(servers::node_with_lock(&dir.join("lock")))
            .flag("--exclusive")
    } else {
        setup
    })
}

fn old_is_killed(name: &str) {
    let (dir, failpoint) = (tempfile::tempdir().unwrap(), Failpoint::new());
    let Some(setup) = setup(name, dir.path()) else {
        return;
    };
    let mut gateway = failpoint.on(setup).start();
    let old = gateway.pid();
    let load = light_load(&gateway);
    failpoint.arm(name, "kill");
    let output = gateway.ctl(["restart"]);
    failpoint.wait_reached();
    assert_eq!(
        gateway.wait_exit(wait::DEADLINE).signal(),
        Some(9),
        "{name} is in the old process"
    );
    // It may have come far enough for gatewayctl to see the next one serve.
    assert!(
        output.status.success() || !output.stderr.is_empty(),
        "{}",
        said(&output)
    );
    let new = one_serves(&gateway);
    assert_ne!(new, old);
    unhurt(load, true);
    fresh(&gateway);
    one_serves(&gateway);
    gateway.terminate();
    assert!(handover::sidecars(&gateway).is_empty());
}

fn new_is_killed(name: &str) {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    let load = light_load(&gateway);
    failpoint.arm(name, "kill");
    let output = gateway.ctl(["restart"]);
    failpoint.wait_reached();
    let text = failed(&output);
    successor_ended(&text, "was ended by SIGKILL");
    assert_eq!(
        one_serves(&gateway),
        gateway.pid(),
        "{name}: the old one serves on"
    );
    unhurt(load, true);
    fresh(&gateway);
    one_serves(&gateway);
    gateway.terminate();
    assert!(handover::sidecars(&gateway).is_empty());
}

macro_rules! killed {
    ($($test:ident = $who:ident $name:literal),+ $(,)?) => {$(
        #[test]
        fn $test() {
            $who($name);
        }
    )+};
}

killed! {
    old_dies_when_it_has_spawned = old_is_killed "old.spawned",
    old_dies_when_it_is_asked_to_release = old_is_killed "old.release",
    old_dies_before_mainpid = old_is_killed "old.before-mainpid",
    old_dies_after_mainpid = old_is_killed "old.after-mainpid",
    old_dies_after_go = old_is_killed "old.after-go",
    old_dies_when_the_new_one_serves = old_is_killed "old.served",
    old_dies_while_it_finishes_its_work = old_is_killed "old.yielded",
    new_dies_before_its_first_word = new_is_killed "new.started",
    new_dies_while_it_gets_ready = new_is_killed "new.alive",
    new_dies_when_it_is_ready = new_is_killed "new.ready",
    new_dies_when_told_to_go = new_is_killed "new.go",
    new_dies_when_it_accepts = new_is_killed "new.accepting",
    new_dies_before_it_says_that_it_serves = new_is_killed "new.before-serving",
}

#[test]
fn old_dies_before_anything_is_begun_and_the_next_start_needs_no_help() {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup.clone()).start();
    failpoint.arm("old.before-spawn", "kill");
    failed(&gateway.ctl(["restart"]));
    assert_eq!(gateway.wait_exit(wait::DEADLINE).signal(), Some(9));
    handover::no_sidecar(&gateway);
    let mut next = setup
        .state_dir(gateway.state_dir())
        .port(gateway.addr().port())
        .start();
    assert_eq!(one_serves(&next), next.pid());
    fresh(&next);
    next.terminate();
}

#[test]
fn every_failpoint_is_one_of_these() {
    let all = OLD
        .into_iter()
        .chain(NEW)
        .chain(WAITER)
        .chain(TASK)
        .chain(FILES);
    let mut known: Vec<&str> = all.collect();
    known.sort_unstable();
    let mut found: Vec<String> = Vec::new();
    let mut dirs = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.path().is_dir() {
                dirs.push(entry.path());
                continue;
            }
            let text = fs::read_to_string(entry.path()).unwrap();
            let names = text
                .split("failpoint::pass(\"")
                .skip(1)
                .filter_map(|rest| rest.split('"').next());
            found.extend(names.map(str::to_owned));
        }
    }
    found.sort_unstable();
    assert_eq!(found, known, "a new failpoint needs its test");
}

#[test]
fn a_successor_that_hangs_is_ended_wherever_it_hangs() {
    std::thread::scope(|scope| {
        for name in NEW {
            scope.spawn(move || new_hangs(name));
        }
    });
}

fn new_hangs(name: &str) {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    let load = light_load(&gateway);
    failpoint.arm(name, "hang");
    let text = failed(&gateway.ctl(["restart"]));
    failpoint.wait_reached();
    assert!(text.contains("the successor hangs"), "{name}: {text}");
    assert_eq!(
        one_serves(&gateway),
        gateway.pid(),
        "{name}: the old one serves on"
    );
    unhurt(load, true);
    fresh(&gateway);
    one_serves(&gateway);
    gateway.terminate();
}

#[test]
fn a_successor_that_exits_changes_nothing() {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    let load = light_load(&gateway);
    failpoint.arm("new.alive", "exit");
    let text = failed(&gateway.ctl(["restart"]));
    successor_ended(&text, "exited with code 1");
    assert_eq!(one_serves(&gateway), gateway.pid());
    unhurt(load, false);
    fresh(&gateway);
    gateway.terminate();
}

#[test]
fn a_successor_that_cannot_read_its_configuration_says_so_and_changes_nothing() {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    let load = light_load(&gateway);
    let good = fs::read_to_string(gateway.config_file()).unwrap();
    // After gatewayctl, which looks at the file itself, has found nothing wrong with it.
    let restart = failpoint.pause(&gateway, "old.before-spawn", &["restart"]);
    fs::write(gateway.config_file(), "[restart\nmode = ").unwrap();
    failpoint.go_on();
    let text = failed(&restart.join().unwrap());
    assert!(text.contains("gateway.toml"), "{text}");
    assert_eq!(one_serves(&gateway), gateway.pid());
    unhurt(load, false);
    fs::write(gateway.config_file(), good).unwrap();
    fresh(&gateway);
    one_serves(&gateway);
    gateway.terminate();
}

/// A script that is the Node server unless the file says otherwise.
fn breakable(setup: Setup, broken: &Path) -> Setup {
    let script = format!(
        "if [ -s {0} ]; then cat {0} >&2; exit 3; fi; exec \"$@\"",
        broken.display()
    );
    let mut command = vec!["sh".to_owned(), "-c".into(), script, "sh".into()];
    command.extend(servers::node());
    setup.command(command)
}

#[test]
fn a_successor_whose_sidecar_does_not_start_says_what_it_said_and_changes_nothing() {
    let Some(setup) = respawning() else { return };
    let dir = tempfile::tempdir().unwrap();
    let broken = dir.path().join("broken");
    let mut gateway = breakable(setup, &broken).start();
    let load = light_load(&gateway);
    fs::write(&broken, "the table `users` is missing\n").unwrap();
    let text = failed(&gateway.ctl(["restart"]));
    assert!(text.contains("the table `users` is missing"), "{text}");
    assert_eq!(one_serves(&gateway), gateway.pid());
    unhurt(load, false);
    fs::write(&broken, "").unwrap();
    fresh(&gateway);
    one_serves(&gateway);
    gateway.terminate();
}
