//! What an ordinary user is told where privileges are missing.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::gateway::{Setup, said};
use crate::support::{nobody, wait};

const FAILED: i32 = 1;
const PERMISSION: i32 = 77;

/// Both programs where any user can run them; none without root, who alone can become somebody
/// else.
fn public_copies() -> Option<tempfile::TempDir> {
    nobody::can_be().then(|| {
        let dir = tempfile::tempdir().unwrap();
        nobody::copy_programs(dir.path());
        dir
    })
}

#[test]
fn a_state_directory_of_somebody_else_is_refused_and_named() {
    let Some(dir) = public_copies() else { return };
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    fs::set_permissions(&state, fs::Permissions::from_mode(0o700)).unwrap();
    let listen = format!("127.0.0.1:{}", crate::support::port::private());
    let output = nobody::gateway(dir.path(), &state, &listen)
        .output()
        .unwrap();
    assert!(
        matches!(output.status.code(), Some(FAILED | PERMISSION)),
        "{}",
        said(&output)
    );
    let text = said(&output);
    assert!(
        text.contains(state.to_str().unwrap()) && text.to_lowercase().contains("permission denied"),
        "{text}"
    );
}

#[test]
fn a_port_that_needs_privileges_is_refused_and_named() {
    let Some(dir) = public_copies() else { return };
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    if first.trim().parse::<u16>().unwrap() <= 81 {
        // Nothing is privileged in some containers: then there is nothing to refuse.
        return;
    }
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    nobody::own(&state);
    let output = nobody::gateway(dir.path(), &state, "127.0.0.1:81")
        .output()
        .unwrap();
    assert!(
        matches!(output.status.code(), Some(FAILED | PERMISSION)),
        "{}",
        said(&output)
    );
    let text = said(&output);
    assert!(
        text.contains("127.0.0.1:81") && text.to_lowercase().contains("permission denied"),
        "{text}"
    );
}

#[test]
fn another_users_gateway_is_not_ones_own_to_restart() {
    let Some(dir) = public_copies() else { return };
    // The directories are passable, so that the socket itself has to refuse.
    let state = dir.path().join("state");
    let gateway = Setup::new().state_dir(&state).start();
    for dir in [&state, &state.join("run")] {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let ctl = |args: &[&str]| {
        let args = [&["--state-dir", state.to_str().unwrap()], args].concat();
        let mut command = nobody::command(&dir.path().join("gatewayctl"), &args);
        command.output().unwrap()
    };
    for verb in ["status", "restart", "stop"] {
        let output = ctl(&[verb]);
        assert_eq!(
            output.status.code(),
            Some(PERMISSION),
            "{verb}: {}",
            said(&output)
        );
    }
    assert_eq!(gateway.status()["generation"], 1);
    // And where the socket's mode alone would not, the peer's identity does.
    fs::set_permissions(
        state.join("run/control.sock"),
        fs::Permissions::from_mode(0o777),
    )
    .unwrap();
    let output = ctl(&["restart"]);
    assert!(!output.status.success(), "{}", said(&output));
    assert_eq!(gateway.status()["generation"], 1, "a stranger restarted it");
    wait::until("the refusal is recorded", || {
        gateway.stderr().contains("65534").then_some(())
    });
}
