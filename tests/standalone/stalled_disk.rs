//! A disk does not answer: the program, the configuration or the state directory lies on it. What
//! decides or serves does not wait for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::support::gateway::{Gateway, Setup, ctl_in, said};
use crate::support::handover::{
    Failpoint, failed, followed, fresh, no_sidecar, one_of, one_serves, respawning,
};
use crate::support::hold::{Holder, lease};
use crate::support::{servers, wait};

/// The disk does not answer for longer than this: an answer within it did not wait.
const SOON: Duration = Duration::from_secs(3);

/// A copy of the program, which a test can replace as an update does.
struct Copy {
    dir: tempfile::TempDir,
}

impl Copy {
    fn new() -> Self {
        let copy = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        copy.replace();
        copy
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("gateway")
    }

    /// Puts another file in its place.
    fn replace(&self) {
        let next = self.dir.path().join("next");
        fs::copy(env!("CARGO_BIN_EXE_gateway"), &next).unwrap();
        fs::rename(&next, self.path()).unwrap();
    }

    /// Puts another file in its place that is not loaded before the end of what comes back.
    fn stall(&self) -> Holder {
        self.replace();
        lease(&self.path())
    }
}

/// Where each process has another parent: nobody stays in front, or the first process does.
fn ways() -> impl Iterator<Item = Setup> {
    let there = servers::have("python3");
    let ways = [respawning(), followed()];
    ways.into_iter().flatten().filter(move |_| there)
}

#[test]
fn a_successor_whose_program_is_not_loaded_stops_nobody_and_the_restart_fails() {
    for (count, setup) in [1, 2].into_iter().zip(ways()) {
        let program = Copy::new();
        let gateway = setup.program(program.path()).start();
        for turn in 0..count {
            let serves = gateway.main_pid();
            let held = program.stall();
            let restart = gateway.ctl_aside(["restart", "--fresh"]);
            gateway.wait_status("it restarts", |status| status["stage"] == "restarting");
            while !restart.is_finished() {
                gateway.answers_within(SOON);
            }
            let text = failed(&restart.join().unwrap());
            assert!(text.contains("does its disk answer?"), "{text}");
            held.release();
            assert_eq!(one_of(&gateway, turn + 1), serves, "{}", gateway.stderr());
            fresh(&gateway);
            one_of(&gateway, count);
        }
    }
}

#[test]
fn a_stop_does_not_wait_for_a_successor_whose_program_is_not_loaded() {
    for setup in ways() {
        let program = Copy::new();
        let mut gateway = setup.program(program.path()).start();
        let held = program.stall();
        let restart = gateway.ctl_aside(["restart", "--fresh"]);
        gateway.wait_status("it restarts", |status| status["stage"] == "restarting");
        gateway.signal(Signal::SIGTERM);
        assert_eq!(gateway.exit_code(SOON), 0, "{}", gateway.stderr());
        restart.join().unwrap();
        held.release();
        gateway.wait_gone(wait::DEADLINE);
        no_sidecar(&gateway);
    }
}

/// A gateway that reads its configuration, which is not read before the failpoint goes on.
fn stalled_configuration(failpoint: &Failpoint, setup: Setup) -> Gateway {
    let gateway = failpoint.on(setup).start();
    failpoint.arm("config.read", "pause");
    gateway.signal(Signal::SIGHUP);
    failpoint.wait_reached();
    gateway.answers_within(SOON);
    gateway
}

#[test]
fn a_configuration_that_is_not_read_stops_nobody_and_the_reload_fails() {
    let Some(setup) = respawning() else { return };
    let failpoint = Failpoint::new();
    let gateway = stalled_configuration(&failpoint, setup);
    let failed = "the configuration was not read within";
    while !gateway.stderr().contains(failed) {
        gateway.answers_within(SOON);
    }
    failpoint.go_on();
    let reload = gateway.ctl(["reload"]);
    assert!(reload.status.success(), "{}", said(&reload));
}

#[test]
fn a_stop_does_not_wait_for_a_configuration_that_is_not_read() {
    let Some(setup) = respawning() else { return };
    let failpoint = Failpoint::new();
    let mut gateway = stalled_configuration(&failpoint, setup);
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(SOON), 0, "{}", gateway.stderr());
}

/// A reload and a command waited until the lease or the pipe was gone.
#[test]
fn a_pipe_or_a_lease_in_place_of_the_configuration_fails_at_once() {
    if !servers::have("python3") {
        return;
    }
    let gateway = Setup::new().start();
    let file = gateway.config_file();
    let held = lease(&file);
    let reload = gateway.ctl(["reload"]);
    let text = failed(&reload);
    assert!(text.contains("another process has a lease on it"), "{text}");
    held.release();
    fs::remove_file(&file).unwrap();
    nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let text = failed(&gateway.ctl(["reload"]));
    assert!(text.contains("it is not a regular file"), "{text}");
    let mut check = ctl_in(gateway.state_dir());
    let check = check.args(["config", "check", "--config"]).arg(&file);
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", said(&output));
}

fn has_record(state: &Path, what: &str) -> bool {
    let history = fs::read_to_string(state.join("history.jsonl"));
    history.is_ok_and(|history| history.contains(what))
}

#[test]
fn a_state_directory_that_takes_nothing_stops_nobody_and_is_written_later() {
    let failpoint = Failpoint::new();
    let Some(setup) = followed() else { return };
    let gateway = failpoint.on(setup).start();
    failpoint.arm("record.write", "pause");
    let restart = gateway.ctl_aside(["restart", "--reason", "stalled"]);
    failpoint.wait_reached();
    while !restart.is_finished() {
        gateway.answers_within(SOON);
    }
    let output = restart.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    gateway.answers_within(SOON);
    assert!(!has_record(gateway.state_dir(), "stalled"));
    failpoint.go_on();
    wait::until("it is on record", || {
        has_record(gateway.state_dir(), "stalled").then_some(())
    });
    one_serves(&gateway);
}

#[test]
fn a_stop_does_not_wait_for_a_state_directory_that_takes_nothing() {
    let failpoint = Failpoint::new();
    let Some(setup) = respawning() else { return };
    let mut gateway = failpoint.on(setup).start();
    failpoint.arm("record.write", "pause");
    gateway.signal(Signal::SIGTERM);
    assert_eq!(gateway.exit_code(SOON), 0, "{}", gateway.stderr());
}
