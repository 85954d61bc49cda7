//! A program whose disk does not answer, and a dead process that a debugger holds: the gateway waits
//! for neither.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::gateway::{Gateway, Setup, said};
use crate::support::handover::{followed, fresh, no_sidecar, one_of, signal};
use crate::support::hold::{debug, lease};
use crate::support::servers;

/// What stands still is held for longer than this: an answer within it did not wait.
const SOON: Duration = Duration::from_secs(10);

/// A script that becomes the node server.
fn program(dir: &Path) -> PathBuf {
    let path = dir.join("server");
    let node = servers::node();
    let text = format!("#!/bin/sh\nexec '{}' '{}' \"$1\"\n", node[0], node[1]);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn behind(program: &Path) -> Gateway {
    Setup::behind([program.to_str().unwrap(), "{port}"]).start()
}

fn have_servers() -> bool {
    servers::have("node") && servers::have("python3")
}

#[test]
fn a_program_on_a_disk_that_does_not_answer_hangs_nothing_but_its_own_start() {
    if !have_servers() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path());
    let gateway = behind(&program);
    let held = lease(&program);
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_status("it restarts", |status| status["stage"] == "restarting");
    for _ in 0..3 {
        gateway.answers_within(SOON);
    }
    assert!(!restart.is_finished(), "{}", gateway.stderr());
    held.release();
    let output = restart.join().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    gateway.answers_within(SOON);
}

#[test]
fn a_stop_does_not_wait_for_a_program_that_is_not_loaded() {
    if !have_servers() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let program = program(dir.path());
    let mut gateway = behind(&program);
    let _held = lease(&program);
    let restart = gateway.ctl_aside(["restart"]);
    gateway.wait_status("it restarts", |status| status["stage"] == "restarting");
    gateway.signal(Signal::SIGTERM);
    let code = gateway.wait_exit(SOON).code();
    assert_eq!(code, Some(0), "{}", gateway.stderr());
    restart.join().unwrap();
}

#[test]
fn a_program_that_is_never_loaded_fails_in_its_start_timeout_and_is_named() {
    if !have_servers() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = program(dir.path());
    let held = lease(&path);
    let mut gateway = Setup::new()
        .config(format!(
            "[sidecar.main]\ncommand = ['{}', '{{port}}']\nstart_timeout = '1s'",
            path.display()
        ))
        .spawn();
    assert_eq!(gateway.exit_code(SOON), 1);
    let text = gateway.stderr();
    assert!(
        text.contains("has not loaded it in 1s") && text.contains(path.to_str().unwrap()),
        "{text}"
    );
    held.release();
}

#[test]
fn a_dead_server_that_a_debugger_holds_is_replaced() {
    if !have_servers() {
        return;
    }
    let gateway = Setup::behind(servers::node()).start();
    let pid = gateway.sidecar_pid("main");
    let held = debug(pid);
    kill(Pid::from_raw(pid as i32), Signal::SIGKILL).unwrap();
    gateway.answers_within(SOON);
    assert_ne!(gateway.sidecar_pid("main"), pid);
    gateway.wait_line("a debugger keeps its exit status");
    held.release();
}

#[test]
fn a_first_process_ends_though_a_debugger_holds_the_last_one() {
    let Some(setup) = followed().filter(|_| have_servers()) else {
        return;
    };
    let mut gateway = setup.start();
    let last = fresh(&gateway);
    one_of(&gateway, 2);
    let held = debug(last);
    signal(last, Signal::SIGKILL);
    assert_eq!(gateway.exit_code(SOON), 1, "{}", gateway.stderr());
    held.release();
    no_sidecar(&gateway);
}
